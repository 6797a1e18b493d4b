"""What is measured on: benchmarks of any number of turns, and the held-out sessions of the probe.

A benchmark has FastChat's ``question.jsonl`` form (lm-sys/FastChat, ``llm_judge/data``).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parrot_lite.errors import UserError
from parrot_lite.evaluate.records import Question
from parrot_lite.recipe import Probe, Recipe
from parrot_lite.store import existing_file, read, require
from parrot_lite.types import Dialogue

BUNDLED = Path(__file__).parents[1] / "data" / "bench.jsonl"
FIX = 'A line is {"question_id", "category", "turns": [...]}, with "reference": [...] where there are any'


def bench_file(bench: str) -> Path:
    """The file behind the recipe's ``bench`` key. Raises UserError where it is missing."""
    return existing_file(BUNDLED if bench == "bundled" else Path(bench))


def load(bench: str) -> list[Question]:
    """The sessions of a benchmark, in file order; a missing reference is None.

    Raises UserError with file and line where one does not hold.
    """
    path = bench_file(bench)
    questions: list[Question] = []
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            question = _question(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"not valid JSON: {error.msg}", where, FIX) from None
        except (KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"not a benchmark session: {what}", where, FIX) from None
        if question.id in seen:
            raise UserError(f"question_id {question.id} occurs twice", where, "Give each session its own")
        seen.add(question.id)
        questions.append(question)
    if not questions:
        raise UserError("holds no session", str(path), FIX)
    return questions


def _question(row: Any) -> Question:
    if not isinstance(row, dict):
        raise TypeError("the line is no object")
    turns, references = row["turns"], row.get("reference") or []
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise ValueError("'turns' must be a list of non-empty strings")
    if not isinstance(references, list) or not all(isinstance(text, str | None) for text in references):
        raise ValueError("'reference' must be a list of strings or null")
    if len(references) > len(turns):
        raise ValueError(f"{len(references)} references for {len(turns)} turns")
    if not isinstance(row["question_id"], int | str) or not isinstance(row["category"], str):
        raise ValueError("'question_id' must be a number or a string, 'category' a string")
    padded = [*references, *[None] * (len(turns) - len(references))]
    return Question(
        id=str(row["question_id"]),
        category=row["category"],
        queries=tuple(turn.strip() for turn in turns),
        references=tuple(text.strip() or None if text else None for text in padded),
    )


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


def heldout(recipe: Recipe, settings: Probe) -> list[Dialogue]:
    """The sessions that the probe scores, in file order. Raises UserError where they are fewer than two."""
    sessions = list(read(require(recipe, "logs") / "heldout.jsonl", Dialogue))[: settings.sessions]
    if len(sessions) < 2:
        what = "the probe swaps histories between sessions and needs two"
        raise UserError(what, "eval.probe.sessions", "Raise it, or logs.heldout")
    return sessions
