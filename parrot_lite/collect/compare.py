"""Data sets side by side: their statistics in a table with the paper's, as Markdown, JSON and plots."""

from __future__ import annotations

import heapq
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from parrot_lite import __version__
from parrot_lite.collect import sources
from parrot_lite.collect.statistics import DRAWS, SAMPLE, DataSet, Mean, Tally, none_of
from parrot_lite.errors import UserError
from parrot_lite.progress import progress, say
from parrot_lite.store import count, existing_file, fingerprint, locate, read, writable_folder, write_atomically
from parrot_lite.table import Report, Table
from parrot_lite.types import Dialogue, Rejected, derive_seed

PEEKED = 1 << 22  # characters by which a file's kind is told
NONE = "—"
# Table 1 of the paper, and the topics a session of its first version.
PAPER: dict[str, dict[str, float]] = {
    "ShareGPT": {"turns": 6.67, "dependent": 4.62, "topics": 3.3},
    "UltraChat": {"turns": 3.85, "dependent": 1.45, "topics": 2.3},
    "Baize": {"turns": 4.54, "dependent": 1.75, "topics": 3.1},
    "Parrot-40K": {"turns": 8.71, "dependent": 3.42, "topics": 5.5, "self-rouge": 12.5},
}


def run(
    files: Sequence[str], names: Sequence[str], out: Path | None, sessions: int | None, chunks: bool, seed: int
) -> None:
    """Print the table of ``files`` and of ``names`` (NAME=FILE); with ``out``, write table, JSON and plots there.

    ``sessions`` draws so many of each, the same by every order of the file; ``chunks`` leaves ShareGPT's chunks as
    they lie. Raises UserError where a file cannot be read or two data sets have one name.
    """
    data_sets = named(files, names)
    for file in data_sets.values():
        existing_file(locate(file))
    if out is not None:
        from parrot_lite.collect import plots  # before the work: it needs matplotlib

        writable_folder(out)
    found = [measure(name, file, sessions, chunks, seed) for name, file in data_sets.items()]
    how = _options(sessions, chunks, seed)
    report = build(found, how)
    if out is not None:
        drawn = plots.draw(found, out)
        pictures = "".join(f"\n![{picture.caption}]({picture.path.name})\n" for picture in drawn)
        write_atomically(out / "stats.md", report.markdown() + pictures)
        made = {"parrot_lite": __version__, "sessions": sessions, "chunks": chunks, "seed": seed}
        data = {"made": made, "data_sets": [one.model_dump(mode="json") for one in found], "paper": PAPER}
        write_atomically(out / "stats.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        say(f"stats: written to {out}")
    report.show()


def named(files: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Name → file, ``names`` last; a file without a name has its own, without the ending."""
    pairs = [(Path(file).stem, file) for file in files]
    for text in names:
        name, equals, file = text.partition("=")
        if not (equals and name and file):
            raise UserError(
                f"'{text}' is not NAME=FILE", "--name", "Write e.g. --name demo=runs/demo/collect/dialogues.jsonl"
            )
        pairs.append((name, file))
    if not pairs:
        raise UserError("no data set", "stats", "Name files, or --name NAME=FILE")
    twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if twice:
        raise UserError(f"two data sets are called {twice[0]}", "stats", "Give one another with --name NAME=FILE")
    return dict(pairs)


def measure(name: str, file: str, sessions: int | None, chunks: bool, seed: int) -> DataSet:
    """The statistics of one file. Raises UserError where it cannot be read or holds no session."""
    path = existing_file(locate(file))
    counts: Counter[str] = Counter()
    unit, records = told(path, counts, chunks)
    tally = Tally(seed)
    kept = _complete(records, counts)
    if sessions is not None:
        kept = _drawn(kept, sessions, counts, seed)
    for session in kept:
        tally.add(session)
    if not tally.sessions:
        raise UserError("holds no session with an answered query", str(path))
    if unit == CONVERSATIONS:
        unit = f"{unit}, {counts['conversations']} rejoined from {counts['chunks']} chunks"
    return tally.result(name, path.name, fingerprint(path), unit, +counts)


CONVERSATIONS = "conversations"


def told(file: Path, counts: Counter[str], chunks: bool) -> tuple[str, Iterable[Dialogue | Rejected]]:
    """What a session is in ``file``, told by its first items, and its sessions.

    Raises UserError where they are neither our own records nor rows with ``conversations``, ``messages`` or UltraChat's
    ``data``.
    """
    first = list(itertools.islice(_peek(file), 20))
    keys = set(first[0]) if first and isinstance(first[0], dict) else set()
    if "turns" in keys:
        return "sessions", _watched(file)
    if "messages" in keys:
        return "sessions", sources.messages(file, counts)
    if "data" in keys:
        return "sessions", sources.ultrachat(file, counts)
    if "conversations" not in keys:
        fix = "Its items must have turns, conversations, messages or data"
        raise UserError("begins with no session", str(file), fix)
    if not _are_chunks(first):
        return "sessions", sources.conversations(file, counts)
    if chunks:
        return "chunks", sources.conversations(file, counts)
    return CONVERSATIONS, sources.sharegpt(file, counts)


def _are_chunks(items: Sequence[Any]) -> bool:
    """Whether ids are ShareGPT's, <conversation>_<index of its first message>, and not one stem with numbers."""
    parted = [str(item.get("id", "")).rpartition("_") for item in items if isinstance(item, dict)]
    stems = {stem for stem, _, _ in parted}
    return all(stem and index.isdecimal() for stem, _, index in parted) and (len(stems) > 1 or len(parted) == 1)


def _peek(file: Path) -> Iterator[Any]:
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        text = stream.read(PEEKED)
    decode, between = json.JSONDecoder().raw_decode, " \t\r\n,["
    text = text.lstrip(between)
    while text:
        try:
            item, end = decode(text)
        except json.JSONDecodeError:
            return  # cut off, or broken: then the reader says where
        yield item
        text = text[end:].lstrip(between)


def _watched(file: Path) -> Iterator[Dialogue]:
    with progress(file.name, count(file)) as bar:
        for session in read(file, Dialogue):
            yield session
            bar.advance()


def _complete(records: Iterable[Dialogue | Rejected], counts: Counter[str]) -> Iterator[Dialogue]:
    for record in records:
        if isinstance(record, Rejected):
            counts[f"left out: {record.reason}"] += 1
            continue
        whole = record.complete()
        counts["unanswered last queries dropped"] += len(record.queries) - len(whole.queries)
        if whole.turns:
            yield whole
        else:
            counts["left out: no answered query"] += 1


def _drawn(sessions: Iterable[Dialogue], wanted: int, counts: Counter[str], seed: int) -> Iterator[Dialogue]:
    """``wanted`` sessions by a rank of their ids."""
    there = 0

    def ranked() -> Iterator[tuple[int, str, Dialogue]]:
        nonlocal there
        for session in sessions:
            there += 1
            yield derive_seed(seed, "stats", session.id), session.id, session

    drawn = heapq.nsmallest(wanted, ranked(), key=lambda one: one[:2])
    counts["not drawn"] = there - len(drawn)
    return (session for _, _, session in drawn)


def _options(sessions: int | None, chunks: bool, seed: int) -> str:
    drawn = "all sessions" if sessions is None else f"at most {sessions} sessions of each"
    return f"{drawn}, seed {seed}{', chunks as they lie' if chunks else ''}"


def build(data_sets: Sequence[DataSet], how: str) -> Report:
    """The report: the paper's Table 1, and two tables of what it does not give; ``how`` says how it was made."""
    return Report(
        title="Data statistics",
        facts=((f"parrot_lite {__version__}", how), *((one.name, _origin(one)) for one in data_sets)),
        warnings=(),
        tables=(_table_1(data_sets), _texts(data_sets), _faults(data_sets)),
    )


def _origin(one: DataSet) -> str:
    left_out = sum(times for reason, times in one.counts.items() if reason.startswith("left out"))
    parts = [f"{one.sessions} sessions of {one.file}", f"a session is one of its {one.unit}"]
    if one.unit == "sessions":
        del parts[1]
    if drawn := one.counts.get("not drawn"):
        parts.append(f"drawn from {one.sessions + drawn}")
    if left_out:
        parts.append(f"{left_out} left out")
    parts.append(f"fingerprint {one.fingerprint}")
    return "; ".join(parts)


def _table_1(data_sets: Sequence[DataSet]) -> Table:
    columns = (
        ("turns", ".2f"),
        ("dependent", ".2f"),
        ("dependent later", ".1%"),
        ("topics", ".2f"),
        ("self-rouge", ".1f"),
    )
    rows = [
        (one.name, f"{one.sessions:,}", *(written(one.means.get(key), form) for key, form in columns))
        for one in data_sets
    ]
    for name, given in PAPER.items():
        cells = (f"{given[key]:g}" if key in given else NONE for key, _ in columns)
        rows.append((f"{name} (paper)", NONE, *cells))
    return Table(
        "Sessions, as in the paper's Table 1",
        ("Data set", "Sessions", "Turns", "Dependent", "of later\nqueries", "Topics", "Self-ROUGE"),
        tuple(rows),
        (
            "A mean a session, ± half its 95% interval over sessions; — where there is none. Turns: exchanges.",
            "Dependent: queries that lean on the history by this kit's rules, which read English and see words, not "
            "meaning; of later queries: their share of the queries after the first. The paper counts its own way.",
            "Topics: 1 + the queries after the first that neither lean on the history nor share a content word with "
            "anything said before: at least so many. The paper's are of its first version, counted its own way.",
            "Self-ROUGE: mean ROUGE-L x 100 of each query against its session's others, then over sessions of two "
            "queries or more. The paper does not define its own.",
        ),
    )


def _texts(data_sets: Sequence[DataSet]) -> Table:
    def row(one: DataSet) -> tuple[str, ...]:
        cells = [
            text
            for key in ("query words", "later query words", "answer words")
            for text in (written(one.means.get(key), ".1f"), f"{one.medians[key]:g}" if key in one.medians else NONE)
        ]
        distinct = (f"{one.shares[key]:.3f}" if key in one.shares else NONE for key in ("distinct-1", "distinct-2"))
        return one.name, *cells, *distinct

    return Table(
        "Words",
        (
            "Data set",
            "a query",
            "median",
            "a later\nquery",
            "median",
            "an answer",
            "median",
            "Distinct-1",
            "Distinct-2",
        ),
        tuple(map(row, data_sets)),
        (
            "Words are split at white space. Later: after the first, which is a seed where sessions are collected.",
            f"Distinct-n: different n-grams by all in {SAMPLE:,} words of later queries, however large the data set; "
            f"mean of {DRAWS} draws. — where there are fewer words.",
        ),
    )


def _faults(data_sets: Sequence[DataSet]) -> Table:
    def cell(mean: Mean | None) -> str:
        if mean is None or mean.mean:
            return written(mean, ".2%")
        return f"0 of {mean.values:,} (< {none_of(mean.values):.1%})"

    keys = ("role drift", "answers itself", "thanks")
    rows = [
        (
            one.name,
            f"{one.means['later query words'].values:,}" if "later query words" in one.means else "0",
            *map(cell, (one.means.get(key) for key in keys)),
            f"{one.shares['repeated']:.2%}" if "repeated" in one.shares else NONE,
        )
        for one in data_sets
    ]
    return Table(
        "What an asker should not say, of its queries after the first",
        ("Data set", "Queries", "Role drift", "Answers itself", "Thanks", "Repeated"),
        tuple(rows),
        (
            "Role drift: begins as an assistant would. Answers itself: writes both sides. Thanks: does nothing but "
            "thank, praise or take leave; people do, too.",
            "Repeated: another session has the query word for word; a larger data set has more of these, and one that "
            "holds sessions twice.",
            "Where collection's filters ended a session or asked again, the query is not in the data: its counts stand "
            "in the manifest of collect.",
            "0 of n (< x): none; x is the exact (Clopper-Pearson) upper end of the 95% interval, queries taken as "
            "independent. ± — where all sessions have the same share: then the spread is not known.",
        ),
    )


def written(mean: Mean | None, form: str) -> str:
    """``mean ± half``, each in the format ``form``; what is missing is "—".

    >>> written(Mean(mean=8.714, half=0.122, sessions=9, values=9), ".2f")
    '8.71 ± 0.12'
    >>> written(Mean(mean=0.25, half=None, sessions=1, values=4), ".1%"), written(None, ".1f")
    ('25.0% ± —', '—')
    """
    if mean is None:
        return NONE
    return f"{mean.mean:{form}} ± {NONE if mean.half is None else format(mean.half, form)}"
