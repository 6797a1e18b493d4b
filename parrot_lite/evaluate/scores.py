"""The judge's scores as tables: by model, and by turn, with coverage."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence

from parrot_lite.evaluate.estimates import DETECTABLE, Numbers, against, baselines, written
from parrot_lite.evaluate.records import Played
from parrot_lite.table import Table
from parrot_lite.types import NO_ANSWER, Judgment

CELL = 28  # "10.00 [10.00, 10.00] 128/128"
ACROSS = 3  # such cells in a row


def scores(judgments: Sequence[Judgment]) -> dict[str, dict[str, dict[int, float]]]:
    """Model -> session -> turn -> score, of the turns that have one."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for judgment in judgments:
        if judgment.score is not None:
            found[judgment.model][judgment.dialogue][judgment.turn] = judgment.score
    return {model: dict(sessions) for model, sessions in found.items()}


def overall(models: Sequence[str], judgments: Sequence[Judgment], played: Sequence[Played], numbers: Numbers) -> Table:
    """One row a model, and one for each difference from a baseline."""
    found = scores(judgments)
    asked = Counter(judgment.model for judgment in judgments)
    rows = []
    for model in models:
        own = found.get(model, {})
        judged = f"{sum(map(len, own.values()))}/{asked[model]} judged"
        rows.append((model, written(numbers.mean(own), ".2f"), judged, _length(model, played)))
        for other in baselines(model, [one for one in models if one in found]):
            paired = numbers.difference(own, found[other])
            both = f"{paired.values if paired else 0} in both"
            rows.append((f"  minus {other}", against(paired, ".2f"), both, ""))
    missing = Counter(judgment.reason for judgment in judgments if judgment.score is None)
    return Table(
        "Judge score, 1 to 10",
        ("Model", "Score [95%]", "Turns", "Tokens/answer"),
        tuple(rows),
        (
            "Score: mean over the judged turns, each judged over the transcript up to it. An unjudged turn counts as "
            "missing, never as a low score." + _reasons(missing),
            "Minus: over the turns judged in both, paired. " + DETECTABLE,
        ),
    )


def _reasons(missing: Counter[str | None]) -> str:
    listed = "; ".join(f"{count} x {(reason or '?')[:80]}" for reason, count in missing.most_common(3))
    return f" Missing: {listed}." if listed else ""


def _length(model: str, played: Sequence[Played]) -> str:
    own = [one for one in played if one.model == model]
    answers = sum(len(one.dialogue.answers) for one in own)
    counts = [one.tokens for one in own if one.tokens is not None]
    return f"{sum(counts) / answers:.0f}" if answers and len(counts) == len(own) else "-"


def by_turn(models: Sequence[str], judgments: Sequence[Judgment], numbers: Numbers) -> list[Table]:
    """Turns down, models across: as many models a table as fit in its width."""
    title, notes = "Judge score by turn", _turn_notes(models, judgments)
    blocks = [models[start : start + ACROSS] for start in range(0, len(models), ACROSS)]
    tables = []
    for number, block in enumerate(blocks, 1):
        rows = [(str(turn), *_turn(block, judgments, turn, numbers)) for turn in sorted({j.turn for j in judgments})]
        rows.append(("all", *_turn(block, judgments, None, numbers)))
        head = ("Turn", *("\n".join(textwrap.wrap(model, CELL)) for model in block))
        part = f", part {number} of {len(blocks)}" if len(blocks) > 1 else ""
        tables.append(Table(title + part, head, tuple(rows), notes if number == len(blocks) else ()))
    return tables


def _turn(models: Sequence[str], judgments: Sequence[Judgment], turn: int | None, numbers: Numbers) -> list[str]:
    cells = []
    for model in models:
        own = [one for one in judgments if one.model == model and turn in (one.turn, None)]
        found = scores(own).get(model, {})
        cells.append(f"{written(numbers.mean(found), '.2f')} {sum(map(len, found.values()))}/{len(own)}")
    return cells


def _turn_notes(models: Sequence[str], judgments: Sequence[Judgment]) -> tuple[str, ...]:
    note = "Mean, its 95% interval over sessions, and judged turns of all turns asked."
    judged = {
        model: {(j.dialogue, j.turn) for j in judgments if j.model == model and j.score is not None} for model in models
    }
    asked = {(j.dialogue, j.turn) for j in judgments}
    if all(turns == asked for turns in judged.values()):
        return (note,)
    counts = ", ".join(f"{model} {len(turns)}/{len(asked)}" for model, turns in judged.items())
    same = len({frozenset(turns) for turns in judged.values()}) == 1
    effect = "every mean leaves them out" if same else "the models' means are over different turns"
    unanswered = sum((one.reason or "").startswith(NO_ANSWER) for one in judgments)
    late = (
        f" {unanswered} had no answer: hardly at random, as a full context ends a session early." if unanswered else ""
    )
    paired = "The differences are paired: over the same turns of both."
    return note, f"Turns are missing (judged: {counts}): {effect}.{late} {paired}"
