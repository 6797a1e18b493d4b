"""``report.html``: the evaluation on one page that opens offline, with every transcript.

What models and judges wrote is untrusted: it is escaped, the page's policy allows no script, no remote load and no
style but the page's own, and filters work by CSS alone. The same records give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import jinja2
from markupsafe import Markup

from parrot_lite.evaluate import charts, context_use, entities, pairwise, scores, transcripts
from parrot_lite.evaluate.card import Card
from parrot_lite.evaluate.charts import Axis, Point
from parrot_lite.evaluate.conclusions import Conclusion, Scale, conclude
from parrot_lite.evaluate.estimates import Numbers, bounded, probability, written
from parrot_lite.evaluate.records import AnswerBy, Choice, Comparison, Likelihood, Phenomenon, Played, Question, player
from parrot_lite.evaluate.statistics import Contrast, Estimate
from parrot_lite.evaluate.transcripts import APART, SCROLLED, Limit, Session
from parrot_lite.recipe import History
from parrot_lite.table import Report
from parrot_lite.types import Judgment

FOLDER = Path(__file__).parents[1] / "data" / "report"
SIZE = 1_980_000  # bytes of a page, below which texts are cut
SCORES = (1.0, 10.0)
KINDS: tuple[Phenomenon, ...] = get_args(Phenomenon)
KIND_NOTE = (
    "Anaphora: a word stands for something said before. Ellipsis: something said before is left out. Shift: the "
    "subject changes. Self-contained: needs no history, the control. A query may be of several kinds."
)
HISTORIES: Mapping[History, str] = {
    "own": "over the model's own earlier answers",
    "reference": "over the benchmark's reference answers",
    "hidden": "without its history",
}
SCORE = "mean judge score, points of 1 to 10"
HOLLOW = "hollow: more than 5% of the verdicts are missing"
CONTEXT = {
    "PMI-swap": "Context use: the history exchanged for another session's (PMI-swap)",
    "PMI-last": "Context use: the last exchange taken out of the history (PMI-last)",
    "NLL": "The cost: likelihood under the true history (NLL)",
}
CONTEXT_NOTE = {
    "PMI-swap": "By how much answers get less likely by that: more = the model leans more on the history. Close to "
    "whether the topic matches.",
    "PMI-last": "By how much answers get less likely by that: more = the model leans more on the history. The topic "
    "stays; from turn 3 on.",
    "NLL": "Lower = likelier. A gain in context use that raises it was paid for.",
}
TURNS = {"context-dependent turns": True, "self-contained turns": False}


@dataclass(frozen=True)
class Records:
    """What a finished evaluation holds. ``sources`` says in words what each of the models is.

    ``questions`` are empty where the evaluation did not keep them, ``card`` is None where the judge was not checked.
    """

    models: tuple[str, ...]
    sources: tuple[str, ...]
    played: tuple[Played, ...]
    histories: tuple[History, ...] = ("own",)
    questions: tuple[Question, ...] = ()
    judgments: tuple[Judgment, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    likelihoods: tuple[Likelihood, ...] = ()
    choices: tuple[Choice, ...] = ()
    card: Card | None = None

    @property
    def players(self) -> tuple[str, ...]:
        """Each model over each history, as records name it."""
        return tuple(player(model, history) for history in self.histories for model in self.models)


@dataclass(frozen=True)
class Row:
    """A strip of a chart: one point a model; ``behind`` says how many turns or sessions it stands for."""

    name: str
    behind: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Levels:
    """A chart of means."""

    title: str
    unit: str
    axis: Axis
    form: str
    rows: tuple[Row, ...]
    note: str = ""
    reference: float = 0.0  # where a line stands

    @property
    def partial(self) -> bool:
        """Whether some point lacks values."""
        return any(point.partial for row in self.rows for point in row.points)


@dataclass(frozen=True)
class Curve:
    """A chart of means over turns."""

    title: str
    unit: str
    axis: Axis
    form: str
    groups: tuple[tuple[str, tuple[Point, ...]], ...]
    behind: str

    @property
    def partial(self) -> bool:
        """Whether some point lacks values."""
        return any(point.partial for _, points in self.groups for point in points)


@dataclass(frozen=True)
class Difference:
    """A row of a forest plot. ``series`` is that of the model which the other one is taken from."""

    name: str
    series: int
    contrast: Contrast


@dataclass(frozen=True)
class Forest:
    """A forest plot: differences of one unit on one axis."""

    title: str
    unit: str
    axis: Axis
    form: str
    rows: tuple[Difference, ...]


@dataclass(frozen=True)
class Result:
    """The conclusions from one measure."""

    title: str
    conclusions: tuple[Conclusion, ...]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """All that is shown."""

    lead: str
    models: tuple[str, ...]
    sources: tuple[str, ...]
    report: Report
    red_line: str | None
    results: tuple[Result, ...]
    overall: Levels | None
    forests: tuple[Forest, ...]
    curve: Curve | None
    groups: tuple[Levels, ...]  # by category, by kind of query
    context: tuple[Levels, ...]
    pairwise: Levels | None
    card: Card | None
    sessions: tuple[Session, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    categories: tuple[str, ...] = ()
    kinds: tuple[Phenomenon, ...] = field(default=())


def view(records: Records, report: Report, numbers: Numbers) -> Page:
    """What there is to show of the records, with the same estimates as in the report's tables."""
    models, judgments = records.players, records.judgments
    found = scores.compared(records.models, records.histories, judgments, numbers)
    pairs = tuple(found)
    sessions = transcripts.sessions(models, pairs, records.played, judgments, records.questions, records.comparisons)
    given = [one for one in judgments if one.score is not None]
    results, forests = [], []
    if found:
        caveat = "but the judge failed checks that this needs (see the judge card)" if _red(records.card) else ""
        scale = Scale("points", "z.2f", "the score is higher", "the score is lower", caveat)
        results.append(Result("Judge score, 1 to 10", _conclusions(found, scale)))
        differences = _differences(models, {("", *key): one for key, one in found.items()})
        forests.append(forest("Judge score", "points of 1 to 10", "z.2f", 0.5, differences))
    used = _used(records.models, records.likelihoods, numbers)
    for answer, made in used.items():
        title = f"Context use {context_use.OF[answer]}, context-dependent turns"
        found_ = {(pair.measure, pair.model, pair.base): one for pair, one in made.items()}
        forests.append(forest(title, "nats a token", "z.3f", 0.05, _differences(models, found_)))
    return Page(
        lead=_lead(records, sessions, given),
        models=models,
        sources=tuple(source for _ in records.histories for source in records.sources),
        report=report,
        red_line=_red(records.card),
        results=(*results, *_context_results(used)),
        overall=_levels("Score over all turns", [("mean", judgments)], models, numbers) if given else None,
        forests=tuple(forests),
        curve=_curve(models, judgments, numbers) if given else None,
        groups=tuple(_groups(models, records, numbers)) if given else (),
        context=(*_context(records.models, records.likelihoods, numbers), *_named(models, records, numbers)),
        pairwise=_pairwise(models, records.comparisons, numbers) if records.comparisons else None,
        card=records.card,
        sessions=sessions,
        pairs=pairs,
        categories=tuple(sorted({session.category for session in sessions})),
        kinds=tuple(kind for kind in KINDS if any(kind in session.kinds for session in sessions)),
    )


