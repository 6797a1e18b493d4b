"""How an estimate is made for a table and how it is written there, the same in all of them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from parrot_lite.evaluate import statistics
from parrot_lite.evaluate.records import player
from parrot_lite.evaluate.statistics import FEWEST, Contrast, Estimate, Values
from parrot_lite.recipe import History
from parrot_lite.table import Table

INTERVALS = (
    "95%, Student's t over whole sessions (cluster jackknife); one of no width only says that all sessions are alike"
)
CELL = 28  # characters, as of "10.00 [10.00, 10.00] 128/128" and "-0.123 [-0.123, -0.123] 128"
ACROSS = 3  # such cells in a row


@dataclass(frozen=True)
class Numbers:
    """How estimates are made in every table: ``resamples`` random draws where draws are needed, by ``seed``."""

    resamples: int
    seed: int

    @property
    def tests(self) -> str:
        """The test behind every p, in words."""
        return (
            f"two-sided, the two models exchanged in whole sessions (all ways up to {statistics.EXACT} sessions, "
            f"{self.resamples:,} random ones beyond)"
        )

    def mean(self, values: Values) -> Estimate | None:
        """The mean with its interval; None without any value."""
        return statistics.mean(values)

    def difference(self, values: Values, baseline: Values) -> Estimate | None:
        """The paired difference with its interval; None where no turn has both."""
        return statistics.difference(values, baseline)

    def contrast(self, values: Values, baseline: Values) -> Contrast | None:
        """The paired difference with its interval and p; None where no turn has both.

        A table puts all its contrasts through ``statistics.corrected`` and shows them by ``contrast_table``.
        """
        return statistics.contrast(values, baseline, self.resamples, self.seed)


def baselines(model: str, measured: Sequence[str]) -> list[str]:
    """What a model is compared with, of those measured: the first, and the one before it, which may be the same."""
    before = measured[: measured.index(model)] if model in measured else []
    return list(dict.fromkeys([*before[:1], *before[-1:]]))


def pairs(models: Sequence[str], histories: Sequence[History], measured: Container[str]) -> list[tuple[str, str]]:
    """Which players are compared with which: with their ``baselines`` over one history, and over other histories.

    >>> pairs(["base", "sft"], ["own", "hidden"], ["base", "sft", "base (history hidden)"])
    [('sft', 'base'), ('base', 'base (history hidden)')]
    """
    found: list[tuple[str, str]] = []
    for history in histories:
        there = [name for model in models if (name := player(model, history)) in measured]
        found += [(name, other) for name in there for other in baselines(name, there)]
    for model in models:
        others = [player(model, history) for history in histories if history != "own"]
        found += [(model, other) for other in others if model in measured and other in measured]
    return found


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


def share(estimate: Estimate | None, form: str = ".0%") -> str:
    """A share as ``written`` writes it, its interval cut to what a share can be.

    >>> share(Estimate(0.25, -0.1, 0.6, 8, 64))
    '25% [0%, 60%]'
    """
    return written(bounded(estimate), form)


def bounded(estimate: Estimate | None) -> Estimate | None:
    """The estimate of a share, its interval cut to what a share can be."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return estimate
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def probability(p: float | None) -> str:
    """A p value for a table.

    >>> probability(0.0004), probability(0.0496), probability(1.0), probability(None)
    ('<0.001', '0.050', '1.000', '-')
    """
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def across(
    title: str,
    what: str,
    models: Sequence[str],
    rows: Sequence[str],
    cell: Callable[[str, str], str],
    notes: tuple[str, ...] = (),
) -> list[Table]:
    """Rows down, models across: as many models a table as fit in its width. ``notes`` stand below the last one.

    ``what`` says what the rows are, ``cell`` writes what a row says of a model.
    """
    blocks = [models[start : start + ACROSS] for start in range(0, len(models), ACROSS)]
    return [
        Table(
            title + (f", part {number} of {len(blocks)}" if len(blocks) > 1 else ""),
            (what, *("\n".join(textwrap.wrap(model, CELL)) for model in block)),
            tuple((row, *(cell(row, model) for model in block)) for row in rows),
            notes if number == len(blocks) else (),
        )
        for number, block in enumerate(blocks, 1)
    ]


def contrast_table(
    title: str,
    rows: Mapping[str, tuple[Contrast, str]],
    unit: str,
    form: str,
    effect: float,
    notes: Sequence[str] = (),
) -> Table:
    """One row a contrast, under its label: difference, p, Holm's p, detectable effect, sessions needed, coverage.

    ``rows`` gives each contrast, put through ``statistics.corrected`` before, with its coverage in words. ``effect`` is
    the wanted one, in ``unit``; ``form`` the format of a number of that unit.
    """
    listed = [
        (
            label,
            written(one.difference, f"+{form}"),
            probability(one.p),
            probability(one.adjusted),
            _number(one.difference.detectable if one.difference.sessions >= FEWEST else None, form),
            _number((needed := one.difference.needed(effect)) and max(needed, FEWEST), ",d"),
            coverage,
        )
        for label, (one, coverage) in rows.items()
    ]
    head = ("Difference", f"{unit} [95%]", "p", "Holm p", "Detectable", f"Sessions\nfor {effect:g}", "Turns")
    return Table(
        title, head, tuple(listed), (*notes, *_contrast_notes([one for one, _ in rows.values()], unit, effect))
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _contrast_notes(shown: Sequence[Contrast], unit: str, effect: float) -> list[str]:
    tested = [one for one in shown if one.p is not None]
    notes = [
        "Paired: over the turns that both have. p: of this difference alone. Holm p: corrected for the "
        f"{len(tested)} tested in this table; below 0.05 is a finding.",
        "Detectable: the smallest true difference that so many sessions show in 80% of evaluations. Sessions for "
        f"{effect:g}: how many like these the next evaluation needs to show a true difference of {effect:g} "
        f"{unit.lower()} in 80%; a plan, no verdict on this one.",
    ]
    few = [one.difference.sessions for one in tested if one.difference.sessions < FEWEST]
    if few:
        notes.append(
            f"{min(few)} sessions cannot show anything: exchanging models in them never gives p below "
            f"{2 / 2 ** min(few):.3f}."
        )
    return notes
