"""Means and differences with intervals, tests and power that treat a session, not a turn, as the sample.

Turns of one session are correlated (about 0.5 for GPT-4 judgments of MT-Bench), so turns taken as independent make an
interval too narrow (Miller, arXiv 2411.00640, section 2.2). Everything here estimates the mean over turns, as MT-Bench
has it: sum of the sessions' sums by sum of their counts, so a session weighs as many turns as it has.

**Interval.** Cluster jackknife with Student's t of sessions - 1 degrees of freedom (MacKinnon, Nielsen and Webb,
Journal of Econometrics 232, 2023). Coverage in percent of a nominal 95% interval (``make bench-coverage``), 2,000
draws, 8 turns a session, correlation 0.5 within it; *uneven* has 1 to 8 turns, *skewed* an exponential session effect:

    sessions                     12    40    80    12 uneven    12 rounded    12 heavy tails (t3)    12 skewed
    jackknife t (this one)     95.3  95.0  95.3         94.3          95.3                   96.5         92.0
    bootstrap, studentised     94.7  95.0  95.0         94.3          95.2                   93.7         93.2
    bootstrap, percentile      90.3  94.0  94.8         90.3          91.5                   91.4         88.1
    bootstrap, BCa             90.8  94.1  94.8         89.2          91.2                   89.0         88.4
    turns as independent       63.8  65.0  64.3         70.0          64.8                   67.3         61.6

Percentile and BCa are too narrow for few sessions. The studentised bootstrap is better for skewed values and worse for
heavy tails; a paired difference is rarely skewed, and t needs no draws and gives power in closed form.

**Test.** Exchanges the two models in whole sessions, which under the null changes nothing but signs: it assumes no
distribution. **Several training seeds**: see ``over_seeds``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtrinc, stdtr, stdtrit

Values = Mapping[str, Mapping[int, float]]  # session -> turn -> value
Parts = Mapping[str, tuple[float, int]]  # session -> the sum of its values, their number
Array = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

ALPHA = 0.05  # two-sided
POWER = 0.80
FEWEST = 6  # sessions that can give ``sign_flip`` a p below 0.05: 2 / 2^6 is, 2 / 2^5 is not
EXACT = 12  # sessions up to which all exchanges are enumerated
MOST = 1_000_000  # sessions beyond which no plan is made
ROUNDING = 1e-9  # relative; a spread below it is that of floating point


@dataclass(frozen=True)
class Spread:
    """Variance components of a mean over sessions and, where there are several, training seeds.

    ``session`` is what one session adds (turns within it included), ``seed`` what one training seed adds, ``rest`` what
    the two add together, all in squared units of the values.
    """

    session: float
    seed: float = 0.0
    rest: float = 0.0
    seeds: int = 1

    def error(self, sessions: int) -> float:
        """The standard error of the mean over that many sessions."""
        return math.sqrt(sum(self._parts(sessions)))

    def freedom(self, sessions: int) -> float:
        """Degrees of freedom by Satterthwaite's approximation: sessions - 1 where there is one training seed.

        As Hillis (Statistics in Medicine 26, 2007) has it for few readers of many cases, with the sessions' own degrees
        of freedom kept beside the seeds', because here both may be few.
        """
        by_session, by_seed = self._parts(sessions)
        if not by_seed:
            return sessions - 1
        return (by_session + by_seed) ** 2 / (by_session**2 / (sessions - 1) + by_seed**2 / (self.seeds - 1))

    def _parts(self, sessions: int) -> tuple[float, float]:
        return self.session / sessions, self.seed / self.seeds + self.rest / (self.seeds * sessions)


@dataclass(frozen=True)
class Estimate:
    """A mean over ``values`` values of ``sessions`` sessions, and its 95% interval.

    ``low`` and ``high`` are None where one session leaves no spread to see; ``spread`` also where the interval is not
    of Student's t.
    """

    mean: float
    low: float | None
    high: float | None
    sessions: int
    values: int
    spread: Spread | None = None

    @property
    def error(self) -> float | None:
        """The standard error; None without any spread: that says nothing about what other sessions would have."""
        return (self.spread.error(self.sessions) or None) if self.spread else None

    @property
    def detectable(self) -> float | None:
        """The smallest true effect that so many sessions show with 80% power in a two-sided t test at the 5% level.

        Inherits the error of the estimated spread: for 12 sessions about a fifth either way.
        """
        if self.spread is None or self.error is None:
            return None
        return float(noncentrality(self.spread.freedom(self.sessions))) * self.error

    def needed(self, effect: float) -> int | None:
        """Sessions like these for 80% power to show a true ``effect`` > 0, in the same test.

        For planning the next evaluation: of the effect seen in this one it says nothing that the interval does not say
        (Hoenig and Heisey, The American Statistician 55, 2001). None where nothing is known about the spread, and where
        no number would do, because training seeds differ too much: more sessions do not help against that.
        """
        spread = self.spread
        if spread is None or self.error is None:
            return None

        def enough(sessions: int) -> bool:
            return float(noncentrality(spread.freedom(sessions))) * spread.error(sessions) <= effect

        few, many = 1, 2
        while not enough(many):  # in small steps: with seeds, what is enough need not be so for twice as many
            few, many = many, max(many + 1, many * 21 // 20)
            if many > MOST:
                return None
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (few, middle) if enough(middle) else (middle, many)
        return many


@dataclass(frozen=True)
class Contrast:
    """A paired difference of two models, and its two-sided p: by itself, and ``adjusted`` for those tested with it.

    ``p`` is None where nothing can be tested: one session, or no spread.
    """

    difference: Estimate
    p: float | None
    adjusted: float | None = None


def mean(values: Values) -> Estimate | None:
    """The mean over all values, with sessions as the sample; None without any value."""
    return ratio(_parts(values))


def ratio(parts: Parts) -> Estimate | None:
    """The sum of the sessions' sums by that of their counts; None where nothing was counted."""
    kept = [part for part in parts.values() if part[1]]
    if not kept:
        return None
    sums, counts = (np.array(column, dtype=float) for column in zip(*kept, strict=True))
    if len(kept) == 1:
        return Estimate(float(sums[0] / counts[0]), None, None, 1, int(counts[0]))
    point, error = jackknife(sums, counts)
    spread = Spread(float(error) ** 2 * len(kept)) if _real(error, sums / counts) else Spread(0.0)
    return _estimate(float(point), spread, len(kept), int(counts.sum()))


