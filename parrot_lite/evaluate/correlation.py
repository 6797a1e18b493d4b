"""Rank correlation of two measures of the same things."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's, with mean ranks for ties; None for fewer than three pairs or where one side does not vary.

    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    """
    if len(one) < 3:
        return None
    ranks = [_ranks(one), _ranks(other)]
    if any(float(np.ptp(rank)) == 0 for rank in ranks):
        return None
    return round(float(np.corrcoef(*ranks)[0, 1]), 12)


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: NDArray[np.float64] = (last - counts + last - 1) / 2
    return ranks[inverse]
