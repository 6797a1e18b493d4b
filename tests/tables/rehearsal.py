"""A table on a random LLaMA: what a test needs to run one through the command line in seconds a stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.tiny import TRAINING

RECIPE = """
[run]
folder = {runs}
[model]
base = {base}
device = "cpu"
dtype = "float32"
load_in_4bit = false
[logs]
source = "bundled"
heldout = 7
sessions = 8
max_turns = 3
[ask]
data = ["logs"]
[collect]
asker = {{ kind = "local", adapter = "train-ask" }}
answerer = {{ kind = "local" }}
[negatives]
data = ["logs"]
sessions = 4
turns_per_session = 1
max_rouge = 1
min_length_ratio = 0
writer = {{ kind = "scripted", path = {answers} }}
[sft]
data = ["logs"]
max_steps = 2
{training}
[capo]
max_tokens = 2048
accumulation = 2
learning_rate = 1e-2
checkpointing = false
save_every = 1
[eval]
sessions = 1
max_tokens = 4
models.any = {{ kind = "local" }}
[eval.probe]
sessions = 7
max_tokens = 2048
"""
TABLE = """# Three rows.
title = "Kinds of negatives, small"
[paper]
source = "Parrot, Table 6"
columns = ["MT-Bench"]
others = { "GPT-4" = { "MT-Bench" = 8.99 } }
[measures]
primary = "PMI-swap"
co_primary = ["PMI-last"]
others = ["PMI-swap self-contained", "score"]
guards = { NLL = 0.05, repetition = 0.05 }
against = "none"
[[rows]]
name = "none"
about = "SFT alone"
adapter = "train-sft"
paper = { "MT-Bench" = 6.81 }
[[rows]]
name = "neglect"
about = "one kind"
adapter = "train-capo"
set.capo.kinds = ["neglect"]
[[rows]]
name = "all"
about = "three kinds"
adapter = "train-capo"
[[comparisons]]
row = "all"
baseline = "none"
order = "primary"
asks = "Do three kinds do anything?"
[[comparisons]]
row = "all"
baseline = "neglect"
asks = "More than one?"
"""


def write(folder: Path, base: Path) -> tuple[Path, Path]:
    """The recipe and the table in a folder."""
    answers = folder / "answers.jsonl"
    answers.write_text("".join(json.dumps(f"It is the {word}.") + "\n" for word in ("first", "second", "third")))
    values = {"runs": folder / "runs", "base": base, "answers": answers}
    recipe, table = folder / "small.toml", folder / "kinds.toml"
    recipe.write_text(
        RECIPE.format(training=TRAINING, **{key: json.dumps(str(value)) for key, value in values.items()})
    )
    table.write_text(TABLE)
    return recipe, table


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "parrot_lite", *map(str, arguments)]


def parrot(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A finished command line, with what it said."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environment(), timeout=900
    )


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([root, *sys.path]), "COLUMNS": "200"}


def manifests(folder: Path) -> dict[str, float]:
    """When each stage below a folder was finished, by its path there."""
    found = sorted(folder.rglob("manifest.json"))
    return {str(file.parent.relative_to(folder)): file.stat().st_mtime for file in found}


def stages(names: Sequence[str]) -> list[str]:
    """The folders without their hashes, sorted."""
    return sorted(name.rpartition("-")[0] for name in names)