def difference(values: Values, baseline: Values) -> Estimate | None:
    """The mean of ``values`` - ``baseline`` over the turns that have both; None without any.

    Paired turn by turn: a verdict missing on one side must not let an easy turn of the other side count.
    """
    return mean(paired(values, baseline))


def contrast(values: Values, baseline: Values, draws: int, seed: int) -> Contrast | None:
    """The paired difference and the p of ``sign_flip``, which is of the same estimand; None where no turn has both."""
    both = _parts(paired(values, baseline))
    found = ratio(both)
    if found is None:
        return None
    sums = np.array([total for total, count in both.values() if count], dtype=float)
    return Contrast(found, float(sign_flip(sums, draws, seed)) if found.error else None)


def paired(values: Values, baseline: Values) -> dict[str, dict[int, float]]:
    """``values`` - ``baseline`` at the turns that have both."""
    return {
        session: {turn: value - baseline[session][turn] for turn, value in turns.items() if turn in baseline[session]}
        for session, turns in values.items()
        if session in baseline
    }


def over_seeds(runs: Mapping[int, Values]) -> Estimate | None:
    """The mean over several training seeds, each evaluated on the same sessions: what such training does on average.

    Sessions and seeds are crossed random effects (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1,
    2007). Three seeds are too few to resample, so the components come from the two-way analysis of variance and the
    interval from Student's t, see ``Spread.freedom``. A session that a seed lacks adds no residual there. One seed
    gives ``mean``.

    What three seeds can say: where seeds agree within the sessions' noise, nearly what one seed says. Where they do
    not, degrees of freedom fall towards 2, and nothing below 5.7 standard errors is found in 80% of evaluations.
    Intervals of 12, 40 and 80 sessions by 3 seeds covered 92 to 97%, whatever the seeds' share of the variance, in
    2,000 draws each; by 5 seeds 93 to 96%; by 2 seeds 89 to 99%: two seeds are no basis for a claim. An interval over
    sessions alone covered 23 to 91% where seeds differ.
    """
    all_parts = [{session: part for session, part in _parts(values).items() if part[1]} for values in runs.values()]
    kept = [parts for parts in all_parts if parts]
    if len(kept) < 2:
        return ratio(kept[0]) if kept else None
    sessions = sorted(set[str]().union(*kept))
    cells = np.array([[parts.get(session, (0.0, 0)) for session in sessions] for parts in kept], dtype=float)
    sums, counts = cells[..., 0], cells[..., 1]
    point, number = float(sums.sum() / counts.sum()), int(counts.sum())
    if len(sessions) == 1:
        return Estimate(point, None, None, 1, number)
    # A cell's share in the ratio, linearised: its mean over all cells is the ratio (Cochran, section 6.4).
    linear = point + (sums - point * counts) * counts.size / number
    session, seed, rest = map(float, crossed(linear))
    real = _real(math.sqrt(session + seed + rest), linear)
    spread = Spread(session, seed, rest, len(kept)) if real else Spread(0.0)
    return _estimate(point, spread, len(sessions), number)


