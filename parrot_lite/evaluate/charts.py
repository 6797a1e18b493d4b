"""Charts as inline SVG: pure functions from estimates to markup.

Drawn here because a plotting library's SVG is large, has its colours fixed and its text scaled with the picture. These
stretch with the page while text and marks keep their size: places along a stretched axis are percentages, all else is
pixels. Colours are the page's (``.s0``, ``.s1``, ...), and every series has a mark and a dash of its own, so nothing
depends on colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from parrot_lite.evaluate.statistics import Estimate

COLOURS = 6  # series classes that the style sheet knows
TICKS = 5
LANE = 18  # pixels a series takes in a strip
PLOT = 220  # pixels that a curve's axis is high
DODGE = 7  # pixels between the error bars of two series at one turn
SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",  # circle
    "M-4.5-4.5h9v9h-9z",  # square
    "M0-6L5.8 4.5H-5.8z",  # triangle
    "M0-6.3L5.3 0L0 6.3L-5.3 0z",  # diamond
    "M0 6L5.8-4.5H-5.8z",  # triangle, point down
    "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",  # plus
    "M-6-4.5h12L0 1.5L6 4.5H-6L0-1.5z",  # hourglass
)


@dataclass(frozen=True)
class Axis:
    """A linear axis from ``low`` to ``high``, with ticks that are written in the format ``form``."""

    low: float
    high: float
    ticks: tuple[float, ...]
    form: str

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the axis, from its low end; what lies outside is put on the end."""
        return min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low)))

    def written(self, value: float) -> str:
        """A tick's label; no minus before zero."""
        return format(0.0 if abs(value) < 1e-12 else value, self.form)