def _red(card: Card | None) -> str | None:
    return card.red_line if card else None


def _lead(records: Records, sessions: Sequence[Session], given: Sequence[Judgment]) -> str:
    turns = sorted({len(session.exchanges) for session in sessions})
    lengths = " to ".join(dict.fromkeys(map(str, (turns[0], turns[-1])))) if turns else "0"
    categories = len({session.category for session in sessions})
    text = (
        f"{_many(len(records.models), 'model')} answered {_many(len(sessions), 'session')} of {lengths} turns in "
        f"{_many(categories, 'category', 'categories')}, every turn "
        f"{' or '.join(HISTORIES[history] for history in records.histories)}."
    )
    if records.judgments:
        judges = ", ".join(sorted({one.judge for one in records.judgments}))
        text += f" Judged by {judges}, from 1 to 10: {len(given)} of {len(records.judgments)} answers have a score."
    else:
        text += " No judge was asked."
    if records.likelihoods:
        measured = _many(len({one.dialogue for one in records.likelihoods}), "session")
        text += f" Use of context was measured without a judge, over {measured}."
    return text


def _many(count: int, one: str, more: str | None = None) -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _conclusions(
    found: Mapping[tuple[str, str], Contrast], scale: Scale, family: int | None = None
) -> tuple[Conclusion, ...]:
    tested = sum(one.p is not None for one in found.values()) if family is None else family
    return tuple(conclude(model, other, one, scale, tested) for (model, other), one in found.items())