def contrast_over_seeds(runs: Mapping[int, Values], baselines: Mapping[int, Values]) -> Contrast | None:
    """The difference paired by seed, session and turn, over the seeds that both have; None where nothing is in both.

    A model without training stands as the baseline of every seed. ``p`` is of the t test that belongs to the interval:
    exchanging whole sessions would test these trained models and not the training, and exchanging three seeds can never
    give less than 0.25. With one seed in common it is that t test over sessions.
    """
    both = {seed: paired(values, baselines[seed]) for seed, values in runs.items() if seed in baselines}
    found = over_seeds(both)
    if found is None:
        return None
    if found.spread is None or found.error is None:
        return Contrast(found, None)
    freedom = found.spread.freedom(found.sessions)
    return Contrast(found, 2 * float(stdtr(freedom, -abs(found.mean) / found.error)))


def corrected(contrasts: Mapping[Key, Contrast]) -> dict[Key, Contrast]:
    """The same contrasts as one family, ``adjusted`` by Holm's method; one without a p was not tested."""
    tested = {key: one.p for key, one in contrasts.items() if one.p is not None}
    adjusted = dict(zip(tested, map(float, holm(list(tested.values()))), strict=True))
    return {key: replace(one, adjusted=adjusted.get(key)) for key, one in contrasts.items()}


# Equations, over arrays whose last axis is sessions (or tests); axes before it are independent data sets.


def jackknife(sums: Array, counts: Array) -> tuple[Array, Array]:
    """(..., sessions) sums and counts, two sessions or more → ratio of their totals and its standard error, both (...).

    CV3J of MacKinnon, Nielsen and Webb: sqrt((G - 1) / G sum over g of (ratio without g - mean of those)^2). Where all
    counts are alike, it is the standard error of the mean of session means.
    """
    total, number = sums.sum(-1, keepdims=True), counts.sum(-1, keepdims=True)
    without = (total - sums) / (number - counts)
    size = sums.shape[-1]
    squares = ((without - without.mean(-1, keepdims=True)) ** 2).sum(-1)
    return (total / number)[..., 0], np.sqrt((size - 1) / size * squares)


