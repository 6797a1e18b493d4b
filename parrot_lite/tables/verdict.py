"""What can be said of a table, made from its statistics and never stronger than they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from parrot_lite.evaluate.conclusions import conclude
from parrot_lite.evaluate.statistics import Contrast, Estimate
from parrot_lite.tables.measures import FORMS, scale
from parrot_lite.tables.sheet import UNITS, Comparison, Guard, Measure

Outcome = Literal["found", "found at a cost", "the other way round", "not found", "not tested", "without a result"]
OUTCOMES: tuple[Outcome, ...] = (
    "found",
    "found at a cost",
    "the other way round",
    "not found",
    "not tested",
    "without a result",
)


@dataclass(frozen=True)
class Finding:
    """A primary comparison in one measure; ``contrast`` is corrected with the others', None where a row lacks it."""

    comparison: Comparison
    measure: Measure
    contrast: Contrast | None


@dataclass(frozen=True)
class Guarded:
    """By how much a row's value exceeds that of the row that guards are taken against; None = not measured."""

    row: str
    against: str
    guard: Guard
    limit: float
    difference: Estimate | None

    @property
    def state(self) -> Literal["kept", "open", "broken"]:
        """Broken = the mean is above the limit, open = its interval is, or nothing is known."""
        one = self.difference
        if one is None:
            return "open"
        if one.mean > self.limit:
            return "broken"
        return "kept" if one.high is not None and one.high <= self.limit else "open"


@dataclass(frozen=True)
class Verdict:
    """What a table's statistics allow to be said. ``text`` is all of it in one paragraph."""

    brief: str  # how many primary tests came out how
    findings: tuple[tuple[Finding, Outcome, str], ...]  # with what is said of each
    remarks: tuple[str, ...]  # on guards, on what compared rows do not have in common, on rows and seeds that lack

    @property
    def text(self) -> str:
        """One paragraph."""
        parts = [self.brief]
        for asked, group in groupby(self.findings, key=lambda one: one[0].comparison):
            first, *others = (said for *_, said in group)
            parts += [f"{asked.asks} {asked.row} minus {asked.baseline} in {first}", *(f"In {one}" for one in others)]
        return " ".join(f"{part}." for part in (*parts, *self.remarks))


def verdict(
    findings: Sequence[Finding],
    guards: Sequence[Guarded],
    failed: Mapping[str, str],
    seeds: int,
    doses: Sequence[str] = (),
) -> Verdict:
    """The verdict. ``failed`` says why a row has no result, ``doses`` what compared rows do not have in common."""
    if not findings:
        brief = "The table declares no primary comparison, so it describes and decides nothing"
        return Verdict(brief, (), tuple(_rows(failed)))
    broken = {one.row: one for one in guards if one.state == "broken"}
    family = sum(one.contrast is not None and one.contrast.p is not None for one in findings)
    told = tuple((one, *_sentence(one, broken.get(one.comparison.row), family, failed)) for one in findings)
    counts = Counter(outcome for _, outcome, _ in told)
    listed = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    parts = [_guard(one) for one in guards if one.state == "broken"]
    if unknown := [one for one in guards if one.state == "open"]:
        names = ", ".join(f"{one.guard} of {one.row}" for one in unknown)
        parts.append(f"Neither kept nor broken, as intervals reach beyond the limit or nothing was measured: {names}")
    if guards and not broken and not unknown:
        parts.append("All guards are kept")
    parts += [f"The rows differ in more than their names say: {'; '.join(doses)}"] if doses else []
    parts += _rows(failed)
    if seeds == 1:
        parts.append("One training seed: what another one would give is not known")
    elif seeds == 2:
        parts.append("Two training seeds are no basis for a claim about training; take three")
    return Verdict(f"Of {len(findings)} primary test{'s' if findings[1:] else ''}: {listed}", told, tuple(parts))


def _sentence(one: Finding, broken: Guarded | None, family: int, failed: Mapping[str, str]) -> tuple[Outcome, str]:
    row, base = one.comparison.row, one.comparison.baseline
    what = one.measure
    if one.contrast is None:
        lost = [name for name in (row, base) if any(key.split()[0] == name for key in failed)]
        why = f"no result of {' and '.join(lost)}" if lost else "it was not measured on both"
        return "without a result", f"{what}: open, {why}"
    caveat = "" if broken is None else f"but {row} breaks its guard"
    said = conclude(row, base, one.contrast, scale(one.measure, caveat), family)
    text = f"{what}: {said.text.rstrip('.')}"
    if said.state in ("not shown", "not tested"):
        return ("not found" if said.state == "not shown" else "not tested"), text
    if one.contrast.difference.mean < 0:
        return "the other way round", text
    return ("found" if broken is None else "found at a cost"), text


def _guard(one: Guarded) -> str:
    assert one.difference is not None
    unit = UNITS[one.guard]
    form = FORMS[unit]
    over = f"{one.difference.mean:+{form}} {unit} from {one.against}, where {one.limit:+g} is the limit"
    return f"Guard broken: {one.guard} of {one.row} is {over}"


def _rows(failed: Mapping[str, str]) -> list[str]:
    return [f"Row {name} has no result: {reason.rstrip('.')}" for name, reason in failed.items()]