def _differences(models: Sequence[str], found: Mapping[tuple[str, str, str], Contrast]) -> tuple[Difference, ...]:
    return tuple(
        Difference(f"{measure + ': ' if measure else ''}{model} minus {other}", models.index(model), one)
        for (measure, model, other), one in found.items()
    )


def forest(title: str, unit: str, form: str, span: float, rows: tuple[Difference, ...]) -> Forest:
    """Differences on an axis that covers at least ``span``."""
    found = [row.contrast.difference for row in rows]
    ends = [0.0, *charts.extent([Point(0, "", one) for one in found])]
    # The bands fit as well, unless one is so wide that the intervals could not be seen beside it.
    band = min(max(one.detectable or 0.0 for one in found), 2 * max(map(abs, ends)))
    return Forest(title, unit, charts.axis([*ends, -band, band], span), form, rows)


def _point(series: int, name: str, judgments: Sequence[Judgment], numbers: Numbers) -> Point:
    own = [one for one in judgments if one.model == name]
    values = scores.scores(own).get(name, {})
    counted = sum(map(len, values.values()))
    return Point(series, name, numbers.mean(values), counted, len(own))


def _points(models: Sequence[str], judgments: Sequence[Judgment], numbers: Numbers) -> tuple[Point, ...]:
    return tuple(_point(series, name, judgments, numbers) for series, name in enumerate(models))


def _levels(
    title: str,
    groups: Sequence[tuple[str, Sequence[Judgment]]],
    models: Sequence[str],
    numbers: Numbers,
    note: str = "",
) -> Levels:
    rows = tuple(
        Row(name, f"{len({(one.dialogue, one.turn) for one in own})} turns", _points(models, own, numbers))
        for name, own in groups
    )
    ends = charts.extent([point for row in rows for point in row.points])
    return Levels(title, SCORE, charts.axis(ends, 2, SCORES), ".2f", rows, note)


def _curve(models: Sequence[str], judgments: Sequence[Judgment], numbers: Numbers) -> Curve:
    turns = sorted({one.turn for one in judgments})
    groups = tuple((str(turn), _points(models, [j for j in judgments if j.turn == turn], numbers)) for turn in turns)
    ends = charts.extent([point for _, points in groups for point in points])
    asked = sorted({len({one.dialogue for one in judgments if one.turn == turn}) for turn in turns})
    behind = f"verdicts behind each point, of {asked[-1]} asked" if len(asked) == 1 else "verdicts behind each point"
    return Curve("Score by turn", SCORE, charts.axis(ends, 2, SCORES), ".2f", groups, behind)


