"""What SFT and CaPO ask of ``transformers.Trainer`` and TRL: arguments, checkpoints, progress, metrics a kind."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from peft import load_peft_weights, set_peft_model_state_dict
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed
from trl.trainer.dpo_trainer import DataCollatorForPreference

from parrot_lite.lm.model import device_of, dtype_of, load_trainable
from parrot_lite.lm.tokens import IGNORE, Example, Renderer
from parrot_lite.progress import Bar, console, progress, say
from parrot_lite.recipe import Lora, Model, Recipe, Sft, Training
from parrot_lite.store import RunFolder, write_atomically
from parrot_lite.train.losses import dpo_loss
from parrot_lite.train.pairs import Pair
from parrot_lite.train.steps import steps_of


def fit_speaker(
    recipe: Recipe, section: Sft, renderer: Renderer, examples: Sequence[Example], folder: RunFolder
) -> None:
    """SFT with a new adapter. Resumes from the newest whole checkpoint in ``folder``."""
    set_seed(recipe.run.seed)  # the adapter's initial weights
    model = load_trainable(recipe.model, None, section.lora, section.checkpointing)
    arguments = arguments_of(section, recipe.model, recipe.run.seed, folder.path, len(examples))

    def build(watch: TrainerCallback) -> Trainer:
        return Trainer(
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=[{"input_ids": e.ids, "labels": e.labels} for e in examples],
            data_collator=Padding(pad_of(renderer)),
            callbacks=[watch],
        )

    _fit(build, model, folder, arguments["max_steps"])
    model.save_pretrained(folder.path / "adapter")
    _conclude(folder, arguments["max_steps"])
    folder.facts["tokens"] = sum(len(e.ids) for e in examples)
    folder.facts["supervised_tokens"] = sum(label != IGNORE for e in examples for label in e.labels)


def fit_pairs(recipe: Recipe, renderer: Renderer, pairs: Sequence[Pair], adapter: Path, folder: RunFolder) -> None:
    """DPO by TRL, continuing ``adapter``. Resumes from the newest whole checkpoint in ``folder``."""
    section = recipe.capo
    disable_progress_bar()
    if not console.is_terminal:
        os.environ.setdefault("TQDM_DISABLE", "1")
    set_seed(recipe.run.seed)
    # A PeftModel that is passed in gets a frozen copy named "ref" as its reference. With a peft_config instead, TRL
    # would take "adapters off" as the reference: the bare base, which never saw SFT.
    model = load_trainable(recipe.model, adapter, Lora(), section.checkpointing)
    arguments = arguments_of(section, recipe.model, recipe.run.seed, folder.path, len(pairs))

    def build(watch: TrainerCallback) -> Trainer:
        say(f"train-capo: log-probs of {len(pairs)} pairs under the reference, the SFT adapter")
        return PairTrainer(
            model=model,
            args=trl.DPOConfig(
                **arguments,
                beta=section.beta,
                loss_type="sigmoid",
                max_length=None,  # the default of 1024 drops late-turn pairs
                precompute_ref_log_probs=True,
            ),
            train_dataset=Dataset.from_list(
                [
                    {"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected, "kind": p.kind}
                    for p in pairs
                ]
            ),
            data_collator=PairPadding(pad_token_id=pad_of(renderer)),
            processing_class=renderer.tokenizer,
            callbacks=[watch],
        )

    _fit(build, model, folder, arguments["max_steps"])
    model.save_pretrained(folder.path / "adapter", selected_adapters=["default"])
    _conclude(folder, arguments["max_steps"])
    folder.facts["pairs"] = len(pairs)
    folder.facts["tokens"] = sum(2 * len(p.prompt) + len(p.chosen) + len(p.rejected) for p in pairs)


def arguments_of(section: Training, model: Model, seed: int, folder: Path, examples: int) -> dict[str, Any]:
    """Keyword arguments for ``TrainingArguments`` and its descendants."""
    device, dtype = device_of(model), dtype_of(model)
    auto = "paged_adamw_8bit" if device.type == "cuda" else "adamw_torch"
    return {
        "output_dir": str(folder),
        "max_steps": steps_of(section, examples),
        "per_device_train_batch_size": section.batch,
        "gradient_accumulation_steps": section.accumulation,
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": section.schedule,
        "warmup_steps": section.warmup,  # a share below 1 is taken of all steps
        "weight_decay": section.weight_decay,
        "max_grad_norm": section.max_grad_norm,
        "optim": auto if section.optimizer == "auto" else section.optimizer,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": device.type == "cpu",
        "gradient_checkpointing": section.checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if section.checkpointing else None,
        "save_strategy": "steps",
        "save_steps": section.save_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "seed": seed,
        "data_seed": seed,
        "remove_unused_columns": False,
        "dataloader_pin_memory": device.type == "cuda",
        "disable_tqdm": True,
        "report_to": [],
    }


# All that resuming reads, so that a checkpoint half written or half deleted is none. The state is written last.
WHOLE = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole.

    A process killed while saving or deleting leaves a folder that lacks files; resuming from the highest number, as
    ``get_last_checkpoint`` does, would fail on it or go on without the optimizer's state.
    """
    whole = []
    for path in folder.glob("checkpoint-*"):
        if not all((path / name).is_file() for name in WHOLE):
            continue
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            continue
        whole.append((state["global_step"], path))
    return max(whole)[1] if whole else None


