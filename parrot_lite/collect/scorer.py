"""A model's verdict on a negative: whether it is less likely than its chosen answer under the true history.

What the answers of a session's pairs share is laid down once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parrot_lite.chat import adapter_inputs
from parrot_lite.collect.authors import Failed
from parrot_lite.collect.verdicts import Verdict, branch_id
from parrot_lite.errors import UserError
from parrot_lite.lm.forest import Row, forest
from parrot_lite.recipe import Local, Recipe
from parrot_lite.types import SessionTree

if TYPE_CHECKING:
    from parrot_lite.lm.tokens import Renderer
    from parrot_lite.lm.tree import TokenTree


def by_likelihood(recipe: Recipe, scorer: Local) -> Callable[[SessionTree], list[Verdict | Failed]]:
    """What gives a session's verdicts: worse is what has a lower log-prob a token than the chosen answer.

    It raises UserError where a log-prob is not a number.
    """
    import torch

    from parrot_lite.lm import attention
    from parrot_lite.lm.likelihood import answer_log_probs
    from parrot_lite.lm.model import load_for_inference, load_renderer

    adapter = next(iter(adapter_inputs(scorer, recipe).values()), None)
    model: Any = load_for_inference(recipe.model, adapter).requires_grad_(False)
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = causal.config.get_text_config()
    longest: int = min(config.max_position_embeddings, getattr(config, "sliding_window", None) or sys.maxsize)
    attention.use(causal, longest)
    renderer = load_renderer(recipe.model)

    def scored(tree: SessionTree) -> list[Verdict | Failed]:
        token_tree, places = laid_down(renderer, tree, longest)
        means: list[float] = []
        if token_tree is not None:
            with torch.no_grad():
                sums = answer_log_probs(model, token_tree).tolist()
            means = [total / len(answer) for total, answer in zip(sums, token_tree.answers, strict=True)]
        found: list[Verdict | Failed] = []
        for branch in tree.branches:
            name = branch_id(tree, branch)
            if (pair := places.get(name)) is None:
                found.append(Verdict(id=name, worse=None, reason="longer than the scorer's context"))
                continue
            chosen, negative = (means[place] for place in pair)
            if not (math.isfinite(chosen) and math.isfinite(negative)):
                raise UserError("a log-prob under the scorer is not a number", name, "Try model.dtype")
            found.append(Verdict(id=name, worse=negative < chosen, log_probs=(chosen, negative)))
        return found

    return scored


def laid_down(
    renderer: Renderer, tree: SessionTree, longest: int
) -> tuple[TokenTree | None, dict[str, tuple[int, int]]]:
    """Every answer of the session's pairs under its history, as one token tree; None where there is none.

    Beside it, by the name of a negative, the places of its chosen answer and of itself among the tree's answers. Pairs
    that do not fit ``longest`` tokens are not in it. Raises UserError where a prompt's tokens are not the beginning of
    prompt and answer.
    """
    places: dict[str, tuple[int, int]] = {}
    rows: dict[Row, int] = {}  # the kinds of a turn share their chosen answer
    for branch in tree.branches:
        context = tree.dialogue.before(branch.turn)
        pair = [renderer.row(context, text) for text in (tree.chosen(branch), branch.negative.text)]
        if all(len(prompt) + len(answer) <= longest for prompt, answer in pair):
            chosen, negative = (rows.setdefault(row, len(rows)) for row in pair)
            places[branch_id(tree, branch)] = chosen, negative
    return (forest(list(rows)) if rows else None), places