def axis(values: Sequence[float], span: float, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Axis:
    """An axis round ``values`` that covers at least ``span``, stays within ``bounds``, and ends at ticks.

    >>> axis([4.2, 6.9], 2, (1, 10))
    Axis(low=4.0, high=7.0, ticks=(4.0, 5.0, 6.0, 7.0), form='.0f')
    >>> axis([-0.02, 0.11], 0.1).ticks
    (-0.05, 0.0, 0.05, 0.1, 0.15)
    """
    low, high = (min(values), max(values)) if values else (0.0, span)
    if high - low < span:
        middle = (low + high) / 2
        low, high = middle - span / 2, middle + span / 2
    low, high = max(low, bounds[0]), min(high, bounds[1])
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [round(step * number, decimals + 1) for number in range(first, last + 1)]
    if ticks[0] < bounds[0]:
        ticks[0] = bounds[0]
    if ticks[-1] > bounds[1]:
        ticks[-1] = bounds[1]
    return Axis(ticks[0], ticks[-1], tuple(ticks), f".{decimals}f")


@dataclass(frozen=True)
class Point:
    """One series' estimate in a row or at a turn, from ``counted`` values of ``asked``."""

    series: int
    name: str
    estimate: Estimate | None
    counted: int = 0
    asked: int = 0

    @property
    def partial(self) -> bool:
        """Whether more than 5% of its values are missing."""
        return self.counted < 0.95 * self.asked

    def spoken(self, form: str) -> str:
        """For those who hear the page.

        >>> Point(0, "sft", Estimate(5.125, 4.5, 5.75, 8, 64)).spoken(".2f")
        'sft 5.12, 95% interval 4.50 to 5.75'
        """
        if self.estimate is None:
            return f"{self.name} missing"
        low, high = self.estimate.low, self.estimate.high
        interval = "no interval" if low is None or high is None else f"95% interval {low:{form}} to {high:{form}}"
        return f"{self.name} {self.estimate.mean:{form}}, {interval}"


def extent(points: Sequence[Point]) -> list[float]:
    """What an axis has to cover to show these points and their intervals."""
    found = [(one.mean, one.low, one.high) for point in points if (one := point.estimate) is not None]
    return [end for ends in found for end in ends if end is not None]


def mark(series: int, hollow: bool = False) -> Markup:
    """The mark of a series, centred on the origin."""
    kind = Markup(' class="hollow"') if hollow else Markup("")
    return Markup('<path{} d="{}"/>').format(kind, SHAPES[series % len(SHAPES)])


def key(series: int, line: bool = False) -> Markup:
    """The mark of a series beside its name; with ``line`` as on a curve."""
    dash = Markup('<line x1="0" x2="30" y1="8" y2="8"/>') if line else Markup("")
    return Markup('<svg class="key {}{} d{}" aria-hidden="true">{}<g transform="translate({} 8)">{}</g></svg>').format(
        _series(series), " long" if line else "", series % len(SHAPES), dash, 15 if line else 8, mark(series)
    )


def _series(series: int) -> str:
    return f"s{series % COLOURS}"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def strip(
    points: Sequence[Point], along: Axis, form: str, label: str, band: float | None = None, reference: float = 0.0
) -> Markup:
    """Points with their intervals on a horizontal axis, one below the other.

    ``band`` shades from -band to +band. A line stands at ``reference`` where the axis has both sides of it.
    """
    spoken = f"{label}: " + "; ".join(point.spoken(form) for point in points)
    height = LANE * len(points) + 8
    parts = [Markup('<svg class="strip" height="{}" role="img" aria-label="{}">').format(height, spoken)]
    if band is not None:
        left, right = along.at(-band), along.at(band)
        parts.append(
            Markup('<rect class="band" x="{}%" width="{}%" y="0" height="100%"/>').format(
                _number(left), _number(right - left)
            )
        )
    lines = [("grid", tick) for tick in along.ticks]
    lines += [("zero", reference)] if along.low < reference < along.high else []
    for kind, value in lines:
        x = _number(along.at(value))
        parts.append(Markup('<line class="{}" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>').format(kind, x=x))
    for lane, point in enumerate(points):
        if (one := point.estimate) is None:
            continue
        y = 4 + LANE * lane + LANE // 2
        parts.append(Markup('<g class="{}">').format(_series(point.series)))
        if one.low is not None and one.high is not None:
            ends = _number(along.at(one.low)), _number(along.at(one.high))
            parts.append(Markup('<line x1="{}%" x2="{}%" y1="{y}" y2="{y}"/>').format(*ends, y=y))
        where = _number(along.at(one.mean))
        parts.append(
            Markup('<svg x="{}%" y="{}">{}</svg></g>').format(where, y, mark(point.series, hollow=point.partial))
        )
    return Markup("").join([*parts, Markup("</svg>")])


def scale(along: Axis) -> Markup:
    """The tick labels of a horizontal axis, to stand below its strips."""
    labels = [
        Markup('<text x="{}%" y="14" text-anchor="middle">{}</text>').format(
            _number(along.at(tick)), along.written(tick)
        )
        for tick in along.ticks
    ]
    return Markup('<svg class="strip scale" height="18" aria-hidden="true">{}</svg>').format(Markup("").join(labels))


def curve(
    groups: Sequence[tuple[str, Sequence[Point]]], up: Axis, form: str, label: str, across: str, behind: str
) -> Markup:
    """Series over groups in an order (turns): points with error bars, joined where neighbours both have a value.

    ``groups`` gives each group's name and its points, one a series, in the same order in each; ``across`` names the
    groups. The numbers of values stand below, one line a series, under the words ``behind``.
    """
    size = len(groups[0][1])
    spoken = f"{label}. " + ". ".join(
        f"{name}: " + "; ".join(point.spoken(form) for point in points) for name, points in groups
    )
    height = PLOT + 64 + 16 * size
    parts = [Markup('<svg class="curve" height="{}" role="img" aria-label="{}">').format(height, spoken)]
    for tick in up.ticks:
        y = _number(_height(up, tick))
        parts.append(Markup('<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>').format(y=y))
        parts.append(Markup('<text x="-8" y="{}" dy=".35em" text-anchor="end">{}</text>').format(y, up.written(tick)))
    places = [_number(100 * (index + 0.5) / len(groups)) for index in range(len(groups))]
    for (name, _), x in zip(groups, places, strict=True):
        parts.append(Markup('<text x="{}%" y="{}" text-anchor="middle">{}</text>').format(x, PLOT + 18, name))
    parts.append(Markup('<text x="50%" y="{}" text-anchor="middle">{}</text>').format(PLOT + 34, across))
    parts.append(Markup('<text class="note" x="-20" y="{}">{}</text>').format(PLOT + 56, behind))
    for place in range(size):
        line = [(x, points[place]) for x, (_, points) in zip(places, groups, strict=True)]
        parts.append(_line(line, up, _number(DODGE * (place - (size - 1) / 2))))
        parts.append(_counts(line, PLOT + 73 + 16 * place))
    return Markup("").join([*parts, Markup("</svg>")])


def _height(up: Axis, value: float) -> float:
    return PLOT * (1 - up.at(value) / 100)


def _line(line: Sequence[tuple[str, Point]], up: Axis, dodge: str) -> Markup:
    series = line[0][1].series
    parts = [Markup('<svg class="{} d{}" x="{}" width="100%">').format(_series(series), series % len(SHAPES), dodge)]
    for (x, one), (next_x, other) in pairwise(line):
        if one.estimate is not None and other.estimate is not None:
            y, next_y = (_number(_height(up, end.estimate.mean)) for end in (one, other) if end.estimate is not None)
            parts.append(Markup('<line class="join" x1="{}%" y1="{}" x2="{}%" y2="{}"/>').format(x, y, next_x, next_y))
    for x, point in line:
        if (found := point.estimate) is None:
            continue
        if found.low is not None and found.high is not None:
            ends = _number(_height(up, found.high)), _number(_height(up, found.low))
            parts.append(Markup('<line class="bar" x1="{x}%" x2="{x}%" y1="{}" y2="{}"/>').format(*ends, x=x))
        y = _number(_height(up, found.mean))
        parts.append(Markup('<svg x="{}%" y="{}">{}</svg>').format(x, y, mark(series, hollow=point.partial)))
    return Markup("").join([*parts, Markup("</svg>")])


def _counts(line: Sequence[tuple[str, Point]], y: int) -> Markup:
    series = line[0][1].series
    parts = [Markup('<svg class="{}" x="-16" y="{}">{}</svg>').format(_series(series), y - 4, mark(series))]
    for x, point in line:
        kind = "missing" if point.partial else "some" if point.counted < point.asked else "note"
        parts.append(
            Markup('<text class="{}" x="{}%" y="{}" text-anchor="middle">{}</text>').format(kind, x, y, point.counted)
        )
    return Markup("").join(parts)