def _groups(models: Sequence[str], records: Records, numbers: Numbers) -> list[Levels]:
    judgments, found = records.judgments, []
    labelled = transcripts.labels(records.played, records.questions)
    by_kind: list[tuple[str, Sequence[Judgment]]] = []
    for kind in KINDS:
        own = [j for j in judgments if (label := labelled.get((j.dialogue, j.turn))) and kind in label.kinds]
        if own:
            by_kind.append((kind, own))
    if by_kind:
        found.append(_levels("Score by kind of query", by_kind, models, numbers, KIND_NOTE))
    categories = sorted({one.category for one in judgments})
    if len(categories) > 1:
        by_category = [(name, [one for one in judgments if one.category == name]) for name in categories]
        found.append(_levels("Score by category", by_category, models, numbers))
    return found


def _pairwise(models: Sequence[str], comparisons: Sequence[Comparison], numbers: Numbers) -> Levels:
    rows = []
    for a, b in dict.fromkeys((one.model_a, one.model_b) for one in comparisons):
        own = [one for one in comparisons if (one.model_a, one.model_b) == (a, b)]
        settled = [one for one in own if one.outcome is not None]
        ties = sum(one.outcome == "tie" for one in settled)
        rate = bounded(numbers.mean(pairwise.wins(own)))
        points = (Point(models.index(a), a, rate, len(settled), len(own)),)
        rows.append(Row(f"{a} against {b}", f"{len(settled)} of {len(own)} turns, {ties} ties", points))
    note = (
        "Of turns with verdicts in both orders: wins and half of the ties; a win is one in both orders. Right of the "
        "line at one half: the first model wins more often. How often the orders disagree is in the table."
    )
    along = Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), ".2f")
    return Levels("Answers compared in pairs", "win rate, share of turns", along, ".3f", tuple(rows), note, 0.5)


def _named(models: Sequence[str], records: Records, numbers: Numbers) -> list[Levels]:
    """How often an answer names what its query only points to, by how far back that was said."""
    rows = []
    for words, (_, keep) in zip(
        ("all", "said 1-2 turns before", "said 4 or more before"), entities.DISTANCES, strict=True
    ):
        found = [
            entities.resolved([one for one in records.played if one.model == name], records.questions, keep)
            for name in models
        ]
        counted = [sum(map(len, values.values())) for values in found]
        points = tuple(
            Point(series, name, bounded(numbers.mean(values)), counted=count)
            for series, (name, values, count) in enumerate(zip(models, found, counted, strict=True))
        )
        if any(counted):
            rows.append(Row(words, f"{max(counted)} turns", points))
    if not rows:
        return []
    along = Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), ".2f")
    note = (
        "An answer that has to say what an earlier turn said, and does. It shows that the reference was resolved, not "
        "that the answer is right."
    )
    return [Levels("The answer names what its query points to", "share of turns", along, ".2f", tuple(rows), note)]


Used = Mapping[AnswerBy, Mapping[context_use.Pair, Contrast]]


def _context(models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers) -> tuple[Levels, ...]:
    """The primary measures and what they may cost, by kind of answer, at both kinds of turn."""
    found = []
    for answer in dict.fromkeys(one.answer for one in likelihoods):
        for name, title in CONTEXT.items():
            measure = context_use.MEASURES[name]
            rows = []
            for words, dependent in TURNS.items():
                parts = [
                    context_use.cells(likelihoods, model, context_use.later(answer, dependent)) for model in models
                ]
                points = tuple(
                    Point(series, model, numbers.mean(values), counted=len(values))
                    for series, (model, part) in enumerate(zip(models, parts, strict=True))
                    if (values := measure(part))
                )
                if points:
                    rows.append(Row(words, f"{max(point.counted for point in points)} sessions", points))
            if rows:
                ends = charts.extent([point for row in rows for point in row.points])
                along = charts.axis([*ends, *([] if name == "NLL" else [0.0])], 0.1)
                unit = f"nats a token {context_use.OF[answer]}"
                found.append(Levels(title, unit, along, ".3f", tuple(rows), CONTEXT_NOTE[name]))
    return tuple(found)


