"""How far a judge agrees with the scores that somebody else gave to the same answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Self

import numpy as np
from pydantic import Field, model_validator
from scipy.stats import spearmanr

from parrot_lite.evaluate.estimates import written
from parrot_lite.evaluate.statistics import ratio
from parrot_lite.table import Table
from parrot_lite.types import Dialogue, Record, Turn


class LabelledAnswer(Record):
    """An answer with the score that it was given, by people or by another judge, on the scale of 1 to 10."""

    id: str  # the question that it answers: answers of one id are compared with each other and resampled together
    category: str
    turns: tuple[Turn, ...]  # ends with the answer that was scored
    score: float = Field(ge=1, le=10)
    reference: str | None = None

    @model_validator(mode="after")
    def _ends_with_an_answer(self) -> Self:
        if not self.turns or self.dialogue.due != "user":
            raise ValueError("'turns' must end with the answer that was scored")
        return self

    @property
    def dialogue(self) -> Dialogue:
        """The session up to the answer that was scored."""
        return Dialogue(id=self.id, source="labelled", turns=self.turns)


def table(judge: str, labelled: Sequence[LabelledAnswer], scores: Sequence[float | None]) -> Table:
    """Agreement of a judge's ``scores`` (None = no verdict) with the labels, over the answers that have both."""
    both = [(label, score) for label, score in zip(labelled, scores, strict=True) if score is not None]
    by_id: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    apart: dict[str, list[float]] = defaultdict(list)
    for label, score in both:
        by_id[label.id, len(label.turns)].append((label.score, score))
        apart[label.id].append(score - label.score)
    ordered: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for (id, _), pairs in by_id.items():
        agreed = [same_order(one, other) for one, other in combinations(pairs, 2) if one[0] != other[0]]
        ordered[id] = ordered[id][0] + sum(agreed), ordered[id][1] + len(agreed)
    rho = rank_correlation([label.score for label, _ in both], [score for _, score in both])
    higher = ratio({id: (sum(values), len(values)) for id, values in apart.items()})
    right = ratio(ordered)
    distance = fmean(abs(score - label.score) for label, score in both) if both else None
    rows = (
        ("answers with both", f"{len(both)}/{len(labelled)}"),
        ("rank correlation", "-" if rho is None else f"{rho:+.2f}"),
        ("same order of two answers to one query", written(right, ".2f")),
        ("judge minus label", written(higher, "+.2f")),
        ("distance from the label", "-" if distance is None else f"{distance:.2f}"),
    )
    notes = (
        "Same order: of two answers to one query whose labels differ, the share that the judge puts in the same order; "
        "equal scores count as half, so 0.5 is chance. Intervals over queries.",
    )
    return Table(f"Agreement of {judge} with the labels", ("", "Found [95%]"), rows, notes)


def same_order(one: tuple[float, float], other: tuple[float, float]) -> float:
    """1 where a judge puts two answers, each (label, score), in the order of their labels, 0.5 where it ties them.

    >>> same_order((8, 7), (3, 5)), same_order((8, 5), (3, 5)), same_order((8, 2), (3, 5))
    (1.0, 0.5, 0.0)
    """
    higher = (one[1] - other[1]) * (one[0] - other[0])
    return 0.5 if higher == 0 else float(higher > 0)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's; None for fewer than three pairs, or where one side does not vary.

    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    >>> rank_correlation([1, 2, 3], [5, 5, 5]) is None
    True
    """
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return round(float(spearmanr(one, other).statistic), 12)
