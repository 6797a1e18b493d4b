from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from parrot_lite.lm import attention, likelihood
from parrot_lite.lm.likelihood import answer_log_probs, token_log_probs
from parrot_lite.lm.tree import Answer, Limb, TokenTree, joined
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_model(tmp_path_factory.mktemp("base") / "tiny") as folder:
        yield folder


def loaded(base: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.get_output_embeddings().requires_grad_(False)
    return model


def grown(seed: int = 0) -> TokenTree:
    """A trunk of 40 tokens with two answers of its own, and three branches at two forks."""
    torch.manual_seed(seed)
    ids = torch.randint(3, 700, (58,)).tolist()
    limbs = (Limb(0, 0, 0, 40), Limb(0, 12, 40, 47), Limb(0, 30, 47, 50), Limb(0, 30, 50, 58))
    answers = (Answer(12, 20, 11), Answer(40, 47, 11), Answer(30, 40, 29), Answer(47, 50, 29), Answer(50, 58, 29))
    return TokenTree(array("i", ids), limbs, answers)


def alone(model: Any, tree: TokenTree, answer: Answer) -> torch.Tensor:
    """Log-probs of the answer's tokens from the model's own forward pass over a row of its own."""
    ids, length = tree.way(answer).tolist(), len(answer)
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    return -F.cross_entropy(logits[-length - 1 : -1], torch.tensor(ids[-length:]), reduction="none")


def gradient(model: Any) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two gradients are the same but for the order of float32 sums."""
    return (one - other).norm().item() < 1e-5 * other.norm().item()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_pass_is_a_row_for_every_answer(base: Path, checkpointing: bool) -> None:
    model, tree = loaded(base), grown()
    expected = [alone(model, tree, answer) for answer in tree.answers]
    weights = torch.tensor([0.3, -1.0, 2.0, -0.5, 0.7])
    sum(w * row.sum() for w, row in zip(weights, expected, strict=True)).backward()  # type: ignore[union-attr]
    by_rows = gradient(model)

    attention.use(model, 100)
    if checkpointing:
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    tokens = token_log_probs(model, tree)
    found = answer_log_probs(model, tree)
    assert tokens.dtype == found.dtype == torch.float32
    torch.testing.assert_close(tokens, torch.cat(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, torch.stack([row.sum() for row in expected]), atol=1e-4, rtol=0)
    (weights * found).sum().backward()
    assert close(gradient(model), by_rows)


def test_chunks_of_the_head_change_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tree = loaded(base), grown()
    attention.use(model, 100)
    whole = token_log_probs(model, tree)
    whole.square().sum().backward()
    expected = gradient(model)
    seen = []
    linear = F.linear

    def watched(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if len(weight) == model.config.vocab_size:
            seen.append(len(hidden))
        return linear(hidden, weight, bias)

    monkeypatch.setattr(likelihood, "LOGITS", 5 * model.config.vocab_size)
    monkeypatch.setattr(F, "linear", watched)
    chunked = token_log_probs(model, tree)
    assert seen == [5] * 7 + [1]  # 8 + 7 + 10 + 3 + 8 = 36 scored tokens of 58, five at a time, each once
    torch.testing.assert_close(chunked, whole)
    chunked.square().sum().backward()
    assert close(gradient(model), expected)


def test_what_was_expected_is_the_models_own_forward_pass(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tree = loaded(base), grown()
    rows = []
    for answer in tree.answers:
        ids = torch.tensor([tree.way(answer).tolist()])
        with torch.no_grad():
            rows.append(model(input_ids=ids).logits[0, -len(answer) - 1 : -1].log_softmax(dim=-1))
    expected = torch.cat(rows)
    watched = [5 + i % 3 for i in range(len(expected))]
    attention.use(model, 100)
    for logits in (likelihood.LOGITS, 5 * model.config.vocab_size):  # whole, and in chunks
        monkeypatch.setattr(likelihood, "LOGITS", logits)
        found = likelihood.predicted(model, tree, watched)
        torch.testing.assert_close(found.actual, token_log_probs(model, tree).detach())
        torch.testing.assert_close(found.watched, expected[range(len(watched)), watched], atol=1e-5, rtol=0)
        assert found.likeliest.tolist() == expected.argmax(dim=-1).tolist()


def test_the_heads_gradient_by_hand() -> None:
    # One token, two words in the vocabulary, logits (h, 0) with h = ln 3: probabilities 3/4 and 1/4. Its log-prob as
    # the first word is ln 3/4; the slope is weight[0] - (3/4 weight[0] + 1/4 weight[1]) = 1 - 3/4.
    hidden = torch.tensor([[math.log(3)]], requires_grad=True)
    found = likelihood.HeadLogProbs.apply(hidden, torch.tensor([[1.0], [0.0]]), None, torch.tensor([0]))  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(math.log(3 / 4))
    (2 * found).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.item() == pytest.approx(2 * 0.25)


def changed(tree: TokenTree, place: int) -> TokenTree:
    ids = array("i", tree.ids)
    ids[place] = 3 if ids[place] != 3 else 4
    return TokenTree(ids, tree.limbs, tree.answers)


def moved(model: Any, before: TokenTree, after: TokenTree) -> set[int]:
    """The answers whose log-probs changed."""
    one, other = (answer_log_probs(model, tree) for tree in (before, after))
    return {i for i, change in enumerate((one - other).abs().tolist()) if change > 1e-6}


def test_no_token_reaches_what_must_not_see_it(base: Path) -> None:
    """Every token of a tree is changed in turn; exactly the answers on its way change."""
    model, tree = loaded(base), grown()
    attention.use(model, 100)
    ways = []  # the tokens that an answer's log-probs may depend on
    for answer in tree.answers:
        (home,) = (limb for limb in tree.limbs if limb.start <= answer.start < limb.end)
        ways.append({*range(home.root, home.fork), *range(home.start, answer.end)})
    with torch.no_grad():
        for place in range(len(tree)):
            touched = {i for i, way in enumerate(ways) if place in way}
            assert moved(model, tree, changed(tree, place)) == touched, place


def test_joined_sessions_do_not_see_each_other(base: Path) -> None:
    model, one, other = loaded(base), grown(1), grown(2)
    attention.use(model, 100)
    with torch.no_grad():
        apart = torch.cat([answer_log_probs(model, tree) for tree in (one, other)])
        torch.testing.assert_close(answer_log_probs(model, joined([one, other])), apart, atol=1e-4, rtol=0)
        for place in range(0, len(one), 7):
            assert max(moved(model, joined([one, other]), joined([changed(one, place), other])), default=0) < 5
            assert min(moved(model, joined([other, one]), joined([other, changed(one, place)])), default=5) >= 5


def test_positions_count(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that see the same, one place further on, are another text."""
    model, tree = loaded(base), grown()
    attention.use(model, 100)
    with torch.no_grad():
        before = answer_log_probs(model, tree)
        moved_on = [p + (40 <= place < 47) for place, p in enumerate(tree.positions)]
        monkeypatch.setattr(TokenTree, "positions", moved_on)
        changes = (answer_log_probs(model, tree) - before).abs()
    assert [change > 1e-6 for change in changes.tolist()] == [False, True, False, False, False]


def test_the_slope_survives_rounding_where_the_model_is_sure() -> None:
    """Targets of probability 0.99 to 0.9999, in bfloat16, against float64 by autograd."""
    torch.manual_seed(0)
    weight = torch.randn(50, 16).bfloat16()
    sure = torch.tensor([4.6, 6.0, 9.2])[:, None]  # about this far above every other logit
    target = torch.tensor([3, 7, 11])
    others = [i for i in range(50) if i not in target.tolist()]
    weight[others] = (weight[others] * 0.05).to(weight.dtype)
    hidden = sure * weight[target].float() / weight[target].float().square().sum(dim=1, keepdim=True)
    rounded = hidden.bfloat16().requires_grad_()
    likelihood.HeadLogProbs.apply(rounded, weight, None, target).sum().backward()  # type: ignore[no-untyped-call]
    exact = rounded.detach().double().requires_grad_()
    F.cross_entropy(exact @ weight.double().T, target, reduction="sum").neg().backward()
    assert rounded.grad is not None
    assert exact.grad is not None
    apart = (rounded.grad.double() - exact.grad).norm(dim=1) / exact.grad.norm(dim=1)
    assert apart.max().item() < 0.05, apart  # the logits themselves are rounded to 1 in 256


def test_a_trained_head_is_refused(base: Path) -> None:
    model = loaded(base)
    model.get_output_embeddings().requires_grad_(True)
    attention.use(model, 100)
    with pytest.raises(ValueError, match="LM head is trained"):
        token_log_probs(model, grown())


def test_under_autocast_log_probs_are_float32(base: Path) -> None:
    model, tree = loaded(base), grown()
    attention.use(model, 100)
    exact = answer_log_probs(model, tree)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = answer_log_probs(model, tree)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0, rtol=0.05)
    rounded.sum().backward()
    assert gradient(model).isfinite().all()
