"""What SFT and CaPO ask of ``transformers.Trainer``: arguments, checkpoints, progress, and losses over token trees."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import load_peft_weights, set_peft_model_state_dict
from transformers import PrinterCallback, Trainer, TrainerCallback

from parrot_lite.lm.likelihood import answer_log_probs
from parrot_lite.lm.model import device_of, dtype_of
from parrot_lite.lm.tree import TokenTree
from parrot_lite.progress import Bar, progress, say
from parrot_lite.recipe import Model, Run, Training
from parrot_lite.store import RunFolder, write_atomically
from parrot_lite.train.metrics import falling, means
from parrot_lite.train.steps import steps_of


def seed_of(section: Training, run: Run) -> int:
    """The seed of one training: its own, or the experiment's."""
    return run.seed if section.seed is None else section.seed


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
        "logging_nan_inf_filter": False,  # it would log the last finite loss instead
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


class TreeTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """``Trainer`` over token trees, its loss a mean over all items of a step, however they are batched.

    A batch holds ``items``, the number of what the loss is a mean over: batch 1 x accumulation 8 is batch 8 x 1, to the
    last incomplete step.
    """

    loss_is_scaled_for_ga = True

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], int]:
        """The batches of a step, and how many items they have together."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return samples, sum(batch["items"] for batch in samples)

    def log_probs(self, model: Any, tree: TokenTree) -> torch.Tensor:
        """Summed log-probs of the tree's answers: (answers,), float32."""
        with self.accelerator.autocast():  # it wraps model.forward, which token trees go around
            return answer_log_probs(model, tree)


def fit(build: Callable[[Watch], Trainer], model: Any, folder: RunFolder, steps: int) -> None:
    """Train what ``build`` gives to the last step, from the newest whole checkpoint in ``folder``."""
    checkpoint = last_checkpoint(folder.path)
    done = int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0
    if checkpoint:
        say(f"{folder.stage}: resuming behind step {done} of {steps}")
    watch = Watch(folder.path / "log.jsonl")
    if checkpoint and done >= steps:  # Trainer.train would go one step further
        watch.forget(done)
        set_peft_model_state_dict(model, load_peft_weights(str(checkpoint), device="cpu"))
        return
    trainer = build(watch)  # CaPO scores its pairs under the reference here, which is no step
    trainer.remove_callback(PrinterCallback)
    with progress(folder.stage, steps, done) as watch.bar:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def conclude(folder: RunFolder, steps: int) -> None:
    """Put what the log shows into the manifest, and what it warns of on the screen."""
    lines = [json.loads(line) for line in (folder.path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses: dict[int, float] = {line["step"]: float(line["loss"]) for line in lines}
    folder.facts.update(
        steps=steps,
        first_loss=round(losses[min(losses)], 4),
        last_loss=round(losses[max(losses)], 4),
    )
    if averages := means(lines):
        folder.facts["means"] = averages
        folder.facts["chosen_fell"] = fell = falling(lines)
        if fell:
            by = ", ".join(f"{kind} {change:+.1f}" for kind, change in fell.items())
            say(f"{folder.stage}: chosen answers ended less likely than before, by nats an answer: {by}")
            say(f"{folder.stage}: a known failure of DPO; see capo.sft_weight and capo.learning_rate")
    folder.leftovers.extend(sorted(folder.path.glob("checkpoint-*")))  # until the manifest is there, a kill needs them
    (folder.path / "README.md").unlink(missing_ok=True)  # TRL's model card speaks of hubs
