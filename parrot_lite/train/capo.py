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
from parrot_lite.types import SessionTree


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
    sessions = [tree.dialogue for tree in read(file, SessionTree)] if recipe.capo.context == "other" else []
    for tree in read(file, SessionTree):
        others = [other for other in sessions if other.id != tree.id]
        if recipe.capo.context == "other" and not others:
            raise UserError("one session has no other session's history", str(file), "Set capo.context=query")
        branches = []
        for branch in tree.branches:
            query = tree.dialogue.before(branch.turn).turns[-1:]
            history = other_history(others, tree.id, branch.turn, recipe.run.seed) if others else ()
            context = branch.context or (*history, *query)
            branches.append(branch.model_copy(update={"context": context}))
        yield tree.model_copy(update={"branches": tuple(branches)})
