"""CaPO over token trees: one forward pass for sessions and all their negatives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments, set_seed

from parrot_lite.lm import attention
from parrot_lite.lm.model import device_of, dtype_of, load_trainable
from parrot_lite.lm.tree import TokenTree, joined
from parrot_lite.recipe import Capo, Lora, Recipe
from parrot_lite.store import RunFolder
from parrot_lite.train.losses import dpo_loss, nll_per_token, per_token, session_means
from parrot_lite.train.metrics import per_kind
from parrot_lite.train.packing import Packed
from parrot_lite.train.reference import cache_path, reference_log_probs
from parrot_lite.train.trainer import TreeTrainer, arguments_of, conclude, fit, seed_of
from parrot_lite.types import Kind


def fit_trees(recipe: Recipe, packed: Sequence[Packed], adapter: Path, folder: RunFolder) -> None:
    """CaPO, continuing ``adapter``. Resumes from the newest whole checkpoint in ``folder``."""
    section = recipe.capo
    seed = seed_of(section, recipe.run)
    set_seed(seed)
    model = load_trainable(recipe.model, adapter, Lora(), section.checkpointing)
    attention.use(model.get_base_model(), section.max_tokens)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # policy and reference are compared: neither may be noisy
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    arguments = arguments_of(section, recipe.model, seed, folder.path, len(packed))

    def build(watch: TrainerCallback) -> CapoTrainer:
        # The adapter as it was loaded is the reference. "Adapters off" would be the bare base, which never saw SFT.
        with torch.autocast(
            device_of(recipe.model).type, dtype_of(recipe.model), enabled=arguments["bf16"] or arguments["fp16"]
        ):
            path = cache_path(recipe, adapter, getattr(model.config, "_commit_hash", None))
            reference = reference_log_probs(model, [one.tree for one in packed], path, folder.stage)
        return CapoTrainer(
            section=section,
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=list(zip(packed, reference, strict=True)),
            data_collator=collated,
            callbacks=[watch],
        )

    fit(build, model, folder, arguments["max_steps"])
    model.save_pretrained(folder.path / "adapter")
    conclude(folder, arguments["max_steps"])
    folder.facts["sessions"] = len(packed)
    folder.facts["pairs"] = sum(len(one.contrasts) for one in packed)
    folder.facts["tokens"] = sum(len(one.tree) for one in packed)
    folder.facts["tokens_in_pairs_layout"] = sum(one.pair_tokens for one in packed)


@dataclass(frozen=True)
class Batch:
    """Sessions as one forest: their pairs as places among its answers, and every answer's reference log-prob."""

    tree: TokenTree
    reference: tuple[float, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    kinds: tuple[Kind, ...]
    sessions: tuple[int, ...]  # of each pair, from 0


def collated(rows: Sequence[tuple[Packed, tuple[float, ...]]]) -> dict[str, Any]:
    """A batch: the sessions as one forest, and the number of sessions that the loss is a mean over."""
    chosen: list[int] = []
    rejected: list[int] = []
    before = 0
    for one, _ in rows:
        chosen += (before + contrast.chosen for contrast in one.contrasts)
        rejected += (before + contrast.rejected for contrast in one.contrasts)
        before += len(one.tree.answers)
    batch = Batch(
        joined([one.tree for one, _ in rows]),
        tuple(value for _, reference in rows for value in reference),
        tuple(chosen),
        tuple(rejected),
        tuple(contrast.kind for one, _ in rows for contrast in one.contrasts),
        tuple(session for session, (one, _) in enumerate(rows) for _ in one.contrasts),
    )
    return {"batch": batch, "items": len(rows)}


class CapoTrainer(TreeTrainer):
    """DPO of every pair, a mean over each session's pairs, a mean over all sessions of a step.

    Logs ``<kind>/margin``, ``accuracy``, ``chosen``, ``rejected`` and ``chosen_change``, means over a step's pairs.
    """

    def __init__(self, section: Capo, **options: Any) -> None:
        super().__init__(**options)
        self._section = section
        self._metrics: dict[str, list[float]] = defaultdict(list)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: int | None = None
    ) -> torch.Tensor:
        """The batch's part of the step's loss."""
        batch: Batch = inputs["batch"]
        section = self._section
        policy = self.log_probs(model, batch.tree)
        reference = policy.new_tensor(batch.reference)
        lengths = policy.new_tensor([len(answer) for answer in batch.tree.answers])
        chosen, rejected = torch.tensor(batch.chosen), torch.tensor(batch.rejected)
        scored = (policy, reference)
        if section.length_normalised:
            scored = (per_token(policy, lengths), per_token(reference, lengths))
        losses, margins = dpo_loss(
            scored[0][chosen], scored[0][rejected], scored[1][chosen], scored[1][rejected], section.beta
        )
        sessions = torch.tensor(batch.sessions, device=policy.device)
        weights = policy.new_tensor([section.weights.get(kind, 1.0) for kind in batch.kinds])
        per_session = section.dpo_weight * session_means(losses, sessions, weights)
        if section.sft_weight:
            # An answer that several negatives are contrasted with is still one text.
            homes = dict(zip(batch.chosen, batch.sessions, strict=True))
            once = torch.tensor(list(homes))
            owners = torch.tensor(list(homes.values()), device=policy.device)
            nll = nll_per_token(policy[once], lengths[once], owners)
            per_session = per_session + section.sft_weight * nll
            self._metrics["nll"] += nll.tolist()
        detached = policy.detach()
        for name, value in per_kind(
            batch.kinds,
            margins.tolist(),
            detached[chosen].tolist(),
            detached[rejected].tolist(),
            reference[chosen].tolist(),
        ):
            self._metrics[name].append(value)
        return per_session.sum() / (num_items_in_batch or inputs["items"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's, with the means since the last log."""
        logs.update((name, sum(values) / len(values)) for name, values in self._metrics.items())
        self._metrics.clear()
        super().log(logs, start_time)