def half_width(error: Any, freedom: Any) -> Any:
    """Half the 95% interval of Student's t, of numbers or arrays."""
    return stdtrit(freedom, 1 - ALPHA / 2) * error


def noncentrality(freedom: Any) -> Any:
    """True effect by standard error at which the two-sided t test reaches 80% power (the far tail left out: < 1e-5)."""
    return nctdtrinc(freedom, 1 - POWER, stdtrit(freedom, 1 - ALPHA / 2))


def sign_flip(sums: Array, draws: int, seed: int) -> Array:
    """(..., sessions) sums of paired differences → two-sided p (...) of the null that the two models are exchangeable.

    Exchanging the models in a session flips the sign of its sum and leaves its count, so the sum over sessions is the
    ratio of ``jackknife`` but for a constant. All flips for up to 12 sessions; beyond, ``draws`` of them by ``seed``,
    with the data's own counted among them, without which p could be 0 (Phipson and Smyth, Statistical Applications in
    Genetics and Molecular Biology 9, 2010, article 39). The smallest p is 2 / 2^sessions: fewer than 6 never give 0.05.
    """
    size = sums.shape[-1]
    exact = size <= EXACT
    if exact:  # the first session's sign stays: flipping all changes no absolute value
        flips = 1.0 - 2.0 * (np.arange(2 ** (size - 1))[:, None] >> np.arange(size) & 1)
    else:
        flips = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, size=(draws, size))
    tolerance = ROUNDING * np.abs(sums).sum(-1, keepdims=True)
    extreme = np.abs(sums @ flips.T) >= np.abs(sums.sum(-1, keepdims=True)) - tolerance
    found: Array = extreme.mean(-1) if exact else (extreme.sum(-1) + 1) / (draws + 1)
    return found


def holm(p: Sequence[float] | Array) -> Array:
    """(..., tests) p → adjusted p: an adjusted p below 0.05 keeps the chance of any false one in the family below 5%.

    Holm (Scandinavian Journal of Statistics 6, 1979), whatever the dependence: the k-th smallest of m times m - k + 1,
    never below one before it, at most 1.
    """
    raw = np.asarray(p, dtype=float)
    order = np.argsort(raw, axis=-1, kind="stable")
    steps = np.take_along_axis(raw, order, -1) * np.arange(raw.shape[-1], 0, -1)
    adjusted = np.empty_like(raw)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(steps, axis=-1), 1.0), -1)
    return adjusted


def crossed(cells: Array) -> tuple[Array, Array, Array]:
    """(..., seeds, sessions) values, two of each or more → variance components (...) of session, seed, and the rest.

    By the expected mean squares of the two-way layout with one value a cell; negative estimates are 0.
    """
    seeds, sessions = cells.shape[-2:]
    all_, by_session = cells.mean((-2, -1), keepdims=True), cells.mean(-2, keepdims=True)
    by_seed = cells.mean(-1, keepdims=True)
    rest = ((cells - by_session - by_seed + all_) ** 2).sum((-2, -1)) / ((seeds - 1) * (sessions - 1))
    of_session = seeds * ((by_session - all_) ** 2).sum((-2, -1)) / (sessions - 1)
    of_seed = sessions * ((by_seed - all_) ** 2).sum((-2, -1)) / (seeds - 1)
    return np.maximum(of_session - rest, 0) / seeds, np.maximum(of_seed - rest, 0) / sessions, rest


def _parts(values: Values) -> dict[str, tuple[float, int]]:
    return {session: (sum(turns.values()), len(turns)) for session, turns in values.items()}


def _real(error: Any, values: Array) -> bool:
    return bool(error > ROUNDING * np.abs(values).max())


def _estimate(point: float, spread: Spread, sessions: int, values: int) -> Estimate:
    error = spread.error(sessions)
    half = float(half_width(error, spread.freedom(sessions))) if error else 0.0
    return Estimate(point, point - half, point + half, sessions, values, spread)
