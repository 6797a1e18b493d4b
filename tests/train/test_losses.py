from __future__ import annotations

import math

import pytest
import torch

from parrot_lite.train.losses import dpo_loss


def tensors(*rows: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


def test_by_hand() -> None:
    # Pair 1: chosen rose by 2 nats over the reference, rejected fell by 3: margin 0.1 * (2 - -3) = 0.5,
    #         loss = -log(1 / (1 + e^-0.5)) = log(1 + 0.60653066) = log 1.60653066 = 0.47407698.
    # Pair 2: chosen fell by 4, rejected rose by 6: margin 0.1 * (-4 - 6) = -1,
    #         loss = log(1 + e) = log 3.71828183 = 1.31326169.
    # Pair 3: both rose by 5: margin 0, loss ln 2 = 0.69314718, however likely they are.
    loss, margin = dpo_loss(*tensors([-8, -14, -1], [-13, -4, -95], [-10, -10, -6], [-10, -10, -100]), beta=0.1)
    assert margin.tolist() == pytest.approx([0.5, -1.0, 0.0])
    assert loss.tolist() == pytest.approx([0.47407698, 1.31326169, 0.69314718], abs=1e-8)


def test_beta_scales_the_margin() -> None:
    # Margin 0.5 * 5 = 2.5, loss = log(1 + e^-2.5) = log 1.08208500 = 0.07888973.
    loss, margin = dpo_loss(*tensors([-8], [-13], [-10], [-10]), beta=0.5)
    assert margin.item() == pytest.approx(2.5)
    assert loss.item() == pytest.approx(0.07888973, abs=1e-8)


def test_equality_is_ln_2() -> None:
    chosen, rejected = tensors([-3.5, -700.0], [-90.25, -2.0])
    loss, margin = dpo_loss(chosen, rejected, chosen, rejected, beta=0.1)
    assert margin.tolist() == [0.0, 0.0]
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)


def test_gradient_by_hand() -> None:
    # d loss / d chosen = -beta * sigmoid(-margin); at margin 0.5: -0.1 / (1 + e^0.5) = -0.1 / 2.64872127 = -0.03775407.
    chosen, rejected, *reference = tensors([-8], [-13], [-10], [-10])
    chosen.requires_grad_()
    rejected.requires_grad_()
    dpo_loss(chosen, rejected, *reference, beta=0.1)[0].sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(-0.03775407, abs=1e-8)
    assert rejected.grad.item() == pytest.approx(0.03775407, abs=1e-8)


def test_far_margins_stay_finite() -> None:
    # log(1 + e^200) = 200 and log(1 + e^-200) = 0 to double precision, where e^200 alone would overflow fp32.
    rows = [torch.tensor([row]) for row in (-3000.0, -1000.0, -1000.0, -1000.0)]
    assert dpo_loss(*rows, beta=0.1)[0].item() == pytest.approx(200)
    rows = [torch.tensor([row]) for row in (-1000.0, -3000.0, -1000.0, -1000.0)]
    assert dpo_loss(*rows, beta=0.1)[0].item() == pytest.approx(0, abs=1e-30)
