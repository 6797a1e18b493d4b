"""``<table>.html``: a table on one page that opens offline, with the report of every row behind a link."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parrot_lite.evaluate import charts
from parrot_lite.evaluate.charts import Point
from parrot_lite.evaluate.page import Difference, Forest, Levels, markup
from parrot_lite.evaluate.page import Row as Strip
from parrot_lite.evaluate.page import forest as forest_of
from parrot_lite.table import Report
from parrot_lite.tables.measures import FORMS, MEANING
from parrot_lite.tables.results import Outcome
from parrot_lite.tables.sheet import UNITS, Measure
from parrot_lite.tables.verdict import Outcome as Found

SPAN = {"nats a token": 0.05, "points": 0.5, "share of 4-grams": 0.02}  # an axis covers at least this
KINDS: Mapping[Found, str] = {"found": "shown", "found at a cost": "in-doubt", "the other way round": "bad"}


@dataclass(frozen=True)
class Row:
    """What a row is, with the reports of its evaluations: seed and path from the page."""

    name: str
    about: str
    reports: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Said:
    """One primary test and what is said of it; ``kind`` is a class of the style sheet."""

    asks: str
    outcome: Found
    kind: str
    text: str


@dataclass(frozen=True)
class Page:
    """All that is shown."""

    name: str
    lead: str
    brief: str
    remarks: tuple[str, ...]
    findings: tuple[Said, ...]
    rows: tuple[Row, ...]
    forests: tuple[Forest, ...]
    levels: tuple[Levels, ...]
    report: Report


def view(outcome: Outcome, report: Report, folder: Path, reports: Mapping[tuple[str, int], Path]) -> Page:
    """What there is to show, with the figures of ``report``. ``reports`` are the rows' own, by row and seed.

    Links are relative to ``folder``; a row without a result has none, nor has a report that is not there.
    """
    sheet, verdict = outcome.sheet, outcome.verdict()
    rows = tuple(
        Row(
            row.name,
            row.about,
            tuple(
                (seed, os.path.relpath(path, folder))
                for (name, seed), path in reports.items()
                if name == row.name and seed in outcome.rows.get(name, {}) and path.exists()
            ),
        )
        for row in sheet.rows
    )
    measures = (outcome.measures.primary, *outcome.measures.co_primary)
    shown = [one for one in outcome.measures.all if one in measures or one in outcome.measures.guards]
    seeds = f"training seed{'s' if outcome.seeds[1:] else ''} {', '.join(map(str, outcome.seeds))}"
    return Page(
        name=sheet.name,
        lead=f"{len(outcome.rows)} of {len(sheet.rows)} rows, by the recipe {outcome.recipe.name}, under {seeds}.",
        brief=verdict.brief,
        remarks=verdict.remarks,
        findings=tuple(
            Said(
                one.comparison.asks,
                found,
                KINDS.get(found, "not-shown"),
                f"{one.comparison.row} minus {one.comparison.baseline} in {text}.",
            )
            for one, found, text in verdict.findings
        ),
        rows=rows,
        forests=tuple(made for one in measures if (made := forest(outcome, one)) is not None),
        levels=tuple(level for one in shown if (level := levels(outcome, one)) is not None),
        report=report,
    )


def forest(outcome: Outcome, measure: Measure) -> Forest | None:
    """Every comparison in one measure, primary ones first; None where none could be made."""
    series = [row.name for row in outcome.sheet.rows]
    primary = {(one.row, one.baseline) for one in outcome.sheet.comparisons if one.order == "primary"}
    rows = tuple(
        Difference(f"{row} minus {base}{' (primary)' if (row, base) in primary else ''}", series.index(row), contrast)
        for (row, base), contrast in outcome.compared(measure).items()
    )
    unit = UNITS[measure]
    return forest_of(measure, unit, FORMS[unit], SPAN[unit], rows) if rows else None


def levels(outcome: Outcome, measure: Measure) -> Levels | None:
    """Every row's mean in one measure; None where no row has one."""
    found = [(row.name, outcome.level(row.name, measure)) for row in outcome.sheet.rows]
    points = [(name, Point(series, name, one)) for series, (name, one) in enumerate(found) if one is not None]
    if not points:
        return None
    unit = UNITS[measure]
    axis = charts.axis(charts.extent([point for _, point in points]), SPAN[unit])
    rows = tuple(
        Strip(name, f"{point.estimate.sessions} sessions", (point,)) for name, point in points if point.estimate
    )
    meaning = MEANING[measure]
    return Levels(measure, unit, axis, FORMS[unit], rows, meaning[0].upper() + meaning[1:], axis.low)


def render(page: Page) -> str:
    """The page as HTML."""
    return markup("table.html.jinja", "", page=page)
