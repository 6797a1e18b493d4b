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
