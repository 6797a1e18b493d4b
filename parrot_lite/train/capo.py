"""CaPO (paper section 3.3): DPO of the SFT adapter against context negatives, the SFT adapter being the reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from parrot_lite.context import other_history
from parrot_lite.errors import UserError
from parrot_lite.recipe import Recipe
from parrot_lite.store import count, model_inputs, read, require, stage_folder
from parrot_lite.train.packing import packed
from parrot_lite.train.pairs import pairs
from parrot_lite.types import SessionTree, Turn


def run(recipe: Recipe, rerun: bool = False) -> None:
    """Train CaPO from the SFT adapter; the adapter then lies in the stage's folder under ``adapter/``."""
    section = recipe.capo
    file = require(recipe, "negatives") / "trees.jsonl"
    adapter = require(recipe, "train-sft") / "adapter"
    inputs = {"trees": file, "train-sft": adapter, **model_inputs(recipe.model)}
    with stage_folder(recipe, "train-capo", inputs, rerun) as folder:
        if folder is None:
            return
        from parrot_lite.lm.model import load_renderer

        renderer, trees = load_renderer(recipe.model), in_context(recipe, file)
        if section.layout == "tree":
            from parrot_lite.train.capo_trainer import fit_trees

            fit_trees(recipe, packed(renderer, trees, section, folder, count(file)), adapter, folder)
        else:
            from parrot_lite.train.pair_trainer import fit_pairs

            fit_pairs(recipe, renderer, pairs(renderer, trees, section, folder), adapter, folder)


def in_context(recipe: Recipe, file: Path) -> Iterator[SessionTree]:
    """The trees of ``file``, their pairs under the context that ``capo.context`` names.

    A branch that brings a context of its own keeps it. Raises UserError where there is no other session.
    """
    if recipe.capo.context == "session":
        yield from read(file, SessionTree)
        return
    other = recipe.capo.context == "other"
    sessions = [tree.dialogue for tree in read(file, SessionTree)] if other else []
    if other and len({session.id for session in sessions}) < 2:
        raise UserError("one session has no other session's history", str(file), "Set capo.context=query")
    for tree in read(file, SessionTree):
        contexts: dict[int, tuple[Turn, ...]] = {}  # the kinds of a turn share it
        for turn in {branch.turn for branch in tree.branches}:
            history = other_history(sessions, tree.id, turn, recipe.run.seed) if other else ()
            contexts[turn] = (*history, tree.dialogue.before(turn).turns[-1])
        branches = [b if b.context else b.model_copy(update={"context": contexts[b.turn]}) for b in tree.branches]
        yield tree.model_copy(update={"branches": tuple(branches)})
