"""Log-probs of answers in a token tree: the body once, the LM head where something is scored and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from parrot_lite.lm.tree import TokenTree

LOGITS = 1 << 24  # logits that exist at once: 64 MiB in float32


def answer_log_probs(model: Any, tree: TokenTree) -> torch.Tensor:
    """Summed log-probs in nats of the answers of ``tree``: (answers,), float32.

    ``model`` is a causal LM, with or without a PEFT adapter, that went through ``attention.use``. Raises ValueError
    where its LM head is trained: the head's own gradient is not computed.
    """
    scores = token_log_probs(model, tree)
    owners = [i for i, answer in enumerate(tree.answers) for _ in range(len(answer))]
    summed = torch.zeros(len(tree.answers), device=scores.device)
    return summed.index_add(0, torch.tensor(owners, device=scores.device), scores)


def token_log_probs(model: Any, tree: TokenTree) -> torch.Tensor:
    """Log-probs in nats of every token of every answer, one answer behind the other: (tokens,), float32."""
    found: torch.Tensor = HeadLogProbs.apply(*_scored(model, tree))  # type: ignore[no-untyped-call]
    return found


class Predicted(NamedTuple):
    """What a model expected where each token of each answer stands; all (tokens,), log-probs in nats, float32."""

    actual: torch.Tensor  # log-prob of the token that stands there
    watched: torch.Tensor  # log-prob of the one that was watched for
    likeliest: torch.Tensor  # the id that it expected most


@torch.inference_mode()
def predicted(model: Any, tree: TokenTree, watched: Sequence[int]) -> Predicted:
    """What ``model`` expects at every token of every answer; ``watched`` is an id for each of them.

    Raises ValueError as ``token_log_probs`` does.
    """
    hidden, weight, bias, targets = _scored(model, tree)
    others = torch.tensor(watched, device=targets.device)
    parts = []
    size = max(1, LOGITS // len(weight))
    for start in range(0, len(targets), size):
        part = slice(start, start + size)
        log_probs = F.linear(hidden[part], weight, bias).float().log_softmax(dim=-1)
        read = (log_probs.gather(1, ids[part, None])[:, 0] for ids in (targets, others))
        parts.append((*read, log_probs.argmax(dim=-1)))
    return Predicted(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _scored(model: Any, tree: TokenTree) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Hidden states that predict the answers' tokens, the head's weight and bias, and those tokens."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = causal.device
    ids = torch.tensor(tree.ids, device=device)
    # model.forward would run the head at every token.
    hidden = causal.get_decoder()(
        input_ids=ids[None],
        position_ids=torch.tensor([tree.positions], device=device),
        use_cache=False,
        limbs=tree.limbs,
    ).last_hidden_state[0]
    places = torch.tensor([p for answer in tree.answers for p in answer.predictors], device=device)
    scored = torch.tensor([t for answer in tree.answers for t in range(answer.start, answer.end)], device=device)
    head = causal.get_output_embeddings()
    if any(parameter.requires_grad for parameter in head.parameters()):
        raise ValueError("the LM head is trained, and token trees take it as fixed")
    wide, weight, bias = hidden[places], head.weight, getattr(head, "bias", None)
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # which casts what goes into an operation, not what HeadLogProbs keeps
        dtype = torch.get_autocast_dtype(kind)
        wide, weight, bias = wide.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return wide.to(weight.dtype), weight, bias, ids[scored]


class HeadLogProbs(torch.autograd.Function):
    """Log-softmax of the LM head at the targets, a chunk at a time, without keeping or recomputing logits.

    A token's log-prob depends on its own hidden state alone, so its gradient is one vector, whatever the loss:
    ``weight[target] - softmax(logits) @ weight``. It is computed while the chunk's logits are there, and the backward
    pass only scales it.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        """(tokens, size), (vocabulary, size), (vocabulary,), (tokens,) → (tokens,), float32."""
        found = torch.empty(len(targets), device=hidden.device)
        wanted = ctx.needs_input_grad[0]
        slopes = torch.empty_like(hidden) if wanted else None
        size = max(1, LOGITS // len(weight))
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            logits = F.linear(hidden[part], weight, bias).float()
            target = targets[part]
            scale = logits.logsumexp(dim=-1, keepdim=True)
            found[part] = (logits.gather(1, target[:, None]) - scale)[:, 0]
            if slopes is not None:
                # Taken from the probability before rounding to 16 bits: the difference of two rounded vectors would
                # be noise where the model is sure of the target.
                errors = logits.sub_(scale).exp_()
                errors.scatter_add_(1, target[:, None], errors.new_full((len(target), 1), -1.0))
                slopes[part] = -(errors.to(weight.dtype) @ weight)
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """(tokens,) → the gradient of the hidden states; head and targets have none."""
        (slopes,) = ctx.saved_tensors
        return (grad[:, None] * slopes).to(slopes.dtype), None, None, None