def pad_of(renderer: Renderer) -> int:
    """The id that fills a batch up; it is masked everywhere, so the end of text serves where there is no own one."""
    tokenizer = renderer.tokenizer
    pad: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return pad


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Shows steps as progress and keeps every logged number in ``log.jsonl``."""

    bar: Bar

    def __init__(self, log: Path) -> None:
        self._log = log

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Training begins or resumes."""
        self.forget(state.global_step)

    def forget(self, step: int) -> None:
        """Drop what was logged behind ``step``, the checkpoint that training resumes from: those steps come again."""
        if self._log.exists():
            lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_atomically(self._log, "".join(kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """What the Trainer logs, a line a step."""
        if logs and "loss" in logs:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")
            self.bar.advance(1, f"loss {float(logs['loss']):.3f}")


class Padding:
    """Pads a batch of examples on the right; labels with -100, so that padding is never trained on."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """Rows of ids and labels → three (rows, width) tensors."""
        width = max(len(row["input_ids"]) for row in rows)

        def filled(lists: Sequence[Sequence[int]], value: int) -> torch.Tensor:
            return torch.tensor([[*items, *[value] * (width - len(items))] for items in lists])

        return {
            "input_ids": filled([row["input_ids"] for row in rows], self._pad),
            "labels": filled([row["labels"] for row in rows], IGNORE),
            "attention_mask": filled([[1] * len(row["input_ids"]) for row in rows], 0),
        }


class PairPadding(DataCollatorForPreference):  # type: ignore[misc]  # trl is untyped here
    """TRL's collator, keeping each pair's kind beside the tensors."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pairs → the tensors of TRL, and ``kinds``, a list."""
        return {**super().torch_call(examples), "kinds": [example.get("kind") for example in examples]}


class PairTrainer(trl.DPOTrainer):  # type: ignore[misc]  # trl is untyped here
    """``DPOTrainer`` on pairs that are ids already, with its metrics a negative kind.

    Logs ``<kind>/margin``, ``<kind>/accuracy``, ``<kind>/chosen`` and ``<kind>/rejected`` (summed log-probs) beside
    TRL's own means.
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
            _, margins = dpo_loss(chosen, rejected, *reference, self.beta)
        metrics = self._metrics["train"]
        for row, kind in enumerate(kinds):
            metrics[f"{kind}/margin"].append(margins[row].item())
            metrics[f"{kind}/accuracy"].append(float(margins[row] > 0))
            metrics[f"{kind}/chosen"].append(chosen[row].item())
            metrics[f"{kind}/rejected"].append(rejected[row].item())
        return loss


def _fit(build: Any, model: Any, folder: RunFolder, steps: int) -> None:
    checkpoint = last_checkpoint(folder.path)
    done = int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0
    if checkpoint:
        say(f"{folder.stage}: resuming behind step {done} of {steps}")
    watch = Watch(folder.path / "log.jsonl")
    if checkpoint and done >= steps:  # Trainer.train would go one step further
        watch.forget(done)
        set_peft_model_state_dict(model, load_peft_weights(str(checkpoint), device="cpu"))
        return
    trainer = build(watch)  # DPO scores its pairs under the reference here, which is no step
    trainer.remove_callback(PrinterCallback)
    with progress(folder.stage, steps, done) as watch.bar:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _conclude(folder: RunFolder, steps: int) -> None:
    lines = [json.loads(line) for line in (folder.path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses: dict[int, float] = {line["step"]: float(line["loss"]) for line in lines}
    per_kind: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        for key, value in line.items():
            if key.endswith(("/margin", "/accuracy")):
                per_kind[key].append(value)
    folder.facts.update(
        steps=steps,
        first_loss=round(losses[min(losses)], 4),
        last_loss=round(losses[max(losses)], 4),
    )
    if per_kind:
        folder.facts["means"] = {key: round(sum(values) / len(values), 4) for key, values in sorted(per_kind.items())}
    folder.leftovers.extend(sorted(folder.path.glob("checkpoint-*")))  # until the manifest is there, a kill needs them
    (folder.path / "README.md").unlink(missing_ok=True)  # TRL's model card speaks of hubs
