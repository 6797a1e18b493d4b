"""Likelihoods by one row a forward pass, laid down without a token tree: what trees are compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from parrot_lite.lm.tokens import Renderer
from parrot_lite.types import Dialogue


@torch.inference_mode()
def score(model: Any, renderer: Renderer, context: Dialogue, answer: str) -> tuple[float, int]:
    """Summed NLL in nats (fp32) of the answer with its end-of-turn mark under ``context``, and its tokens."""
    rendered = renderer.render(context.say(answer))
    places = [i for i, message in enumerate(rendered.messages) if message == len(context.turns)]
    end = places[-1] + 1
    input_ids = torch.tensor([rendered.ids[:end]], device=model.device)
    logits = model(input_ids=input_ids, use_cache=False).logits[0, places[0] - 1 : end - 1]
    targets = input_ids[0, places[0] : end]
    nll = F.cross_entropy(logits.float(), targets, reduction="sum")
    return float(nll), len(targets)
