from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from parrot_lite.errors import UserError
from parrot_lite.lm import attention
from parrot_lite.lm.tree import Limb
from tests.lm.test_tree import TREE

MODULE = torch.nn.Module()


def qkv(heads: int, key_heads: int, tokens: int = 11) -> list[torch.Tensor]:
    torch.manual_seed(heads)
    shapes = [(1, n, tokens, 8) for n in (heads, key_heads, key_heads)]
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


# Who sees whom in TREE, written down: the trunk of six causally; the first branch the trunk's first four and itself;
# the second the trunk's first two and itself.
SEEN = [
    *([*range(i + 1)] for i in range(6)),
    [0, 1, 2, 3, 6],
    [0, 1, 2, 3, 6, 7],
    [0, 1, 2, 3, 6, 7, 8],
    [0, 1, 9],
    [0, 1, 9, 10],
]


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (9, 3)])
def test_against_softmax_over_a_mask_written_down(heads: int, key_heads: int) -> None:
    query, key, value = qkv(heads, key_heads)
    mask = torch.zeros(11, 11, dtype=torch.bool)
    for row, seen in enumerate(SEEN):
        mask[row, seen] = True
    wide_key, wide_value = (x.repeat_interleave(heads // key_heads, dim=1) for x in (key, value))
    scores = (query @ wide_key.transpose(2, 3)) * 0.3
    expected = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ wide_value
    found, weights = attention.tree_attention(MODULE, query, key, value, None, scaling=0.3, limbs=TREE.limbs)
    assert weights is None
    assert found.shape == (1, 11, heads, 8)
    torch.testing.assert_close(found.transpose(1, 2), expected)
    pull = torch.randn_like(expected)
    ours = torch.autograd.grad((found.transpose(1, 2) * pull).sum(), (query, key, value), retain_graph=True)
    theirs = torch.autograd.grad((expected * pull).sum(), (query, key, value))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("limbs", [(), (Limb(0, 0, 0, 10),)])
def test_limbs_that_do_not_cover_the_tokens_are_refused(limbs: tuple[Limb, ...]) -> None:
    with pytest.raises(ValueError, match="its limbs cover it"):
        attention.tree_attention(MODULE, *qkv(2, 2), None, limbs=limbs)


def test_a_batch_of_rows_is_refused() -> None:
    two = [torch.cat((x, x)) for x in qkv(2, 2)]
    with pytest.raises(ValueError, match="one row"):
        attention.tree_attention(MODULE, *two, None, limbs=TREE.limbs)


SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}


def test_models_that_compute_something_else_are_refused() -> None:
    with pytest.raises(UserError, match="attn_logit_softcapping, final_logit_softcapping"):
        attention.use(Gemma2ForCausalLM(Gemma2Config(**SMALL)), 100)
    mistral = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=100))
    with pytest.raises(UserError, match="a sliding window of 100 tokens"):
        attention.use(mistral, 101)
    attention.use(mistral, 100)  # no context reaches beyond the window
    assert mistral.config._attn_implementation == attention.NAME
    old = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(model_type="old")))
    with pytest.raises(UserError, match="attention of its own"):
        attention.use(old, 100)
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    llama = LlamaForCausalLM(LlamaConfig(**SMALL, max_position_embeddings=64, rope_parameters=scaled))
    with pytest.raises(UserError, match="dynamic positions beyond 64 tokens"):
        attention.use(llama, 65)
    attention.use(llama, 64)


def test_attention_sinks_are_refused() -> None:
    with pytest.raises(ValueError, match="knows no s_aux"):
        attention.tree_attention(MODULE, *qkv(2, 2), None, limbs=TREE.limbs, s_aux=torch.zeros(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_a_card(heads: int, key_heads: int, dtype: torch.dtype) -> None:
    inputs = [x.detach().to("cuda", dtype).requires_grad_() for x in qkv(heads, key_heads)]
    found, _ = attention.tree_attention(MODULE, *inputs, None, limbs=TREE.limbs)
    expected, _ = attention.tree_attention(MODULE, *qkv(heads, key_heads), None, limbs=TREE.limbs)
    close = {"atol": 2e-2, "rtol": 2e-2} if dtype.itemsize == 2 else {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(found.double().cpu(), expected, **close)
    found.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
