"""The session tree on the real model: 8 turns x 3 dependent x 3 kinds against a row for every answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from parrot_lite.lm import attention
from parrot_lite.lm.likelihood import answer_log_probs
from parrot_lite.lm.model import load_renderer, load_trainable
from parrot_lite.recipe import Lora
from parrot_lite.train.packing import pack
from parrot_lite.types import KINDS, SessionTree
from tests.lm.test_template import session
from tests.tiny import REAL, needs_real, recipe, sessions
from tests.train.trees import branch


def long_session() -> SessionTree:
    """Real queries and the openings of real answers."""
    talks = sessions()[:17]
    dialogue = session(*(text for one in talks[:8] for text in (one.queries[0], " ".join(one.answers[0].split()[:10]))))
    others = [" ".join(one.answers[0].split()[:9]) for one in talks[8:]]
    places = [(turn, kind) for turn in (4, 6, 8) for kind in KINDS]
    return SessionTree(
        dialogue=dialogue,
        branches=tuple(branch(dialogue, *place, text) for place, text in zip(places, others, strict=True)),
    )


def gradient(model: torch.nn.Module) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()
    model.zero_grad()
    return found


@needs_real
@pytest.mark.parametrize(("nf4", "checkpointing"), [(False, False), (True, True)], ids=["fp32", "nf4-checkpointing"])
def test_one_pass_against_a_row_for_every_answer(tmp_path: Path, nf4: bool, checkpointing: bool) -> None:
    """NF4 with arithmetic in float32: the layout's own difference, without that of rounding."""
    made = recipe(tmp_path, REAL, "model.dtype=float32", f"model.load_in_4bit={str(nf4).lower()}")
    renderer, one = load_renderer(made.model), long_session()
    packed = pack(renderer, one, one.branches)
    assert len(packed.contrasts) == 9
    torch.manual_seed(0)
    model = load_trainable(made.model, None, Lora(), checkpointing)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first: an adapter that does nothing, and no gradient in the other half
            torch.nn.init.normal_(parameter, std=0.02)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    pull = torch.randn(len(packed.tree.answers))
    texts = {c.chosen: (c, "chosen") for c in packed.contrasts} | {
        c.rejected: (c, "rejected") for c in packed.contrasts
    }
    expected = []
    for place in range(len(packed.tree.answers)):
        contrast, side = texts[place]
        tree_branch = one.branches[packed.contrasts.index(contrast)]
        text = one.chosen(tree_branch) if side == "chosen" else tree_branch.negative.text
        prompt = renderer.prompt(one.context(tree_branch))
        answer = renderer.answer(one.context(tree_branch), prompt, text)
        ids = torch.tensor([[*prompt, *answer]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        log_prob = -F.cross_entropy(logits, torch.tensor(answer), reduction="sum")
        (pull[place] * log_prob).backward()
        expected.append(log_prob.item())
    by_rows = gradient(model)

    attention.use(model.get_base_model(), 2048)
    found = answer_log_probs(model, packed.tree)
    (pull * found).sum().backward()
    apart = (found.detach() - torch.tensor(expected)).abs().max().item()
    cosine = F.cosine_similarity(gradient(model), by_rows, dim=0).item()
    print(f"{len(packed.tree)} tokens for {packed.pair_tokens}: {apart:.1e} nats apart, gradients 1 - {1 - cosine:.1e}")
    assert apart < 5e-4
    assert cosine > 0.99999
