"""Plots of data sets side by side, for print: a marker and a line style each, colours that every eye tells apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from parrot_lite.collect.statistics import DataSet, none_of

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito's, told by every eye
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX"  # as many as share no factor with the colours and the lines: looks repeat after 210 data sets
LONGEST = 12  # turns drawn one by one
FEW = 20  # queries below which a turn's share says little
DPI = 200


class Picture(NamedTuple):
    """A written plot."""

    path: Path
    caption: str


def draw(data_sets: Sequence[DataSet], folder: Path) -> list[Picture]:
    """Write the plots as PNG files into ``folder``."""
    import matplotlib

    matplotlib.use("Agg")  # no window, and no display to open one on
    plots = (
        ("turns.png", "Turns of a session", _turns),
        ("words.png", "Words of a query after the first, and of an answer", _words),
        (
            "dependence.png",
            f"Context-dependent share of queries, by turn (95% Wilson intervals; turns with fewer than {FEW} queries "
            "left out)",
            _dependence,
        ),
        ("faults.png", "Queries that an asker should not ask (95% intervals; repeated ones have none)", _faults),
    )
    with matplotlib.rc_context(STYLE):
        return [Picture(_saved(paint(data_sets), folder / name), caption) for name, caption, paint in plots]


STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
}


def _saved(figure: Any, path: Path) -> Path:
    # Without the version of matplotlib and the like, so that the same data give the same file.
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def _figure(columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot, which keeps every figure

    figure = Figure(figsize=(6.4 if columns > 1 else 4.8, 3.0))
    return figure, figure.subplots(1, columns)


def _look(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _line(number: int) -> dict[str, Any]:
    return {**_look(number), "linestyle": LINES[number % len(LINES)]}


def _apart(number: int, of: int, step: float) -> float:
    """How far a data set stands beside the middle of its place, so that intervals do not cover each other."""
    return (number - (of - 1) / 2) * step


def _legend(axes: Any) -> None:
    """Above the plot, where no curve runs."""
    handles, labels = axes.get_legend_handles_labels()
    columns = min(len(labels), 4 if max(map(len, labels), default=0) < 14 else 2)
    axes.figure.legend(handles, labels, loc="outside upper center", ncols=max(1, columns))


def _turns(data_sets: Sequence[DataSet]) -> Any:
    figure, axes = _figure()
    longest = min(max(max(one.histograms["turns"]) for one in data_sets), LONGEST)
    beyond = False
    for number, one in enumerate(data_sets):
        found = one.histograms["turns"]
        places = range(min(found), min(max(found), longest) + 1)
        axes.plot(
            places,
            [100 * found.get(turns, 0) / one.sessions for turns in places],
            label=f"{one.name} (n = {one.sessions:,})",
            clip_on=False,
            **_line(number),
        )
        more = sum(times for turns, times in found.items() if turns > longest)
        if more:
            beyond = True
            axes.plot([longest + 1.5], [100 * more / one.sessions], clip_on=False, **_look(number))
    ticks = list(range(1, longest + 1))
    axes.set_xticks([*ticks, longest + 1.5] if beyond else ticks, [*map(str, ticks), *([f"> {longest}"] * beyond)])
    axes.set(xlabel="Turns of a session (exchanges)", ylabel="Sessions (%)", ylim=(0, None))
    _legend(axes)
    return figure


def _words(data_sets: Sequence[DataSet]) -> Any:
    figure, panels = _figure(2)
    sides = (("later query words", "Words of a query after the first"), ("answer words", "Words of an answer"))
    for axes, (key, title) in zip(panels, sides, strict=True):
        for number, one in enumerate(data_sets):
            lengths, shares = cumulative(one.histograms[key])
            look = {**_line(number), "marker": None}
            axes.step(lengths, [100 * share for share in shares], where="post", label=one.name, **look)
        axes.set(xscale="log", xlabel=title, ylim=(0, 100.5))
        _plain_ticks(axes)
    panels[0].set_ylabel("Messages of at most\nso many words (%)")
    _legend(panels[0])
    return figure


def _plain_ticks(axes: Any) -> None:
    """Ticks of a logarithmic axis as whole numbers, as many as there is room for."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_xlim()
    steps = range(1, 10) if high < 5 * low else (1, 2, 5) if high < 300 * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def cumulative(histogram: Mapping[int, int]) -> tuple[list[int], list[float]]:
    """The values, and the share of the data that is at most so large.

    >>> cumulative({5: 1, 2: 3})
    ([2, 5], [0.75, 1.0])
    """
    values, total = sorted(histogram), sum(histogram.values())
    return values, [so_far / total for so_far in accumulate(histogram[value] for value in values)]


def _dependence(data_sets: Sequence[DataSet]) -> Any:
    figure, axes = _figure()
    turns, last = range(2, LONGEST + 1), 2
    for number, one in enumerate(data_sets):
        asked = {turn: one.dependent_by_turn[turn] for turn in turns if turn in one.dependent_by_turn}
        found = {turn: wilson(*of) for turn, of in asked.items() if of[1] >= FEW}
        last = max([last, *found])
        axes.errorbar(
            [turn + _apart(number, len(data_sets), 0.15) for turn in found],
            [100 * share for share, _, _ in found.values()],
            [
                [100 * (share - low) for share, low, _ in found.values()],
                [100 * (high - share) for share, _, high in found.values()],
            ],
            capsize=2,
            elinewidth=0.8,
            label=one.name,
            **_line(number),
        )
    axes.set(ylabel="Context-dependent queries (%)", ylim=(0, 100), xlim=(1.5, last + 0.5))
    axes.set_xlabel(f"Turn (95% intervals; turns with fewer than {FEW} queries left out)")
    axes.set_xticks(range(2, last + 1))
    _legend(axes)
    return figure


def wilson(hits: int, of: int) -> tuple[float, float, float]:
    """A share and its 95% interval (Wilson's score interval): one query a session, so queries are independent."""
    z = 1.96
    share = hits / of
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return share, centre - half, centre + half


def _faults(data_sets: Sequence[DataSet]) -> Any:
    figure, axes = _figure()
    names = ("role drift", "answers itself", "thanks", "repeated")
    for number, one in enumerate(data_sets):
        for row, name in enumerate(names):
            mean = one.means.get(name)
            share = mean.mean if mean else one.shares.get(name)
            if share is None:
                continue
            low = high = mean.half if mean else None
            if mean and not mean.mean:
                low, high = 0.0, none_of(mean.values)
            axes.errorbar(
                [100 * share],
                [row + _apart(number, len(data_sets), 0.8 / (len(data_sets) + 1))],
                xerr=None if low is None or high is None else [[100 * min(low, share)], [100 * high]],
                linestyle="none",
                capsize=2,
                elinewidth=0.8,
                clip_on=False,
                label=one.name if name == "role drift" else None,
                **_look(number),
            )
    axes.set(xlabel="Queries after the first (%)", xlim=(0, max(1, axes.get_xlim()[1])), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), [name.capitalize() for name in names])
    axes.grid(axis="y", visible=False)
    _legend(axes)
    return figure
