"""Data for other programs: sessions and trees in layouts that others read, with a card beside. Run: parrot export-data

Records stream from the files to ``out``, which takes its name once all are there.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_lite.collect import card
from parrot_lite.errors import UserError
from parrot_lite.progress import progress, say
from parrot_lite.store import count, existing_file, read, writable_file, write_atomically
from parrot_lite.types import Dialogue, SessionTree, Turn

Row = dict[str, Any]
OPENAI = {"role": "string", "content": "string"}
NAMES = {"user": "human", "assistant": "gpt"}


def _listed(turns: Sequence[Turn]) -> list[Row]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _messages(session: Dialogue) -> Row:
    return {"id": session.id, "source": session.source, "messages": _listed(session.turns)}


def _sharegpt(session: Dialogue) -> Row:
    listed = [{"from": NAMES[turn.role], "value": turn.content} for turn in session.turns]
    return {"id": session.id, "source": session.source, "conversations": listed}


def _pairs(tree: SessionTree) -> Iterator[Row]:
    for number, branch in enumerate(tree.branches, 1):
        yield {
            "id": f"{tree.id}/{number}",
            "source": tree.dialogue.source,
            "kind": branch.negative.kind,
            "turn": branch.turn,
            "rule": branch.rule,
            "how": branch.negative.how,
            "writer": branch.negative.writer,
            "prompt": _listed(tree.context(branch).turns),
            "chosen": [{"role": "assistant", "content": tree.chosen(branch)}],
            "rejected": [{"role": "assistant", "content": branch.negative.text}],
        }


@dataclass(frozen=True)
class Format:
    """A layout: the columns, how a record becomes rows of it, and how others use it."""

    features: Mapping[str, Any]
    session: Callable[[Dialogue], Row] | None  # None where it needs trees
    use: str


FORMATS = {
    "messages": Format(
        {"id": "string", "source": "string", "messages": OPENAI},
        _messages,
        "OpenAI's layout: TRL's `SFTTrainer` trains on it as it is, and so does whatever reads `messages`.",
    ),
    "sharegpt": Format(
        {"id": "string", "source": "string", "conversations": {"from": "string", "value": "string"}},
        _sharegpt,
        "ShareGPT's layout, which Axolotl, LLaMA-Factory and FastChat read.",
    ),
    "trl-preference": Format(
        {
            **dict.fromkeys(("id", "source", "kind"), "string"),
            "turn": "int64",
            **dict.fromkeys(("rule", "how", "writer"), "string"),
            **dict.fromkeys(("prompt", "chosen", "rejected"), OPENAI),
        },
        None,
        "Preferences with an explicit prompt: TRL's `DPOTrainer` trains on them as they are. `turn` counts exchanges "
        "from 1; `kind` names the negative.",
    ),
    "dialogues": Format(
        {"id": "string", "source": "string", "turns": OPENAI, "ended": "string", "given": "int64"},
        lambda session: session.model_dump(mode="json"),
        "parrot_lite's own layout, for the `data` keys of a recipe. `ended` says why collection stopped; `given` "
        "counts the exchanges that a session began with.",
    ),
}


def run(files: Sequence[Path], out: Path, form: str, source: str | None = None) -> None:
    """Write ``files`` to ``out`` in the layout ``form``, those of ``source`` alone where it is named, and the card.

    Raises UserError where the layout is unknown or needs session trees, where a file does not hold or its stage is not
    finished, where an id occurs twice, where nothing is left, where ``out``
    cannot be written, and where another README.md would be overwritten.
    """
    if form not in FORMATS:
        raise UserError(f"no format '{form}'", "--format", f"Use {', '.join(FORMATS)}")
    readme = out.with_name("README.md")
    _check(files, out, readme)
    tally, sources = Counter[str](), Counter[str]()
    beside = out.with_name(out.name + ".part")
    try:
        with beside.open("w", encoding="utf-8") as written, progress("export", sum(map(count, files))) as bar:
            for row in _rows(files, form, source, tally, bar.advance):
                written.write(json.dumps(row, ensure_ascii=False) + "\n")
                tally["rows"] += 1
                sources[row["source"]] += 1
        rows = tally.pop("rows", 0)
        if not rows:
            what = f"no row for the format {form} and {_reasons(tally)}"
            raise UserError(what, str(files[0]), "Mend --source or FILE")
        listed = {"rows": rows, **tally, **{f"rows of {name}": number for name, number in sorted(sources.items())}}
        described = FORMATS[form]
        command = _command(files, out, form, source)
        text = card.render(out, form, described.use, described.features, listed, sources, files, command)
        os.replace(beside, out)
    finally:
        beside.unlink(missing_ok=True)
    write_atomically(readme, text)
    say(f"export: {rows} rows in {out}, the card in {readme}; {_reasons(tally)}")


def _check(files: Sequence[Path], out: Path, readme: Path) -> None:
    for file in files:
        if existing_file(file).resolve() == out.resolve():
            raise UserError("would overwrite what it reads", str(out), "Name another file with --out")
    writable_file(out)
    card.chain(files)
    if readme.exists() and card.mark(out) not in readme.read_text(encoding="utf-8"):
        raise UserError("is not the card of this file and stays", str(readme), "Give the export a folder of its own")


def _command(files: Sequence[Path], out: Path, form: str, source: str | None) -> str:
    """The call, files by their names alone: where they lay is nobody's business but the owner's."""
    chosen = ["--source", source] if source is not None else []
    named = ["--out", out.name, "--format", form, *chosen]
    return shlex.join(["parrot", "export-data", *(file.name for file in files), *named])


def _reasons(tally: Counter[str]) -> str:
    left_out = [f"{number} {name}" for name, number in tally.items() if name.startswith("left out")]
    return ", ".join(left_out) or "nothing left out"


def _rows(
    files: Sequence[Path], form: str, source: str | None, tally: Counter[str], advance: Callable[[], None]
) -> Iterator[Row]:
    session_row = FORMATS[form].session
    seen: set[str] = set()
    for file in files:
        trees = _holds_trees(file)
        if session_row is None and not trees:
            raise UserError(f"the format {form} needs session trees", str(file), "Name a trees.jsonl")
        records: Iterator[Dialogue | SessionTree] = read(file, SessionTree) if trees else read(file, Dialogue)
        for record in records:
            advance()
            session = record.dialogue if isinstance(record, SessionTree) else record
            if session.id in seen:
                raise UserError(f"session id '{session.id}' occurs twice", str(file), "Export the files one by one")
            seen.add(session.id)
            if source is not None and session.source != source:
                tally["left out: of another source"] += 1
                continue
            complete = session.complete()
            if not complete.turns:
                tally["left out: no answered query"] += 1
                continue
            tally["sessions"] += 1
            tally["exchanges"] += len(complete.answers)
            if session_row is not None:
                yield session_row(complete)
            elif isinstance(record, SessionTree):
                for row in _pairs(record):
                    tally[f"pairs of kind {row['kind']}"] += 1
                    yield row


def _holds_trees(file: Path) -> bool:
    """Whether the records are session trees, by the first one."""
    with file.open("rb") as lines:  # inside a text the quotes would be escaped
        return b'"branches"' in next((line for line in lines if line.strip()), b"")
