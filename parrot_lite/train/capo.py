"""CaPO (paper section 3.3): DPO of the SFT adapter against context negatives, the SFT adapter being the reference."""

from __future__ import annotations

from parrot_lite.recipe import Recipe
from parrot_lite.store import model_inputs, read, require, stage_folder
from parrot_lite.train.pairs import pairs
from parrot_lite.types import SessionTree


def run(recipe: Recipe, rerun: bool = False) -> None:
    """Train CaPO from the SFT adapter; the adapter then lies in the stage's folder under ``adapter/``."""
    section = recipe.capo
    trees = require(recipe, "negatives") / "trees.jsonl"
    adapter = require(recipe, "train-sft") / "adapter"
    inputs = {"trees": trees, "train-sft": adapter, **model_inputs(recipe.model)}
    with stage_folder(recipe, "train-capo", inputs, rerun) as folder:
        if folder is None:
            return
        from parrot_lite.lm.model import load_renderer
        from parrot_lite.train.trainer import fit_pairs

        renderer = load_renderer(recipe.model)
        fit_pairs(recipe, renderer, pairs(renderer, read(trees, SessionTree), section, folder), adapter, folder)
