"""How often 95% intervals cover the truth: the jackknife's of ``evaluate/statistics.py`` against bootstraps.

Run: make bench-coverage. Draws data sets whose true mean is 0, of up to 8 turns a session with a correlation of 0.5
within it, and counts by method how many intervals have 0 inside. All bootstraps of a data set draw whole sessions.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from parrot_lite.evaluate.statistics import half_width, jackknife

Array = NDArray[np.float64]
TURNS, CORRELATION = 8, 0.5
ENDS = np.array([0.025, 0.975])
SETTINGS = (
    (12, "even"),
    (40, "even"),
    (80, "even"),
    (12, "uneven: 1 to 8 turns"),
    (12, "rounded to whole points"),
    (12, "heavy tails: t3 session effects"),
    (12, "skewed: exponential session effects"),
)
METHODS = ("turns as independent", "jackknife t", "bootstrap, studentised", "bootstrap, percentile", "bootstrap, BCa")


def drawn(sessions: int, kind: str, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """(draws, sessions, turns) values of mean 0, and which of them are there."""
    size = (draws, sessions, 1)
    if kind.startswith("heavy"):
        effect = rng.standard_t(3, size) / 3**0.5
    elif kind.startswith("skewed"):
        effect = rng.exponential(size=size) - 1
    else:
        effect = rng.normal(size=size)
    values = CORRELATION**0.5 * effect + (1 - CORRELATION) ** 0.5 * rng.normal(size=(draws, sessions, TURNS))
    if kind.startswith("rounded"):
        values = values.round()
    length = rng.integers(1, TURNS + 1, size) if kind.startswith("uneven") else np.full(size, TURNS)
    return values, (np.arange(TURNS) < length).astype(float)


def linearised(sums: Array, counts: Array, ratio: Array, weights: Array) -> Array:
    """The standard error of the ratio of weighted sums, (draws, resamples), by its linearisation."""
    size = sums.shape[-1]
    squares = (sums**2) @ weights.T - 2 * ratio * ((sums * counts) @ weights.T) + ratio**2 * ((counts**2) @ weights.T)
    found: Array = np.sqrt(size / (size - 1) * np.maximum(squares, 0)) / (counts @ weights.T)
    return found


def covered(values: Array, there: Array, resamples: int, rng: np.random.Generator) -> dict[str, float]:
    """The share of data sets whose interval has 0 inside, by method."""
    sums, counts = (values * there).sum(-1), there.sum(-1)
    size = sums.shape[-1]
    point, error = jackknife(sums, counts)
    number = counts.sum(-1)
    spread = (((values - point[:, None, None]) ** 2) * there).sum((-2, -1)) / (number - 1)
    weights = rng.multinomial(size, np.full(size, 1 / size), resamples).astype(float)
    again = (sums @ weights.T) / (counts @ weights.T)
    alone = linearised(sums, counts, point[:, None], np.ones((1, size)))[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = np.nan_to_num((again - point[:, None]) / linearised(sums, counts, again, weights))
    low, high = np.quantile(pivots, ENDS, axis=1)
    without = (sums.sum(-1, keepdims=True) - sums) / (number[:, None] - counts)
    apart = without.mean(-1, keepdims=True) - without
    acceleration = (apart**3).sum(-1) / (6 * (apart**2).sum(-1) ** 1.5)
    below = ((again < point[:, None]).mean(-1) + (again <= point[:, None]).mean(-1)) / 2
    bias = ndtri(below)[:, None]
    moved = bias + ndtri(ENDS)
    shares = ndtr(bias + moved / (1 - acceleration[:, None] * moved))
    ordered = np.sort(again, axis=1)
    at = np.clip((shares * (resamples - 1)).round().astype(int), 0, resamples - 1)
    intervals = {
        "turns as independent": point + np.array([[-1], [1]]) * half_width(np.sqrt(spread / number), number - 1),
        "jackknife t": point + np.array([[-1], [1]]) * half_width(error, size - 1),
        "bootstrap, studentised": np.array([point - high * alone, point - low * alone]),
        "bootstrap, percentile": np.quantile(again, ENDS, axis=1),
        "bootstrap, BCa": np.take_along_axis(ordered, at, 1).T,
    }
    return {name: float(((ends[0] <= 0) & (ends[1] >= 0)).mean()) for name, ends in intervals.items()}


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="data sets a setting")
    parser.add_argument("--resamples", type=int, default=2000, help="of a bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("recipes/bench/measured/coverage.md"))
    options = parser.parse_args()
    rows = []
    for number, (sessions, kind) in enumerate(SETTINGS):
        rng = np.random.default_rng((options.seed, number))
        found = covered(*drawn(sessions, kind, options.draws, rng), options.resamples, rng)
        rows.append(f"| {sessions}, {kind} | " + " | ".join(f"{100 * found[name]:.1f}" for name in METHODS) + " |")
        print(rows[-1], flush=True)
    noise = 100 * (0.95 * 0.05 / options.draws) ** 0.5
    text = f"""# Coverage of 95% intervals, in percent

    make bench-coverage

{datetime.date.today()}; {options.draws:,} data sets a row, {options.resamples:,} resamples, seed {options.seed}.
A figure near 95 has a standard error of {noise:.1f} of its own. 8 turns a session unless it says otherwise, correlation
0.5 within it.

| sessions | {" | ".join(METHODS)} |
|---|{"---:|" * len(METHODS)}
"""
    options.out.write_text(text + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
