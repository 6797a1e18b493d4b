"""Which queries lean on the history (paper section 3.3), by rules, by a judge, or by the model's own likelihood.

This room says what one query looks like to one detector; ``collect/selection.py`` asks them for a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import Field

from parrot_lite.context.histories import other_history
from parrot_lite.context.rules import dependence
from parrot_lite.recipe import Detector
from parrot_lite.types import Dialogue, Record, Turn

__all__ = ["Asked", "Verdict", "by_rules", "dependence", "other_history"]

NO_RULE = "no rule"


@dataclass(frozen=True)
class Asked:
    """A query at its place: exchange ``turn`` (from 1) of session ``id``. The likelihood needs an ``answer``."""

    id: str
    turn: int
    query: str
    history: tuple[Turn, ...]
    answer: str | None

    @classmethod
    def of(cls, session: Dialogue, turn: int) -> Self:
        """The query of an answered exchange of a session."""
        before = session.before(turn)
        return cls(session.id, turn, before.queries[-1], before.turns[:-1], session.answers[turn - 1])


class Verdict(Record):
    """What one detector says of one query. ``dependent`` is None where it could not say, and ``why`` says why not."""

    detector: Detector
    session: str
    turn: int = Field(ge=1)
    dependent: bool | None = None
    why: str  # the rule, the judge's word, or the change that decided
    scores: dict[str, float] = Field(default_factory=dict)
    again: bool = Field(default=False, exclude=True)  # a call failed that may go through next time


def by_rules(asked: Sequence[Asked]) -> list[Verdict]:
    """The rules' verdicts, which are never None."""
    found = [dependence(one.query, one.turn) for one in asked]
    return [
        Verdict(detector="rules", session=one.id, turn=one.turn, dependent=rule is not None, why=rule or NO_RULE)
        for one, rule in zip(asked, found, strict=True)
    ]
