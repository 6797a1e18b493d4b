"""Attention over token trees: one call a limb, and never a mask over the whole sequence.

Registered with transformers under ``NAME``; the limbs come in as a keyword of the model's forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from parrot_lite.errors import UserError
from parrot_lite.lm.tree import Limb

NAME = "token_tree"


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    limbs: Sequence[Limb] = (),
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """(1, heads, tokens, size) queries and (1, key heads, tokens, size) keys → (1, tokens, heads, size).

    Raises ValueError where ``limbs`` do not cover the tokens, or the model wants more of its attention.
    """
    wanted = [name for name in ("s_aux", "softcap", "score_mod") if others.get(name) is not None]
    if wanted:
        raise ValueError(f"attention over token trees knows no {', '.join(wanted)}")
    if not limbs or limbs[-1].end != query.shape[2] or query.shape[0] != 1:
        raise ValueError("a token tree is one row, and its limbs cover it")
    device = query.device.type
    if torch.is_autocast_enabled(device):  # a causal bias looks at dtypes before autocast does
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and device == "cuda" and not _flash(query):
        # The other kernel that takes a causal bias knows no groups.
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        groups = 1
    parts = []
    for limb in limbs:
        own = slice(limb.start, limb.end)
        keys, values, mask = key[:, :, own], value[:, :, own], None
        if limb.seen:
            above = slice(limb.root, limb.fork)
            keys = torch.cat((key[:, :, above], keys), dim=2)
            values = torch.cat((value[:, :, above], values), dim=2)
            # On a card this dispatches to flash attention, where a mask would fall back on scores in memory for
            # grouped heads. is_causal would mean the upper left.
            mask = causal_lower_right(limb.end - limb.start, keys.shape[2])
        parts.append(
            scaled_dot_product_attention(
                query[:, :, own],
                keys,
                values,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=groups > 1,
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _flash(query: torch.Tensor) -> bool:
    """Whether flash attention runs on this card in this precision."""
    return query.dtype.itemsize == 2 and torch.cuda.get_device_capability(query.device) >= (8, 0)


def use(model: Any, longest: int) -> None:
    """Let ``model`` attend over token trees whose contexts have at most ``longest`` tokens, and over nothing else.

    Raises UserError where the architecture computes something that a tree would not reproduce exactly.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    odd = sorted(kinds - {"full_attention", "sliding_attention"})
    if window is not None and window < longest:
        odd.append(f"a sliding window of {window} tokens")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):  # they go by the longest context of the whole batch
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        if longest > original:
            odd.append(f"{rope['rope_type']} positions beyond {original} tokens")
    # These change attention's scores, or the logits behind the head.
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1):
            odd.append(name)
    if not getattr(type(model), "_supports_attention_backend", False):
        odd.append("attention of its own")
    if odd:
        raise UserError(
            f"a model of type {config.model_type} has {', '.join(odd)}: a token tree would compute something else",
            "model.base",
            "Use a model of the LLaMA, Mistral or Qwen family, and max_tokens within its window",
        )
    AttentionInterface.register(NAME, tree_attention)  # without a mask function of that name no mask is built
    model.set_attn_implementation(NAME)
