"""Forced choice: whether a model finds the chosen answer likelier, by log-prob a token, than each of its negatives.

A diagnostic beside context use. Negatives have another author than the chosen answer more often than not, and a model
that was trained on the chosen answers' author prefers it whatever the history says.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from parrot_lite.errors import UserError
from parrot_lite.evaluate import bench
from parrot_lite.evaluate.records import LEFT_OUT, Choice
from parrot_lite.lm.forest import Row, forests
from parrot_lite.lm.likelihood import answer_log_probs
from parrot_lite.lm.tokens import Renderer
from parrot_lite.recipe import Probe, Recipe
from parrot_lite.store import RunFolder, read
from parrot_lite.types import Branch, Dialogue, SessionTree

FIX = "Run negatives on the logs' file of eval.probe.split, or leave eval.probe.trees out"

Pair = tuple[Branch, Row, Row]  # the chosen answer's row, and the negative's


def check(recipe: Recipe, settings: Probe) -> None:
    """Raises UserError where ``settings.trees`` cannot be read, or no negative in it is of a held-out session."""
    if settings.trees is not None:
        heldout = _heldout(recipe, settings)
        if not any(tree.branches for tree in read(Path(settings.trees), SessionTree) if tree.id in heldout):
            raise UserError("holds no negative of a held-out session", settings.trees, FIX)


def _heldout(recipe: Recipe, settings: Probe) -> set[str]:
    return {one.id for one in read(bench.heldout_file(recipe, settings), Dialogue)}


def laid_down(recipe: Recipe, settings: Probe, renderer: Renderer, folder: RunFolder) -> list[tuple[str, list[Pair]]]:
    """By session, the pairs of ``settings.trees``; what is left out is counted in ``folder``.

    Raises UserError where no session of the file is held out: a model may have been trained on all others.
    """
    if settings.trees is None:
        return []
    heldout = _heldout(recipe, settings)
    found: list[tuple[str, list[Pair]]] = []
    for tree in read(Path(settings.trees), SessionTree):
        if tree.id not in heldout:
            folder.counts[f"{LEFT_OUT}session of eval.probe.trees that is not held out"] += 1
            continue
        pairs: list[Pair] = []
        for branch in tree.branches:
            context = tree.dialogue.before(branch.turn)
            chosen, negative = (renderer.row(context, text) for text in (tree.chosen(branch), branch.negative.text))
            if max(len(prompt) + len(answer) for prompt, answer in (chosen, negative)) > settings.max_tokens:
                folder.counts[f"{LEFT_OUT}pair of eval.probe.trees, longer than probe.max_tokens"] += 1
            else:
                pairs.append((branch, chosen, negative))
        if pairs:
            found.append((tree.id, pairs))
    if not found:
        what = "holds no negative of a held-out session that fits eval.probe.max_tokens"
        raise UserError(what, settings.trees, FIX)
    return found


@torch.inference_mode()
def chosen(model: Any, name: str, session: str, pairs: list[Pair], tree_tokens: int) -> list[Choice]:
    """What ``model`` makes of a session's pairs. Raises UserError where a log-prob is not a number."""
    rows = list(dict.fromkeys(row for _, *both in pairs for row in both))
    means: dict[Row, float] = {}
    for places, tree in forests(rows, tree_tokens):
        sums = answer_log_probs(model, tree).tolist()
        means |= {rows[place]: total / len(rows[place][1]) for place, total in zip(places, sums, strict=True)}
    if not all(map(math.isfinite, means.values())):
        raise UserError("a log-prob is not a number", f"{name}, dialogue {session}", "Try model.dtype")
    return [
        Choice(
            model=name,
            dialogue=session,
            turn=branch.turn,
            kind=branch.negative.kind,
            how=branch.negative.how,
            chosen=means[right],
            negative=means[wrong],
        )
        for branch, right, wrong in pairs
    ]
