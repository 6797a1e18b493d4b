"""CaPO in the usual layout, a row for each chosen and each rejected answer, by TRL: the tree's independent oracle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from transformers import TrainerCallback, set_seed
from trl.trainer.dpo_trainer import DataCollatorForPreference

from parrot_lite.lm.model import load_trainable
from parrot_lite.lm.tokens import Renderer
from parrot_lite.progress import console, say
from parrot_lite.recipe import Capo, Lora, Recipe
from parrot_lite.store import RunFolder
from parrot_lite.train.losses import dpo_loss, per_token
from parrot_lite.train.metrics import per_kind
from parrot_lite.train.pairs import Pair
from parrot_lite.train.trainer import arguments_of, conclude, fit, seed_of


def fit_pairs(recipe: Recipe, renderer: Renderer, pairs: Sequence[Pair], adapter: Path, folder: RunFolder) -> None:
    """DPO by TRL, continuing ``adapter``. Resumes from the newest whole checkpoint in ``folder``."""
    section = recipe.capo
    disable_progress_bar()
    if not console.is_terminal:
        os.environ.setdefault("TQDM_DISABLE", "1")
    seed = seed_of(section, recipe.run)
    set_seed(seed)
    # A PeftModel that is passed in gets a frozen copy named "ref" as its reference. With a peft_config instead, TRL
    # would take "adapters off" as the reference: the bare base, which never saw SFT.
    model = load_trainable(recipe.model, adapter, Lora(), section.checkpointing)
    arguments = arguments_of(section, recipe.model, seed, folder.path, len(pairs))

    def build(watch: TrainerCallback) -> PairTrainer:
        say(f"train-capo: log-probs of {len(pairs)} pairs under the reference, the SFT adapter")
        return pair_trainer(section, model, renderer, pairs, arguments, watch)

    fit(build, model, folder, arguments["max_steps"])
    model.save_pretrained(folder.path / "adapter", selected_adapters=["default"])
    conclude(folder, arguments["max_steps"])
    folder.facts["pairs"] = len(pairs)
    folder.facts["tokens"] = sum(2 * len(p.prompt) + len(p.chosen) + len(p.rejected) for p in pairs)


def pair_trainer(
    section: Capo,
    model: Any,
    renderer: Renderer,
    pairs: Sequence[Pair],
    arguments: dict[str, Any],
    callback: TrainerCallback,
) -> PairTrainer:
    """TRL's trainer of these pairs, its reference being ``model`` as it stands; scores them under it at once."""
    sft = ["sft"] if section.sft_weight else []
    rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected, "kind": p.kind} for p in pairs]
    return PairTrainer(
        model=model,
        args=trl.DPOConfig(
            **arguments,
            beta=section.beta,
            loss_type=["sigmoid_norm" if section.length_normalised else "sigmoid", *sft],
            loss_weights=[section.dpo_weight, *(section.sft_weight for _ in sft)],
            max_length=None,  # the default of 1024 drops late-turn pairs
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=PairPadding(pad_token_id=pad_of(renderer)),
        processing_class=renderer.tokenizer,
        callbacks=[callback],
    )


def pad_of(renderer: Renderer) -> int:
    """The id that fills a batch up; it is masked everywhere, so the end of text serves where there is no own one."""
    tokenizer = renderer.tokenizer
    pad: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return pad


class PairPadding(DataCollatorForPreference):  # type: ignore[misc]  # trl is untyped here
    """TRL's collator, keeping each pair's kind beside the tensors."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pairs → the tensors of TRL, and ``kinds``, a list."""
        return {**super().torch_call(examples), "kinds": [example.get("kind") for example in examples]}


class PairTrainer(trl.DPOTrainer):  # type: ignore[misc]  # trl is untyped here
    """``DPOTrainer`` on pairs that are ids already, with its metrics a negative kind.

    Logs what ``metrics.per_kind`` names beside TRL's own means.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Over a 4-bit base TRL rounds every trainable weight to bfloat16, behind the copy it made for the reference.
        # Training starts from the SFT adapter as it is.
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.data = self.model.get_parameter(name.replace(".default.", ".ref.")).data.clone()

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """TRL's, which hands every key that it does not know to the model."""
        return super().compute_ref_log_probs(model, {key: value for key, value in inputs.items() if key != "kinds"})

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any) -> Any:
        """TRL's loss; the policy's log-probs are read from its forward pass as it goes by."""
        kinds = inputs.pop("kinds")
        passes: list[Any] = []
        hook = model.register_forward_hook(lambda _module, _inputs, output: passes.append(output))
        try:
            loss = super().compute_loss(model, inputs, return_outputs, **options)
        finally:
            hook.remove()
        with torch.no_grad():
            chosen, rejected = passes[0].log_probs.float().sum(dim=1).chunk(2)
            reference = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
            sides = [chosen, rejected, *reference]
            if "sigmoid_norm" in self.loss_types:
                tokens = inputs["completion_mask"].sum(dim=1).chunk(2)
                sides = [per_token(side, tokens[i % 2]) for i, side in enumerate(sides)]
            _, margins = dpo_loss(sides[0], sides[1], sides[2], sides[3], self.beta)
        rows = (margins, chosen, rejected, reference[0])
        for name, value in per_kind(kinds, *(row.tolist() for row in rows)):
            self._metrics["train"][name].append(value)
        return loss
