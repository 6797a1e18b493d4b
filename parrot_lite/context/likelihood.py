"""The likelihood's detector: how much less likely the session's answer becomes under another history.

The answer is scored under the true history and under three spoiled ones: ``swapped`` for another session's,
``shortened`` by its last exchange, ``withheld``. All four ways to one answer are one token tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from parrot_lite.context import Asked, Verdict
from parrot_lite.context.histories import histories, other_history
from parrot_lite.lm import attention
from parrot_lite.lm.forest import forest
from parrot_lite.lm.likelihood import answer_log_probs
from parrot_lite.lm.model import load_for_inference, load_renderer
from parrot_lite.recipe import Dependence, Recipe, Spoiled
from parrot_lite.types import Dialogue, Turn, derive_seed


class Likelihood:
    """The recipe's base model as a detector. Histories to swap in come from ``sessions``."""

    def __init__(self, recipe: Recipe, settings: Dependence, sessions: Sequence[Dialogue]) -> None:
        self._settings, self._sessions = settings, sessions
        self._seed = derive_seed(recipe.run.seed, "dependence")
        self._renderer = load_renderer(recipe.model)
        self._model = load_for_inference(recipe.model, None).requires_grad_(False)
        attention.use(self._model, settings.max_tokens)

    def __call__(self, asked: Sequence[Asked]) -> list[Verdict]:
        """One verdict a query; None where it has no answer, no history, or a longer one than ``max_tokens``."""
        return [self._verdict(one) for one in asked]

    @torch.inference_mode()
    def _verdict(self, asked: Asked) -> Verdict:
        said = Verdict(detector="likelihood", session=asked.id, turn=asked.turn, why="no answer to score")
        if asked.answer is None or not asked.history:
            return said
        try:
            ways = histories(asked.history, other_history(self._sessions, asked.id, asked.turn, self._seed))
        except ValueError:
            return said.model_copy(update={"why": "no other session to swap with"})
        query = Turn(role="user", content=asked.query.strip())
        contexts = [Dialogue(id=asked.id, source="dependence", turns=(*history, query)) for history in ways.values()]
        rows = [self._renderer.row(context, asked.answer) for context in contexts]
        tree = forest(rows)
        if tree.context > self._settings.max_tokens:
            return said.model_copy(update={"why": "longer than dependence.max_tokens"})
        log_probs = answer_log_probs(self._model, tree).tolist()
        scores = dict(zip(ways, (total / len(rows[0][1]) for total in log_probs), strict=True))
        return said.model_copy(update=_decide(scores, self._settings.nats))


def _decide(scores: Mapping[str, float], nats: Mapping[Spoiled, float]) -> dict[str, Any]:
    """Dependent where every history of ``nats`` costs the answer that many nats a token."""
    costs = {name: scores["true"] - score for name, score in scores.items() if name != "true"}
    return {
        "dependent": all(costs[name] >= least for name, least in nats.items()),
        "why": ", ".join(f"{name} {costs[name]:+.3f}" for name in nats),
        "scores": {name: round(score, 5) for name, score in scores.items()},
    }
