"""What is measured on: benchmarks of any number of turns, and the held-out sessions of the probe.

A benchmark is bundled, a JSONL file in a form that ``bench_forms`` knows, or on the Hugging Face hub:
``hf:OWNER/NAME``, ``hf:OWNER/NAME/CONFIG``, each with ``@REVISION`` behind it where one is meant.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from parrot_lite.errors import UserError
from parrot_lite.evaluate import bench_forms as forms
from parrot_lite.evaluate.records import Question
from parrot_lite.hub import load_rows
from parrot_lite.recipe import HUB, Eval, History, Probe, Recipe
from parrot_lite.store import existing_file, read, require
from parrot_lite.types import Dialogue

QUESTIONS = "questions.jsonl"  # in the folder of an evaluation: what it asked
BUNDLED = Path(__file__).parents[1] / "data" / "bench.jsonl"
ANSWERS = 'A line is FastChat\'s {"question_id", "choices"}, a dialogue, or one of an evaluation\'s answers.jsonl'


def bench_file(bench: str) -> Path | None:
    """The file behind the recipe's ``bench`` key; None for the hub. Raises UserError where it is missing."""
    if bench.startswith(HUB):
        return None
    return existing_file(BUNDLED if bench == "bundled" else Path(bench))


def inputs(settings: Eval) -> dict[str, Path]:
    """The files that decide what is asked and which history is fed. Raises UserError where one is missing."""
    file, answered = bench_file(settings.bench), settings.reference_answers
    return {
        **({"bench": file} if file else {}),
        **({"reference answers": existing_file(Path(answered), "eval.reference_answers")} if answered else {}),
    }


def load(bench: str, reference_answers: str | None = None) -> list[Question]:
    """The sessions of a benchmark, in file order; a missing reference is None.

    ``reference_answers`` names a file that has some where the benchmark has none. Raises UserError with file and line
    where one does not hold.
    """
    questions: list[Question] = []
    seen: set[str] = set()
    category = _hub(bench)[1] or "session" if bench.startswith(HUB) else Path(bench).stem
    for where, row in _rows(bench):
        try:
            question = forms.question(row, category)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"not a benchmark session: {_said(error)}", where, forms.FORMS) from None
        if question.id in seen:
            raise UserError(f"question_id {question.id} occurs twice", where, "Give each session its own")
        seen.add(question.id)
        questions.append(question)
    if not questions:
        raise UserError("holds no session", bench, forms.FORMS)
    return questions if reference_answers is None else answered(questions, Path(reference_answers))


def answered(questions: Sequence[Question], file: Path) -> list[Question]:
    """The questions, with a file's answers where they have no reference. Raises UserError where it does not hold."""
    asked = {one.id: one.queries for one in questions}
    found: dict[str, list[str | None]] = {}
    for where, row in _lines(existing_file(file, "the path of the reference answers")):
        try:
            name, texts, queries = forms.answers(row)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"no answers to a session: {_said(error)}", where, ANSWERS) from None
        if name in found:
            raise UserError(f"session {name} is answered twice", where, "Keep one player's lines")
        turns = zip(queries, asked.get(name, ()), strict=False)
        if (other := next((turn for turn, (one, its) in enumerate(turns, 1) if one != its), None)) is not None:
            fix = "Name answers to this benchmark: its ids alone do not make a session the same"
            raise UserError(f"session {name} is another one than the benchmark's from turn {other} on", where, fix)
        found[name] = texts
    if not found.keys() & asked.keys():
        raise UserError("answers no session of the benchmark", str(file), "Its ids must be the benchmark's")
    filled = []
    for one in questions:
        texts = found.get(one.id, [])
        texts = [*texts, *[None] * (len(one.queries) - len(texts))]
        references = tuple(own or other for own, other in zip(one.references, texts, strict=False))
        filled.append(one.model_copy(update={"references": references}))
    return filled


def _rows(bench: str) -> Iterator[tuple[str, Any]]:
    """Where each row stands, and the row."""
    if (path := bench_file(bench)) is not None:
        yield from _lines(path)
        return
    name, config, revision = _hub(bench)
    for number, row in enumerate(load_rows(name, None, config, revision), 1):
        yield f"{bench} row {number}", row


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError("not UTF-8", str(path), "Write it as UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"not valid JSON: {error.msg}", f"{path}:{number}", forms.FORMS) from None
        yield f"{path}:{number}", row


def _hub(bench: str) -> tuple[str, str | None, str | None]:
    """The data set, its configuration and its revision."""
    name, _, revision = bench.removeprefix(HUB).partition("@")
    owner, _, rest = name.partition("/")
    data_set, _, config = rest.partition("/")
    if not owner or not data_set:
        raise UserError("not a data set of the hub", bench, f"Write {HUB}OWNER/NAME or {HUB}OWNER/NAME/CONFIG")
    return f"{owner}/{data_set}", config or None, revision or None


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def pick(questions: Sequence[Question], n: int | None) -> list[Question]:
    """``n`` sessions spread evenly over the categories, in file order; all where ``n`` is None or more than there are.

    Taken round by round, one of each category, so that a larger ``n`` keeps what a smaller one had.
    """
    if n is None:
        return list(questions)
    rounds: dict[str, int] = defaultdict(int)
    order: list[tuple[int, int]] = []
    for index, question in enumerate(questions):
        order.append((rounds[question.category], index))
        rounds[question.category] += 1
    return [questions[index] for _, index in sorted(sorted(order)[:n], key=lambda at: at[1])]


def playable(questions: Sequence[Question], history: History) -> list[Question]:
    """The sessions that can be played over this history: a reference one needs an answer to each turn but the last."""
    if history != "reference":
        return list(questions)
    return [question for question in questions if None not in question.references[:-1]]


def heldout(recipe: Recipe, settings: Probe) -> list[Dialogue]:
    """The sessions that the probe scores, in file order. Raises UserError where they are fewer than two."""
    sessions = list(read(heldout_file(recipe, settings), Dialogue))[: settings.sessions]
    if len(sessions) < 2:
        what = "the probe swaps histories between sessions and needs two"
        raise UserError(what, "eval.probe.sessions", f"Raise it, or logs.{settings.split}")
    return sessions


def heldout_file(recipe: Recipe, settings: Probe) -> Path:
    """The sessions kept apart that the probe scores: the held-out ones, or those to choose settings on."""
    return require(recipe, "logs") / f"{settings.split}.jsonl"


def scored_on(recipe: Recipe) -> list[tuple[str, str]]:
    """A fact for a report that says so where the probe scored sessions that settings are chosen on; none else."""
    chosen = recipe.eval.probe is not None and recipe.eval.probe.split == "selection"
    return [("probed", "selection sessions, on which settings are chosen: no result to report")] if chosen else []
