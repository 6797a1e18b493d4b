from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from parrot_lite.recipe import Training
from parrot_lite.train.steps import steps_of

CASES = [
    # sessions, batch, accumulation, epochs, max_steps → steps
    (64, 1, 32, 3.0, None, 6),
    (65, 1, 32, 3.0, None, 9),  # the odd session is a third step, in every epoch
    (5, 2, 2, 1.0, None, 2),
    (5, 2, 2, 1.5, None, 3),
    (7, 2, 3, 2.0, None, 4),
    (3, 1, 32, 1.0, None, 1),
    (10, 1, 1, 0.25, None, 3),  # 2.5 steps
    (10, 1, 1, 0.01, None, 1),
    (10, 1, 2, 3.0, 4, 4),
    (10, 1, 2, 1.0, 99, 5),  # max_steps bounds, it does not add epochs
    (40000, 1, 32, 3.0, None, 3750),  # Parrot-40K
]


@pytest.mark.parametrize(("sessions", "batch", "accumulation", "epochs", "most", "steps"), CASES)
def test_by_hand(sessions: int, batch: int, accumulation: int, epochs: float, most: int | None, steps: int) -> None:
    section = Training(batch=batch, accumulation=accumulation, epochs=epochs, max_steps=most)
    assert steps_of(section, sessions) == steps


@pytest.mark.parametrize(
    ("sessions", "batch", "accumulation", "epochs"),
    [case[:4] for case in CASES if case[4] is None and case[0] <= 10],
)
def test_as_transformers_counts_epochs(
    tmp_path: Path, sessions: int, batch: int, accumulation: int, epochs: float
) -> None:
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8
    )
    row = {"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor([1, 2, 3])}
    trainer = Trainer(
        model=LlamaForCausalLM(config),
        args=TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=epochs,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=[row] * sessions,
    )
    trainer.train()
    section = Training(batch=batch, accumulation=accumulation, epochs=epochs)
    assert trainer.state.global_step == steps_of(section, sessions)
