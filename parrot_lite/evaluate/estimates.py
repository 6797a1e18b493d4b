"""How an estimate is made for a table and how it is written there, the same in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parrot_lite.evaluate.statistics import Estimate, Values, difference, mean

DETECTABLE = "Detectable: the smallest true difference that so many sessions would show in 80% of experiments."


@dataclass(frozen=True)
class Numbers:
    """How estimates are made and written in every table."""

    resamples: int
    seed: int

    def mean(self, values: Values) -> Estimate | None:
        """The mean with its interval; None without any value."""
        return mean(values, self.resamples, self.seed)

    def difference(self, values: Values, baseline: Values) -> Estimate | None:
        """The paired difference with its interval; None where no turn has both."""
        return difference(values, baseline, self.resamples, self.seed)


def written(estimate: Estimate | None, form: str) -> str:
    """``mean [low, high]``, each in the format ``form``; what is missing is "-".

    >>> written(Estimate(5.125, 4.5, 5.75, 8, 64), ".2f")
    '5.12 [4.50, 5.75]'
    >>> written(Estimate(0.25, None, None, 1, 8), "+.1f"), written(None, ".1f")
    ('+0.2 [-, -]', '-')
    """
    if estimate is None:
        return "-"
    low, high = ("-" if end is None else format(end, form) for end in (estimate.low, estimate.high))
    return f"{estimate.mean:{form}} [{low}, {high}]"


def baselines(model: str, measured: Sequence[str]) -> list[str]:
    """What a model is compared with, of those measured: the first, and the one before it, which may be the same."""
    before = measured[: measured.index(model)] if model in measured else []
    return list(dict.fromkeys([*before[:1], *before[-1:]]))


def against(difference: Estimate | None, form: str) -> str:
    """A difference, and below it the detectable effect where the spread tells one."""
    line = written(difference, f"+{form}")
    if difference is None or difference.detectable is None:
        return line
    return f"{line}\ndetectable {difference.detectable:{form}}"
