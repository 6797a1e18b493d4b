from __future__ import annotations

import math

import pytest
import torch

from parrot_lite.train.losses import dpo_loss, nll_per_token, per_token, session_means


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


def test_length_normalised_by_hand() -> None:
    # Chosen: -8 over 4 tokens and -10 over 4 under the reference: -2 + 2.5 = +0.5 a token. Rejected: -13 over 10 and
    # -10 over 10: -1.3 + 1 = -0.3. Margin 5 * 0.8 = 4, loss = log(1 + e^-4) = log 1.01831564 = 0.01814993.
    four, ten = tensors([4], [10])
    sides = [per_token(x, n) for x, n in zip(tensors([-8], [-13], [-10], [-10]), (four, ten, four, ten), strict=True)]
    loss, margin = dpo_loss(*sides, beta=5.0)
    assert margin.item() == pytest.approx(4)
    assert loss.item() == pytest.approx(0.01814993, abs=1e-8)


def test_a_session_counts_once_by_hand() -> None:
    # Session 0 has the pairs 1, 2 and 6, session 1 the pair 5: means 3 and 5. With the weight 2 on the pair of 6 and 0
    # on the pair of 1: (0 + 2 + 12) / 3 = 14/3; a weight scales its pairs, it does not change how many there are.
    values, plain, weights = tensors([1, 2, 5, 6], [1, 1, 1, 1], [0, 1, 1, 2])
    sessions = torch.tensor([0, 0, 1, 0])
    assert session_means(values, sessions, plain).tolist() == pytest.approx([3, 5])
    assert session_means(values, sessions, weights).tolist() == pytest.approx([14 / 3, 5])


def test_nll_of_a_token_by_hand() -> None:
    # Session 0: answers of -6 nats in 2 tokens and -3 in 4: 9 nats over 6 tokens = 1.5; session 1: 8 over 4 = 2.
    log_probs, tokens = tensors([-6, -8, -3], [2, 4, 4])
    assert nll_per_token(log_probs, tokens, torch.tensor([0, 1, 0])).tolist() == pytest.approx([1.5, 2])
