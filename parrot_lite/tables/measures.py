"""What a row's evaluation says, as one value a session or turn: the same sessions and turns in every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from parrot_lite.evaluate.conclusions import Scale
from parrot_lite.evaluate.context_use import cells, later, per_token, pmi
from parrot_lite.evaluate.records import Likelihood, Played
from parrot_lite.evaluate.repetition import repeated
from parrot_lite.evaluate.scores import scores
from parrot_lite.evaluate.statistics import Values
from parrot_lite.recipe import Recipe
from parrot_lite.store import read, require_unchanged
from parrot_lite.tables.sheet import UNITS, Measure
from parrot_lite.types import Condition, Judgment

FORMS = {"nats a token": "z.3f", "points": "z.2f", "share of 4-grams": "z.3f"}


@dataclass(frozen=True)
class Evaluated:
    """What the evaluation of one row wrote about its one model."""

    model: str
    likelihoods: tuple[Likelihood, ...]
    judgments: tuple[Judgment, ...]
    played: tuple[Played, ...]

    def values(self, measure: Measure) -> Values:
        """Session -> turn -> value; empty where it was not measured."""
        return VALUES[measure](self)


def evaluated(recipe: Recipe) -> Evaluated:
    """The finished evaluation of a row. Raises UserError where it is unfinished or of another recipe."""
    folder = require_unchanged(recipe, "eval")
    (model,) = recipe.eval.models
    probed, judged = folder / "likelihoods.jsonl", folder / "judgments.jsonl"
    return Evaluated(
        model,
        tuple(read(probed, Likelihood)) if recipe.eval.probe is not None and probed.exists() else (),
        tuple(read(judged, Judgment)) if recipe.eval.judge is not None else (),
        tuple(read(folder / "answers.jsonl", Played)),
    )


def _pmi(condition: Condition, dependent: bool) -> Callable[[Evaluated], Values]:
    return lambda one: pmi(cells(one.likelihoods, one.model, later("session", dependent)), condition)


def _score(one: Evaluated, turns: int | None = None) -> Values:
    given = [judgment for judgment in one.judgments if turns is None or judgment.turn <= turns]
    return scores(given).get(one.model, {})


def _repetition(one: Evaluated) -> Values:
    return {
        played.dialogue.id: {
            turn: share for turn, text in enumerate(played.dialogue.answers, 1) if (share := repeated(text)) is not None
        }
        for played in one.played
        if played.model == one.model
    }


VALUES: Mapping[Measure, Callable[[Evaluated], Values]] = {
    "PMI-swap": _pmi("swapped", True),
    "PMI-last": _pmi("shortened", True),
    "PMI-none": _pmi("withheld", True),
    "PMI-swap self-contained": _pmi("swapped", False),
    "PMI-last self-contained": _pmi("shortened", False),
    "NLL": lambda one: per_token(cells(one.likelihoods, one.model, later("session")), "true"),
    "score": _score,
    "score of turns 1-2": lambda one: _score(one, 2),
    "repetition": _repetition,
}
MEANING: Mapping[Measure, str] = {
    "PMI-swap": "NLL of the session's answer under another session's history minus under its own, at dependent turns; "
    "higher = uses its history more, or tells topics apart.",
    "PMI-last": "the same with the history's last exchange removed, so that the topic stays: the stricter one; from "
    "turn 3 on.",
    "PMI-none": "the same with no history at all.",
    "PMI-swap self-contained": "PMI-swap at turns that stand alone.",
    "PMI-last self-contained": "PMI-last at turns that stand alone.",
    "NLL": "how unlikely the session's answers are under their true history; lower = likelier. A guard.",
    "score": "the judge's, 1 to 10, over all turns.",
    "score of turns 1-2": "the judge's over the first two turns, as MT-Bench has them.",
    "repetition": "share of an answer's runs of four words that it has had before. A guard.",
}


def scale(measure: Measure, caveat: str = "") -> Scale:
    """How a difference in this measure is spoken of."""
    unit = UNITS[measure]
    more, less = {
        "NLL": ("the true answers become less likely", "the true answers become likelier"),
        "score": ("judged better", "judged worse"),
        "score of turns 1-2": ("judged better", "judged worse"),
        "repetition": ("repeats itself more", "repeats itself less"),
    }.get(measure, ("uses its history more", "uses its history less"))
    return Scale(unit, FORMS[unit], more, less, caveat)
