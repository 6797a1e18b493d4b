"""The bundled references, worked out again from the facts of their sessions: ``tests/bench_answers/CATEGORY.py``.

Such a file has ``ANSWERS``, functions by (question id, turn) that return what the reference must show, and
``UNCOMPUTED``, the turns with nothing to compute and the reason why.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from parrot_lite.evaluate import bench
from parrot_lite.evaluate.bench_rules import ANSWERED
from tests.bench_answers import coding, extraction, maths, reasoning

Turn = tuple[int, int]  # question id, turn

REFERENCES: dict[str, dict[Turn, str]] = {category: {} for category in sorted(ANSWERED)}
for _question in bench.load("bundled"):
    for _turn, _text in enumerate(_question.references, 1):
        if _question.category in ANSWERED and _text is not None:
            REFERENCES[_question.category][int(_question.id), _turn] = _text


MODULES: dict[str, ModuleType] = {
    "coding": coding,
    "extraction": extraction,
    "math": maths,  # math.py would read as the library's
    "reasoning": reasoning,
}


def _in(category: str) -> tuple[dict[Turn, Callable[[], list[str]]], dict[Turn, str]]:
    module = MODULES[category]
    return module.ANSWERS, module.UNCOMPUTED


def test_every_answered_category_has_its_module() -> None:
    assert MODULES.keys() == ANSWERED


@pytest.mark.parametrize("category", MODULES)
def test_every_reference_is_computed_or_says_why_not(category: str) -> None:
    answers, uncomputed = _in(category)
    assert answers.keys() & uncomputed.keys() == set()
    assert answers.keys() | uncomputed.keys() == REFERENCES[category].keys()
    assert all(reason.strip() for reason in uncomputed.values())


@pytest.mark.parametrize("category", MODULES)
def test_most_references_are_computed(category: str) -> None:
    _, uncomputed = _in(category)
    assert len(uncomputed) < len(REFERENCES[category]) / 3


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


@pytest.mark.parametrize(
    ("category", "question", "turn"),
    [
        pytest.param(category, *at, id=f"{category}-{at[0]}-turn-{at[1]}")
        for category, module in MODULES.items()
        for at in sorted(module.ANSWERS)
    ],
)
def test_a_reference_shows_the_computed_answer(category: str, question: int, turn: int) -> None:
    answers, _ = _in(category)
    reference = _plain(REFERENCES[category][question, turn])
    shown = answers[question, turn]()
    assert isinstance(shown, list)  # a text alone would be compared letter by letter
    assert [text for text in shown if _plain(text) not in reference] == [], reference
