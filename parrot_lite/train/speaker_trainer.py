"""SFT of one speaker over token trees: every session a trunk, the LM head at the trained tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments, set_seed

from parrot_lite.lm import attention
from parrot_lite.lm.model import load_trainable
from parrot_lite.lm.tokens import Example
from parrot_lite.lm.tree import TokenTree, joined
from parrot_lite.recipe import Recipe, Sft
from parrot_lite.store import RunFolder
from parrot_lite.train.trainer import TreeTrainer, arguments_of, conclude, fit, seed_of


def fit_speaker(recipe: Recipe, section: Sft, examples: Sequence[Example], folder: RunFolder) -> None:
    """SFT with a new adapter. Resumes from the newest whole checkpoint in ``folder``."""
    seed = seed_of(section, recipe.run)
    set_seed(seed)  # the adapter's initial weights
    model = load_trainable(recipe.model, None, section.lora, section.checkpointing)
    attention.use(model.get_base_model(), section.max_tokens)
    arguments = arguments_of(section, recipe.model, seed, folder.path, len(examples))

    def build(watch: TrainerCallback) -> SpeakerTrainer:
        return SpeakerTrainer(
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=examples,
            data_collator=collated,
            callbacks=[watch],
        )

    fit(build, model, folder, arguments["max_steps"])
    model.save_pretrained(folder.path / "adapter")
    conclude(folder, arguments["max_steps"])
    folder.facts["tokens"] = sum(len(e.ids) for e in examples)
    folder.facts["supervised_tokens"] = sum(len(answer) for e in examples for answer in e.tree.answers)


def collated(examples: Sequence[Example]) -> dict[str, Any]:
    """A batch: the sessions as one forest, with no padding, and the number of tokens that the loss is a mean over."""
    tree = joined([example.tree for example in examples])
    return {"tree": tree, "items": sum(map(len, tree.answers))}


class SpeakerTrainer(TreeTrainer):
    """Cross-entropy, a mean over all trained tokens of a step (paper sections 3.1 and 3.2)."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: int | None = None
    ) -> torch.Tensor:
        """The batch's part of the step's loss."""
        tree: TokenTree = inputs["tree"]
        return -self.log_probs(model, tree).sum() / (num_items_in_batch or inputs["items"])