def _used(models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers) -> Used:
    """Contrasts of the primary measures, by kind of answer."""
    made = {
        answer: context_use.primary(answer, models, likelihoods, numbers)
        for answer in dict.fromkeys(one.answer for one in likelihoods)
    }
    return {answer: contrasts for answer, contrasts in made.items() if contrasts}


def _context_results(used: Used) -> list[Result]:
    """Conclusions for one kind of answer; the others' differences are in the charts."""
    scale = Scale("nats a token", "z.3f", "it leans more on the history", "it leans less on the history")
    results = []
    for answer, made in list(used.items())[:1]:
        for name in dict.fromkeys(pair.measure for pair in made):
            own = {(pair.model, pair.base): one for pair, one in made.items() if pair.measure == name}
            tested = sum(one.p is not None for one in made.values())
            note = (
                f"Measured without a judge, {context_use.OF[answer]} at context-dependent turns. {CONTEXT_NOTE[name]}"
            )
            results.append(Result(CONTEXT[name], _conclusions(own, scale, tested), note))
    return results


def render(page: Page) -> str:
    """The page as HTML. Texts of transcripts are cut evenly where it would be larger than ``SIZE`` bytes."""
    empty = len(_rendered(page, Limit(0)).encode())
    limit = transcripts.fit(page.sessions, SIZE - empty)
    return _rendered(page, limit)


def _rendered(page: Page, limit: Limit) -> str:
    return markup(
        "report.html.jinja",
        _rules(page),
        page=page,
        limit=limit,
        scrolled=SCROLLED,
        doubted=any(one.state == "in doubt" for result in page.results for one in result.conclusions),
        filters=filters(page),
    )


def markup(template: str, rules: str, **shown: Any) -> str:
    """A page by one of the templates beside the style sheet, with ``rules`` of its own behind it.

    The page's policy allows this style and nothing else, no script and no load.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (FOLDER / "report.css").read_text(encoding="utf-8") + rules
    return environment.get_template(template).render(
        shown,
        style=Markup(style),
        digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        charts=charts,
        difference=_difference,
        probability=probability,
        point=Point,
        hollow=HOLLOW,
        visible=transcripts.visible,
    )


def _difference(one: Estimate, form: str) -> str:
    return written(one, f"+{form}")


def _rules(page: Page) -> str:
    """The rules behind the filters: what a box that is checked hides. Built of numbers alone, never of text."""
    rules = []
    for index in range(len(page.models)):
        rules.append(f"body:has(#m{index}:not(:checked)) .m{index}{{display:none}}")
    for index in range(len(page.categories)):
        rules.append(f"body:has(#c{index}:checked) .session:not(.c{index}){{display:none}}")
    kinds = [f"k{index}" for index in range(len(page.kinds))]
    groups = filters(page)
    for name in (*kinds, *groups):
        rules.append(f"body:has(#{name}:checked) .turn:not(.{name})>.answers{{display:none}}")
        rules.append(f"body:has(#{name}:checked) .turn:not(.{name}){{opacity:.65}}")
        rules.append(f"body:has(#{name}:checked) .session:not(:has(.turn.{name})){{display:none}}")
    rules += [
        f"body:has(#{kind}:checked):has(#{group}:checked) .session:not(:has(.turn.{kind}.{group})){{display:none}}"
        for kind in kinds
        for group in groups
    ]
    return "\n".join(rules)


def filters(page: Page) -> dict[str, str]:
    """The filters of differences that some turn passes, by their class, in words."""
    named = {}
    for number, (model, other) in enumerate(page.pairs):
        named[f"above-{number}"] = f"{model} at least {APART:g} above {other}"
        named[f"below-{number}"] = f"{model} at least {APART:g} below {other}"
    named |= {"alike": "all models less than 1 apart", "missing": "a verdict is missing"}
    passed = frozenset[str]().union(*(session.groups for session in page.sessions))
    return {name: words for name, words in named.items() if name in passed}
