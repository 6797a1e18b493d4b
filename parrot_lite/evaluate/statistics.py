"""Means and differences with intervals that treat a session, not a turn, as the sample.

Turns of one session are correlated (about 0.5 for GPT-4 judgments of MT-Bench), so turns taken as independent make an
interval too narrow; the bootstrap draws whole sessions (Miller, arXiv 2411.00640, section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Values = Mapping[str, Mapping[int, float]]  # session -> turn -> value
Parts = Mapping[str, tuple[float, int]]  # session -> the sum of its values, their number


@dataclass(frozen=True)
class Estimate:
    """A mean over ``values`` values of ``sessions`` sessions, and its percentile 95% interval.

    ``low`` and ``high`` are None where one session leaves nothing to resample.
    """

    mean: float
    low: float | None
    high: float | None
    sessions: int
    values: int

    @property
    def detectable(self) -> float | None:
        """The smallest true effect that this many sessions show with 80% power at the 5% level.

        (1.960 + 0.842) standard errors, the standard error read off the interval's width as of a normal one.
        """
        if self.low is None or self.high is None or self.low == self.high:
            return None  # values without spread say nothing about the spread that other sessions would have
        return (1.960 + 0.842) * (self.high - self.low) / (2 * 1.960)


def mean(values: Values, resamples: int, seed: int) -> Estimate | None:
    """The mean over all values, sessions resampled ``resamples`` times; None without any value.

    A resample's mean is over its values, so a session with more of them weighs more, as in the point estimate.
    """
    return ratio({session: (sum(turns.values()), len(turns)) for session, turns in values.items()}, resamples, seed)


def ratio(parts: Parts, resamples: int, seed: int) -> Estimate | None:
    """The sum of the sessions' sums by that of their counts, sessions resampled; None where nothing was counted."""
    kept = [part for part in parts.values() if part[1]]
    if not kept:
        return None
    sums, counts = (np.array(column) for column in zip(*kept, strict=True))
    point = float(sums.sum() / counts.sum())
    if len(kept) == 1:
        return Estimate(point, None, None, 1, int(counts.sum()))
    draws = np.random.default_rng(seed).multinomial(len(kept), np.full(len(kept), 1 / len(kept)), size=resamples)
    low, high = np.percentile((draws @ sums) / (draws @ counts), [2.5, 97.5])
    return Estimate(point, float(low), float(high), len(kept), int(counts.sum()))


def difference(values: Values, baseline: Values, resamples: int, seed: int) -> Estimate | None:
    """The mean of ``values`` - ``baseline`` over the turns that have both, sessions resampled; None without any.

    Paired turn by turn: a verdict missing on one side must not let an easy turn of the other side count.
    """
    paired = {
        session: {turn: value - baseline[session][turn] for turn, value in turns.items() if turn in baseline[session]}
        for session, turns in values.items()
        if session in baseline
    }
    return mean(paired, resamples, seed)
