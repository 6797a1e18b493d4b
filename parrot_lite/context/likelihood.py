"""The likelihood's detector: how much less likely the session's answer becomes under another history.

The answer is scored under the true history and under three spoiled ones: ``swapped`` for another session's,
``shortened`` by its last exchange, ``withheld``. All four ways to one answer are one token tree: what they share with
the true one is laid down once.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from parrot_lite.context import Asked, Verdict, other_history
from parrot_lite.lm import attention
from parrot_lite.lm.likelihood import answer_log_probs
from parrot_lite.lm.model import load_for_inference, load_renderer
from parrot_lite.lm.tokens import Renderer
from parrot_lite.lm.tree import Answer, Limb, TokenTree
from parrot_lite.recipe import Dependence, Recipe, Spoiled
from parrot_lite.types import Dialogue, Turn, derive_seed

Row = tuple[tuple[int, ...], tuple[int, ...]]  # prompt and answer


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
            ways = histories(asked, other_history(self._sessions, asked.id, asked.turn, self._seed))
        except ValueError:
            return said.model_copy(update={"why": "no other session to swap with"})
        rows = [row(self._renderer, asked, history) for history in ways.values()]
        tree = grown(rows)
        if tree.context > self._settings.max_tokens:
            return said.model_copy(update={"why": "longer than dependence.max_tokens"})
        log_probs = answer_log_probs(self._model, tree).tolist()
        scores = dict(zip(ways, (total / len(rows[0][1]) for total in log_probs), strict=True))
        return said.model_copy(update=_decide(scores, self._settings.nats))


def histories(asked: Asked, other: Sequence[Turn]) -> dict[str, tuple[Turn, ...]]:
    """The true history and the spoiled ones, by name. A history of one exchange is withheld when shortened."""
    return {"true": asked.history, "swapped": tuple(other), "shortened": asked.history[:-2], "withheld": ()}


def row(renderer: Renderer, asked: Asked, history: Sequence[Turn]) -> Row:
    """The ids of the query under a history, and those of the answer with its end-of-turn mark."""
    assert asked.answer is not None
    turns = (*history, Turn(role="user", content=asked.query.strip()))
    context = Dialogue(id=asked.id, source="dependence", turns=turns)
    prompt = renderer.prompt(context)
    return tuple(prompt), renderer.answer(context, prompt, asked.answer)


def grown(rows: Sequence[Row]) -> TokenTree:
    """The first row as the trunk, every other one a branch from where its prompt leaves the trunk's."""
    ids: array[int] = array("i")
    limbs: list[Limb] = []
    answers: list[Answer] = []
    trunk = rows[0][0]
    for prompt, answer in rows:
        shared = 0 if not limbs else _shared(trunk, prompt)
        start = len(ids)
        ids.extend(prompt[shared:] + answer)
        # A branch that shares nothing is a trunk of its own.
        limbs.append(Limb(0, shared, start, len(ids)) if shared else Limb(start, start, start, len(ids)))
        first = len(ids) - len(answer)
        answers.append(Answer(first, len(ids), first - 1 if first > start else shared - 1))
    return TokenTree(ids, tuple(limbs), tuple(answers))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _decide(scores: Mapping[str, float], nats: Mapping[Spoiled, float]) -> dict[str, Any]:
    """Dependent where every history of ``nats`` costs the answer that many nats a token."""
    costs = {name: scores["true"] - score for name, score in scores.items() if name != "true"}
    return {
        "dependent": all(costs[name] >= least for name, least in nats.items()),
        "why": ", ".join(f"{name} {costs[name]:+.3f}" for name in nats),
        "scores": {name: round(score, 5) for name, score in scores.items()},
    }
