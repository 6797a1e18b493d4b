"""Where the sessions of the collect stage start: first queries of any number of sources (paper section 3.2).

A query is known by its words: what differs in case, white space or punctuation alone is one query. A source has it
once, and what one source drew no later one draws. What a benchmark asks is left out (overlap.py). Sources stream past;
a hash of each query of one source, and what is drawn, are held. Files: ``starts.jsonl`` (Dialogue) and ``starts.json``,
its counts.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from parrot_lite.collect import overlap, sources
from parrot_lite.collect.english import foreign
from parrot_lite.errors import UserError
from parrot_lite.progress import say
from parrot_lite.recipe import Recipe, Seeds
from parrot_lite.store import RunFolder, existing_file, locate, read, require, write_atomically
from parrot_lite.types import Dialogue, Rejected, Turn, derive_seed
from parrot_lite.words import words

SOURCE = "collect"
BUNDLED = "package:parrot_lite/data/seeds.txt"


def inputs(recipe: Recipe) -> dict[str, Path]:
    """The files that decide which sessions are begun, by name. Raises UserError where one is missing."""
    files = {f"collect.seeds.{one.label}": _file(recipe, one) for one in recipe.collect.seeds}
    benchmarks = overlap.benchmark_files(recipe.collect.benchmarks)
    return {name: path for name, path in files.items() if path is not None} | {
        f"collect.benchmarks.{name}": path for name, path in benchmarks.items()
    }


def draw(recipe: Recipe, folder: RunFolder) -> list[Dialogue]:
    """What each session starts from, in the order of play; what an earlier attempt drew is read again.

    A first query alone, whose answer is due, or with ``extend`` a logged session, after which the user is due and whose
    exchanges ``given`` counts. Drawn by a rank of the query itself, source by source: asking a source for more keeps
    those it drew before, but may take some over from a later source. Raises UserError where a source cannot be read or
    nothing of it is left.
    """
    starts, summary = folder.path / "starts.jsonl", folder.path / "starts.json"
    if not starts.exists():
        drawn, facts = _draw(recipe)
        write_atomically(summary, json.dumps(facts, indent=1) + "\n")
        beside = starts.with_name(starts.name + ".part")
        with beside.open("w", encoding="utf-8") as file:
            file.writelines(session.model_dump_json(exclude_none=True) + "\n" for session in drawn)
        os.replace(beside, starts)
    facts = json.loads(summary.read_text(encoding="utf-8"))
    folder.facts.update(facts)
    folder.counts["seeds"] = sum(counts["read"] for counts in facts["seeds"].values())
    return list(read(starts, Dialogue))


def _draw(recipe: Recipe) -> tuple[list[Dialogue], dict[str, Any]]:
    known = overlap.benchmarks(overlap.benchmark_files(recipe.collect.benchmarks))
    taken: dict[bytes, Dialogue] = {}
    facts: dict[str, dict[str, int]] = {}

    def rank(session: Dialogue) -> tuple[int, str]:
        return derive_seed(recipe.run.seed, "collect", "draw", session.id), session.id

    for one in recipe.collect.seeds:
        reading, count = Counter[str](), Counter({"read": 0, "left": 0})
        left = _started(one, _records(recipe, one, reading), taken, known, count)
        # Without a number of its own no more can be played than all together: a hub's millions need not be held.
        here = heapq.nsmallest(one.sessions or recipe.collect.sessions, left, rank)
        if not here:
            _refuse(one, count)
        if one.sessions and len(here) < one.sessions:
            say(f"collect: of seeds {one.label} {one.sessions} are wanted, {len(here)} are left: taking those")
        taken |= {_key(session): session for session in here}
        facts[one.label] = {**reading, **count}
    wanted = recipe.collect.sessions
    if len(taken) < wanted:
        say(f"collect: {wanted} sessions wanted, {len(taken)} different seed queries there: collecting those")
    drawn = sorted(taken.values(), key=rank)[:wanted]
    by_source = Counter(session.source for session in drawn)
    for label, counts in facts.items():
        counts["drawn"] = by_source[f"{SOURCE}:{label}"]
    return drawn, {"seeds": facts, "benchmarks": known.counts}


def _key(session: Dialogue) -> bytes:
    """What its first query is known by: 64 bits of a hash of its words."""
    return hashlib.sha256(" ".join(words(session.queries[0])).encode()).digest()[:8]


def _refuse(seeds: Seeds, counts: Counter[str]) -> None:
    reasons = Counter({reason: n for reason, n in counts.items() if reason not in ("read", "left")})
    worst = "; most went as '{}' ({})".format(*reasons.most_common(1)[0]) if reasons else ""
    raise UserError(
        f"no query is left of {counts['read']} read{worst}",
        f"collect.seeds {seeds.label}",
        "Loosen its keys, or leave the source out",
    )


def _started(
    seeds: Seeds,
    records: Iterable[Dialogue | Rejected],
    taken: Container[bytes],
    known: overlap.Benchmarks,
    counts: Counter[str],
) -> Iterator[Dialogue]:
    """What is left of a source after its filters, without what an earlier source has ``taken`` or a benchmark asks."""
    seen: set[bytes] = set()
    for record in records:
        counts["read"] += 1
        start = _start(seeds, record)
        if isinstance(start, str):
            counts[start] += 1
            continue
        if (key := _key(start)) in seen:
            counts["repeated"] += 1
            continue
        seen.add(key)
        if key in taken:
            counts["drawn by an earlier source"] += 1
            continue
        queries = [words(query) for query in start.queries]
        if shared := {f"in {name}: {match}" for text in queries for name, match in known.shared(text).items()}:
            counts["in a benchmark"] += 1
            counts.update(shared)
            continue
        counts["left"] += 1
        # 12 hex digits: with 8, two of the paper's 40,000 sessions would share an id in one run of five.
        name = f"{SOURCE}-{hashlib.sha256(start.queries[0].encode()).hexdigest()[:12]}"
        yield start.model_copy(update={"id": name})


def _start(seeds: Seeds, record: Dialogue | Rejected) -> Dialogue | str:
    """What a session would start from, or why this record gives nothing."""
    if isinstance(record, Rejected):
        return record.reason
    if not record.turns:
        return "no query"
    length = len(record.queries[0].split())
    if length < seeds.min_query_words or not words(record.queries[0]):
        return "query too short"
    if seeds.max_query_words is not None and length > seeds.max_query_words:
        return "query too long"
    first = record.model_copy(update={"turns": record.turns[:2]})
    if seeds.english and foreign(first, seeds.english):
        return "not English"
    source = f"{SOURCE}:{seeds.label}"
    if not seeds.extend:
        return Dialogue(id=record.id, source=source, turns=record.turns[:1])
    whole = record.complete()
    if not whole.answers:
        return "no answered query"
    if len(whole.answers) > seeds.extend:
        return "longer than extend"
    return Dialogue(id=record.id, source=source, turns=whole.turns, given=len(whole.answers))


def _file(recipe: Recipe, seeds: Seeds) -> Path | None:
    """The file or folder of a source; None for an id on the hub."""
    if seeds.source == "bundled":
        return locate(BUNDLED)
    if seeds.source == "logs":
        return require(recipe, "logs") / "train.jsonl"
    if seeds.path is None:
        return locate(sources.SHAREGPT)
    path = locate(seeds.path)
    if seeds.source == "hub":
        return path if path.exists() else None
    return existing_file(path)


def _records(recipe: Recipe, seeds: Seeds, counts: Counter[str]) -> Iterator[Dialogue | Rejected]:
    file = _file(recipe, seeds)
    if seeds.source == "hub":
        yield from sources.hub(str(seeds.path), seeds.split, counts)
    elif file is not None and seeds.source in ("bundled", "text"):
        for number, line in sources.lines(file):
            yield Dialogue(id=f"line {number}", source=seeds.label, turns=(Turn(role="user", content=line),))
    elif file is not None and seeds.source in ("logs", "dialogues"):
        yield from read(file, Dialogue)
    elif file is not None:
        yield from READERS[seeds.source](file, counts)


READERS = {
    "sharegpt": sources.sharegpt,
    "conversations": sources.conversations,
    "messages": sources.messages,
    "ultrachat": sources.ultrachat,
}
