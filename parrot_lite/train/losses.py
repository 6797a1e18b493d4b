"""The equations of training, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    beta: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and margin a pair (Parrot section 3.3; DPO, arXiv 2305.18290, equation 7). All tensors are (pairs,).

    The inputs are summed log-probabilities of an answer in nats. The margin is
    ``beta * ((chosen - reference_chosen) - (rejected - reference_rejected))``, the loss ``-log sigmoid(margin)``;
    where policy and reference agree, the margin is 0 and the loss ln 2.
    """
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -F.logsigmoid(margin), margin


def per_token(log_probs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Summed log-probs (answers,) over their numbers of tokens (answers,): length-normalised DPO's.

    Policy and reference both go into ``dpo_loss`` like this (Tulu 3, arXiv 2411.15124; TRL's ``sigmoid_norm``).
    """
    return log_probs / tokens


def session_means(values: torch.Tensor, sessions: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Values of pairs (pairs,) → one a session: the sum of weight x value over the session's number of pairs.

    ``sessions`` (pairs,) counts from 0 and every session has a pair; ``weights`` (pairs,). A session counts once,
    however many negatives it has: pairs that share their context are not independent.
    """
    size = int(sessions.max()) + 1
    pairs = torch.bincount(sessions, minlength=size)
    return values.new_zeros(size).index_add(0, sessions, weights * values) / pairs


def nll_per_token(log_probs: torch.Tensor, tokens: torch.Tensor, sessions: torch.Tensor) -> torch.Tensor:
    """Summed log-probs of answers (answers,) → the NLL of a token, one a session.

    The SFT term that ``sft_weight`` adds (Iterative RPO, arXiv 2404.19733; TRL's ``sft``).
    """
    size = int(sessions.max()) + 1
    total = log_probs.new_zeros(size).index_add(0, sessions, log_probs)
    return -total / tokens.new_zeros(size).index_add(0, sessions, tokens)
