"""The judge's scores as tables: by model, differences between models, by turn and by category, with coverage."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from parrot_lite.evaluate.estimates import Numbers, across, contrast_table, pairs, written
from parrot_lite.evaluate.records import Played
from parrot_lite.evaluate.statistics import Contrast, corrected
from parrot_lite.recipe import History
from parrot_lite.table import Table
from parrot_lite.types import NO_ANSWER, Judgment

CELLS = "Mean, its 95% interval over sessions, and judged turns of all turns asked."


def scores(judgments: Sequence[Judgment]) -> dict[str, dict[str, dict[int, float]]]:
    """Model -> session -> turn -> score, of the turns that have one."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for judgment in judgments:
        if judgment.score is not None:
            found[judgment.model][judgment.dialogue][judgment.turn] = judgment.score
    return {model: dict(sessions) for model, sessions in found.items()}


def overall(models: Sequence[str], judgments: Sequence[Judgment], played: Sequence[Played], numbers: Numbers) -> Table:
    """One row a model."""
    found = scores(judgments)
    asked = Counter(judgment.model for judgment in judgments)
    rows = []
    for model in models:
        own = found.get(model, {})
        judged = f"{sum(map(len, own.values()))}/{asked[model]} judged"
        rows.append((model, written(numbers.mean(own), ".2f"), judged, _length(model, played)))
    missing = Counter(judgment.reason for judgment in judgments if judgment.score is None)
    note = (
        "Score: mean over the judged turns, each judged over the transcript up to it. An unjudged turn counts as "
        "missing, never as a low score."
    )
    head = ("Model", "Score [95%]", "Turns", "Tokens/answer")
    return Table("Judge score, 1 to 10", head, tuple(rows), (note + _reasons(missing),), main=True)


def compared(
    models: Sequence[str], histories: Sequence[History], judgments: Sequence[Judgment], numbers: Numbers
) -> dict[tuple[str, str], Contrast]:
    """(player, other) -> their contrast, corrected as one family; pairs without turns judged in both are left out."""
    found = scores(judgments)
    made = {(one, other): numbers.contrast(found[one], found[other]) for one, other in pairs(models, histories, found)}
    return corrected({pair: one for pair, one in made.items() if one is not None})


def differences(
    models: Sequence[str],
    histories: Sequence[History],
    judgments: Sequence[Judgment],
    numbers: Numbers,
    effect: float,
) -> list[Table]:
    """One row a contrast, with what it takes to show ``effect`` score points; no table where nothing is in both."""
    made = compared(models, histories, judgments, numbers)
    asked = len({(one.dialogue, one.turn) for one in judgments})
    rows = {f"{model} minus {other}": (one, f"{one.difference.values}/{asked}") for (model, other), one in made.items()}
    if not rows:
        return []
    note = "Turns: judged in both, of all asked."
    return [replace(contrast_table("Judge score: differences", rows, "Points", ".2f", effect, (note,)), main=True)]


def _reasons(missing: Counter[str | None]) -> str:
    listed = "; ".join(f"{count} x {(reason or '?')[:80]}" for reason, count in missing.most_common(3))
    return f" Missing: {listed}." if listed else ""


def _length(model: str, played: Sequence[Played]) -> str:
    own = [one for one in played if one.model == model]
    answers = sum(len(one.dialogue.answers) for one in own)
    counts = [one.tokens for one in own if one.tokens is not None]
    return f"{sum(counts) / answers:.0f}" if answers and len(counts) == len(own) else "-"


def by_turn(models: Sequence[str], judgments: Sequence[Judgment], numbers: Numbers) -> list[Table]:
    """Turns down, models across."""
    groups = {str(turn): [j for j in judgments if j.turn == turn] for turn in sorted({j.turn for j in judgments})}
    notes = _missing_notes(models, judgments)
    return _across("Judge score by turn", "Turn", models, {**groups, "all": judgments}, numbers, notes)


def by_category(models: Sequence[str], judgments: Sequence[Judgment], numbers: Numbers) -> list[Table]:
    """Categories down, models across; no table where there is one category."""
    names = sorted({judgment.category for judgment in judgments})
    if len(names) < 2:
        return []
    groups = {name: [j for j in judgments if j.category == name] for name in names}
    return _across("Judge score by category", "Category", models, groups, numbers, (CELLS,))


def _across(
    title: str,
    what: str,
    models: Sequence[str],
    groups: Mapping[str, Sequence[Judgment]],
    numbers: Numbers,
    notes: tuple[str, ...],
) -> list[Table]:
    """Groups of judgments down, models across."""
    return across(title, what, models, list(groups), lambda name, model: _cell(model, groups[name], numbers), notes)


def _cell(model: str, group: Sequence[Judgment], numbers: Numbers) -> str:
    own = [one for one in group if one.model == model]
    found = scores(own).get(model, {})
    return f"{written(numbers.mean(found), '.2f')} {sum(map(len, found.values()))}/{len(own)}"


def _missing_notes(models: Sequence[str], judgments: Sequence[Judgment]) -> tuple[str, ...]:
    judged = {
        model: {(j.dialogue, j.turn) for j in judgments if j.model == model and j.score is not None} for model in models
    }
    asked = {(j.dialogue, j.turn) for j in judgments}
    if all(turns == asked for turns in judged.values()):
        return (CELLS,)
    counts = ", ".join(f"{model} {len(turns)}/{len(asked)}" for model, turns in judged.items())
    same = len({frozenset(turns) for turns in judged.values()}) == 1
    effect = "every mean leaves them out" if same else "the models' means are over different turns"
    unanswered = sum((one.reason or "").startswith(NO_ANSWER) for one in judgments)
    late = (
        f" {unanswered} had no answer: hardly at random, as a full context ends a session early." if unanswered else ""
    )
    paired = "The differences are paired: over the same turns of both."
    return CELLS, f"Turns are missing (judged: {counts}): {effect}.{late} {paired}"
