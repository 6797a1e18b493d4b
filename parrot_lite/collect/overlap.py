"""What data shares with benchmarks: equal queries, or 13 words in a row (GPT-3's test, arXiv 2005.14165, appendix C).

Texts are compared by their words: case, white space and punctuation do not count. The benchmarks' queries are held as
hashes, about 100 bytes for each query and each run of 13 words; the data streams past. Run: parrot overlap FILE
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from parrot_lite.collect import sources
from parrot_lite.errors import UserError
from parrot_lite.store import existing_file, locate
from parrot_lite.words import runs, words

BUNDLED = "package:parrot_lite/data/bench.jsonl"
GRAM = 13  # words; what is shorter is only tested for being equal
SHAPES = (
    "A row holds turns, messages, conversations, data, dialogue, prompt or query; "
    "a file named .txt holds one query a line"
)

Match = Literal["equal", "13 words"]
MATCHES: tuple[Match, ...] = ("equal", "13 words")


class Said(NamedTuple):
    """What is said in one row of a file; ``unread`` counts messages that are no text."""

    id: str
    queries: list[str]
    answers: list[str]
    unread: int


@dataclass
class Benchmarks:
    """The queries of known benchmarks, as hashes. Two different texts share one in about 1 of 10^19 comparisons."""

    names: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    # By hash: the benchmarks that have it, one bit each; benchmarks often share queries.
    _queries: dict[int, int] = field(default_factory=dict, repr=False)
    _grams: dict[int, int] = field(default_factory=dict, repr=False)

    def add(self, name: str, queries: Iterable[str]) -> None:
        """Add a benchmark. Raises UserError where it has no query to compare with."""
        bit = 1 << len(self.names)
        count: Counter[str] = Counter()
        for query in queries:
            text = words(query)
            if not text:
                count["queries without a word"] += 1
                continue
            count["queries"] += 1
            self._queries[hash(text)] = self._queries.get(hash(text), 0) | bit
            for gram in runs(text, GRAM):
                count["runs of 13 words"] += 1
                self._grams[hash(gram)] = self._grams.get(hash(gram), 0) | bit
        if not count["queries"]:
            raise UserError("no query in this benchmark", name, SHAPES)
        self.names.append(name)
        self.counts[name] = dict(count)

    def shared(self, text: Sequence[str]) -> dict[str, Match]:
        """The benchmarks that have this query, or 13 words in a row of it; ``equal`` where both hold."""
        equal, run = self._queries.get(hash(tuple(text)), 0), 0
        for gram in runs(text, GRAM):
            run |= self._grams.get(hash(gram), 0)
        found: dict[str, Match] = {}
        for index, name in enumerate(self.names):
            if (equal | run) >> index & 1:
                found[name] = "equal" if equal >> index & 1 else "13 words"
        return found


def benchmark_files(paths: Iterable[str]) -> dict[str, Path]:
    """The bundled benchmark and these files, by the names they are counted under.

    Raises UserError where one is missing.
    """
    files = {"bundled": locate(BUNDLED)}
    for path in paths:
        if path != "bundled":
            files[path] = existing_file(Path(path))
    return files


def benchmarks(files: Mapping[str, Path]) -> Benchmarks:
    """The queries of these files. Raises UserError where one cannot be read or holds none."""
    known = Benchmarks()
    for name, file in files.items():
        known.add(name, (query for said in spoken(file) for query in said.queries))
    return known


def run(files: Sequence[Path], against: Sequence[str], answers: bool = False) -> bool:
    """Print what each file shares with the bundled benchmark and with ``against``; returns whether anything.

    Raises UserError where a file cannot be read or holds nothing to compare.
    """
    known = benchmarks(benchmark_files(against))
    console = Console(highlight=False, soft_wrap=True)
    anything = False
    for file in files:
        counts: Counter[str] = Counter()
        shared: Counter[tuple[str, Match]] = Counter()
        for said in spoken(existing_file(file)):
            counts["rows"] += 1
            counts["unread"] += said.unread
            texts = [("query", said.queries), *([("answer", said.answers)] if answers else [])]
            for side, spoken_texts in texts:
                for turn, text in enumerate(spoken_texts, 1):
                    compared = words(text)
                    counts[side] += bool(compared)
                    counts["without a word"] += not compared
                    for name, match in known.shared(compared).items():
                        shared[name, match] += 1
                        console.print(f"{file}: {said.id} {side} {turn}: {match} in {name}", markup=False)
        if not (counts["query"] or counts["answer"]):  # a check that saw nothing must not pass
            raise UserError("no query in it", str(file), "Name a file with data")
        console.print(_table(file, counts, shared, known))
        anything = anything or bool(shared)
    return anything


def _table(file: Path, counts: Counter[str], shared: Counter[tuple[str, Match]], known: Benchmarks) -> Table:
    sizes = f"{counts['rows']:,} rows, {counts['query']:,} queries"
    sizes += f", {counts['answer']:,} answers" if counts["answer"] else ""
    sizes += f", {counts['without a word']:,} texts without a word" if counts["without a word"] else ""
    sizes += f", {counts['unread']:,} messages that are no text" if counts["unread"] else ""
    table = Table(box=None, title=f"{file}: {sizes}", title_justify="left", title_style="", padding=(0, 2, 0, 0))
    for heading in ("benchmark", "its queries", "equal", "13 words"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right", overflow="fold")
    for name in known.names:
        table.add_row(name, f"{known.counts[name]['queries']:,}", *(f"{shared[name, m]:,}" for m in MATCHES))
    return table


def spoken(file: Path) -> Iterator[Said]:
    """What is said in each row of a file: FastChat questions, messages in any shape, our own records, or text.

    Nothing is repaired or left out as the readers of ``sources`` do: what they would reject is compared all the same.
    Raises UserError for a row of no known shape.
    """
    if file.suffix == ".txt":
        for number, query in sources.lines(file):
            yield Said(f"line {number}", [query], [], 0)
        return
    for number, row in enumerate(sources.items(file), 1):
        said = Said(_id(row, number), [], [], 0)
        unread = _take(row, said) if isinstance(row, dict) else None
        if unread is None:
            raise UserError(f"row {number} is of no known shape", str(file), SHAPES)
        yield said._replace(unread=unread)


# The keys that hold what is said, and whose a bare text among it is.
KEYS: dict[str, Literal["user", "assistant", "in turn"]] = {
    "turns": "user",  # FastChat's are texts of the user alone, ours are messages
    "messages": "user",
    "conversations": "user",
    "data": "in turn",  # UltraChat
    "query": "user",
    "prompt": "user",  # TRL's preferences
    "chosen": "assistant",
    "rejected": "assistant",
    "context": "user",  # of a branch of ours, where it has one of its own
}


def _id(row: Any, number: int) -> str:
    inner = row.get("dialogue") if isinstance(row, dict) else None
    for holder, key in ((row, "id"), (row, "question_id"), (inner, "id")):
        if isinstance(holder, dict) and isinstance(name := holder.get(key), str | int):
            return str(name)
    return f"row {number}"


def _take(row: dict[str, Any], said: Said) -> int | None:
    """Add what is said in a row, and return the count of messages that are no text; None where it has no known key."""
    taken = [_messages(row[key], said, side) for key, side in KEYS.items() if row.get(key) is not None]
    parts = [row.get("dialogue"), *(row.get("branches") or [])]
    taken += [unread for part in parts if isinstance(part, dict) and (unread := _take(part, said)) is not None]
    if isinstance(negative := row.get("negative"), dict):
        taken.append(_messages(negative.get("text"), said, "assistant"))
    return sum(taken) if taken else None


def _messages(listed: Any, said: Said, side: Literal["user", "assistant", "in turn"]) -> int:
    unread = 0
    for index, message in enumerate(listed if isinstance(listed, list) else [listed]):
        if isinstance(message, str):
            theirs = side == "assistant" or (side == "in turn" and index % 2)
            (said.answers if theirs else said.queries).append(message)
            continue
        who = message.get("role", message.get("from")) if isinstance(message, dict) else None
        text = message.get("content", message.get("value")) if isinstance(message, dict) else None
        if not isinstance(text, str):
            unread += 1
        elif who != "system":  # an unknown role counts as the user's: nothing may slip through by its name
            (said.answers if sources.ROLES.get(str(who)) == "assistant" else said.queries).append(text)
    return unread
