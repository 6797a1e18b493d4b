"""Log-probs under the reference, the SFT adapter: once, before training, kept by the bytes that they come from."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from parrot_lite.errors import UserError
from parrot_lite.lm.likelihood import answer_log_probs
from parrot_lite.lm.model import device_of, dtype_of
from parrot_lite.lm.tree import TokenTree
from parrot_lite.progress import progress, say
from parrot_lite.recipe import Model, Recipe
from parrot_lite.store import Journal, fingerprint, model_inputs, read
from parrot_lite.types import Record


class Scored(Record):
    """The summed log-probs of a tree's answers, in nats."""

    tree: str
    log_probs: tuple[float, ...]


LAYOUT = "tree-1"  # counts up with every change of what is computed
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


def cache_path(recipe: Recipe, adapter: Path, commit: str | None) -> Path:
    """Where the log-probs under ``adapter`` lie, shared by every recipe of the run folder.

    Named by the adapter's bytes, the base's (of a hub model its ``commit``), and what decides precision; in the file
    each tree stands under its own hash. A changed adapter at the same path, a changed base or other data never meet an
    old value.
    """
    return Path(recipe.run.folder) / ".reference" / f"{_computed_by(recipe.model, adapter, commit)}.jsonl"


def _computed_by(model: Model, adapter: Path, commit: str | None) -> str:
    base = {name: fingerprint(path) for name, path in model_inputs(model).items()}
    named = {
        "adapter": fingerprint(adapter),
        "base": base or [model.base, model.revision, commit],
        "gguf_file": model.gguf_file,
        "layout": LAYOUT,
        "nf4": [model.load_in_4bit, model.double_quant],
        "dtype": str(dtype_of(model)),
        "device": device_of(model).type,
        "libraries": [importlib.metadata.version(name) for name in LIBRARIES],
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:32]


def identity(tree: TokenTree) -> str:
    """A hash of a tree's ids and shape."""
    shape = repr((tree.limbs, tree.answers)).encode()
    return hashlib.sha256(tree.ids.tobytes() + shape).hexdigest()[:32]


def reference_log_probs(model: Any, trees: Sequence[TokenTree], path: Path, stage: str) -> list[tuple[float, ...]]:
    """The answers' log-probs of every tree under ``model`` as it stands; appends to ``path`` and resumes there.

    The caller sets autocast. Waits where another process fills the same file. Raises UserError where a log-prob is not
    a number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{stage}: another run computes the same reference, waiting for it ({path})")
            fcntl.flock(lock, fcntl.LOCK_EX)
        with Journal(path, Scored, lambda one: one.tree) as journal:
            found = {one.tree: one.log_probs for one in read(path, Scored)}
            names = [identity(tree) for tree in trees]
            missing = {name: tree for name, tree in zip(names, trees, strict=True) if name not in found}
            if missing:
                training = model.training
                model.eval()
                with torch.no_grad(), progress(f"{stage}: reference", len(missing)) as bar:
                    for name, tree in missing.items():
                        found[name] = tuple(answer_log_probs(model, tree).tolist())
                        if not all(map(math.isfinite, found[name])):
                            raise UserError("a log-prob under the reference is not a number", stage, "Try model.dtype")
                        journal.append(Scored(tree=name, log_probs=found[name]))
                        bar.advance()
                model.train(training)
    return [found[name] for name in names]
