from __future__ import annotations

import fcntl
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from parrot_lite.errors import UserError
from parrot_lite.lm import attention
from parrot_lite.lm.model import load_renderer, load_trainable
from parrot_lite.lm.tree import TokenTree
from parrot_lite.recipe import Lora, Recipe
from parrot_lite.train import reference
from parrot_lite.train.packing import pack
from parrot_lite.train.reference import cache_path, reference_log_probs
from tests.tiny import first_turns, recipe, tiny_model
from tests.train.trees import tree


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    with tiny_model(tmp_path / "tiny") as made:
        yield made


def adapter_of(made: Recipe, folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = load_trainable(made.model, None, Lora(r=4), checkpointing=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


def scored(made: Recipe, adapter: Path, trees: list[TokenTree]) -> list[tuple[float, ...]]:
    model = load_trainable(made.model, adapter, Lora(), checkpointing=False)
    attention.use(model.get_base_model(), 2048)
    return reference_log_probs(model, trees, cache_path(made, adapter, None), "train-capo")


def laid(made: Recipe, count: int) -> list[TokenTree]:
    renderer = load_renderer(made.model)
    return [pack(renderer, tree(one), tree(one).branches).tree for one in first_turns(count, 3)]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the trees that a model scores from now on."""
    sizes: list[int] = []
    score = reference.answer_log_probs

    def watched(model: object, one: TokenTree) -> torch.Tensor:
        sizes.append(len(one))
        return score(model, one)

    monkeypatch.setattr(reference, "answer_log_probs", watched)
    return sizes


def test_computed_once_and_resumed(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(tmp_path, base)
    adapter, trees = adapter_of(made, tmp_path / "adapter", 0), laid(made, 4)
    sizes = counted(monkeypatch)
    first = scored(made, adapter, trees[:2])
    assert sizes == [len(one) for one in trees[:2]]
    path = cache_path(made, adapter, None)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:-20], encoding="utf-8")  # killed inside the second line
    found = scored(made, adapter, trees)
    assert sizes[2:] == [len(one) for one in trees[1:]]  # the first is not scored again
    assert found[:2] == first
    assert scored(made, adapter, list(reversed(trees))) == list(reversed(found))
    assert len(sizes) == 5
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def test_the_same_in_every_row_of_a_table(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(tmp_path, base)
    adapter, trees = adapter_of(made, tmp_path / "adapter", 0), laid(made, 1)
    first = scored(made, adapter, trees)
    sizes = counted(monkeypatch)
    copy = shutil.copytree(adapter, tmp_path / "elsewhere")
    other = recipe(tmp_path, base, "capo.beta=0.5", "capo.learning_rate=1e-5", "run.seed=7")
    assert scored(other, copy, trees) == first
    assert sizes == []


def test_nothing_old_is_served(tmp_path: Path, base: Path) -> None:
    made = recipe(tmp_path, base)
    adapter, trees = adapter_of(made, tmp_path / "adapter", 0), laid(made, 2)
    before = scored(made, adapter, trees[:1])
    path = cache_path(made, adapter, None)
    weights = adapter / "adapter_model.safetensors"
    changed = {name: tensor * 1.5 for name, tensor in load_file(weights).items()}
    save_file(changed, weights, metadata={"format": "pt"})  # another adapter at the same path
    assert cache_path(made, adapter, None) != path
    after = scored(made, adapter, trees[:1])
    assert all(abs(one - other) > 1e-3 for one, other in zip(before[0], after[0], strict=True))

    renderer = load_renderer(made.model)
    one = first_turns(1, 3)[0]
    edited = tree(one, text="It is not cold.")
    assert scored(made, adapter, [pack(renderer, edited, edited.branches).tree]) != after  # other data
    paths = {cache_path(made, adapter, None)}
    for change in ("model.load_in_4bit=true", "model.dtype=bfloat16"):
        paths.add(cache_path(recipe(tmp_path, base, change), adapter, None))
    with tiny_model(tmp_path / "other", "llama_like") as other:
        paths.add(cache_path(recipe(tmp_path, other), adapter, None))
    hub = recipe(tmp_path, base, "model.base='org/model'")
    paths |= {cache_path(hub, adapter, commit) for commit in ("before it moved", "after")}
    assert len(paths) == 6


def test_another_run_of_the_same_is_waited_for(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = recipe(tmp_path, base)
    adapter, trees = adapter_of(made, tmp_path / "adapter", 0), laid(made, 1)
    path = cache_path(made, adapter, None)
    path.parent.mkdir(parents=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: scored(made, adapter, trees))
        waiting.start()
        waiting.join(timeout=5)
        assert waiting.is_alive()
        assert not path.exists()
        assert "another run computes the same reference" in " ".join(capsys.readouterr().err.split())
    waiting.join(timeout=60)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1


def test_what_is_not_a_number_is_not_kept(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(tmp_path, base)
    adapter, trees = adapter_of(made, tmp_path / "adapter", 0), laid(made, 1)
    monkeypatch.setattr(reference, "answer_log_probs", lambda *_: torch.tensor([-1.0, float("nan")]))
    with pytest.raises(UserError, match="is not a number"):
        scored(made, adapter, trees)
    assert cache_path(made, adapter, None).read_text(encoding="utf-8") == ""
