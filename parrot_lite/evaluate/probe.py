"""The judge-free probe: how much an answer's likelihood leans on its history.

For held-out sessions, the session's own answer is scored under its true history, under another session's, and under
none. PMI-swap = NLL(swapped) - NLL(true), in nats a token: what the history adds to the answer's likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from parrot_lite.chat import adapter_inputs
from parrot_lite.context import dependence, other_history
from parrot_lite.evaluate import bench
from parrot_lite.evaluate.records import Likelihood
from parrot_lite.lm.model import load_for_inference, load_renderer
from parrot_lite.lm.tokens import Renderer
from parrot_lite.progress import progress
from parrot_lite.recipe import Local, Probe, Recipe
from parrot_lite.store import RunFolder
from parrot_lite.types import Dialogue

Item = tuple[str, int, str | None, str, Dialogue, str]  # session, turn, rule, condition, context, answer


def run(recipe: Recipe, folder: RunFolder) -> None:
    """Score every local model of ``[eval.models]``; appends to ``likelihoods.jsonl`` and resumes there.

    Raises UserError where fewer than two sessions are held out.
    """
    settings = recipe.eval.probe
    if settings is None:
        return
    heldout = bench.heldout(recipe, settings)
    renderer = load_renderer(recipe.model)
    wanted, too_long = [], 0
    for turn_items in items(heldout, settings, recipe.run.seed):
        if max(len(_ids(renderer, context, answer)[0]) for *_, context, answer in turn_items) > settings.max_tokens:
            too_long += 1
        else:
            wanted += turn_items
    folder.counts["probe: turns scored"] = len(wanted) // 3
    folder.counts["probe: turns left out, longer than probe.max_tokens"] = too_long
    local = {name: spec for name, spec in recipe.eval.models.items() if isinstance(spec, Local)}
    with (
        folder.journal(
            "likelihoods.jsonl", Likelihood, lambda r: (r.model, r.dialogue, r.turn, r.condition)
        ) as journal,
        progress("probe", len(local) * len(wanted), len(journal)) as bar,
    ):
        for name, spec in local.items():
            missing = [item for item in wanted if (name, item[0], item[1], item[3]) not in journal]
            if not missing:
                continue
            model = load_for_inference(recipe.model, next(iter(adapter_inputs(spec, recipe).values()), None))
            for session, turn, rule, condition, context, answer in missing:
                nll, tokens = score(model, renderer, context, answer)
                journal.append(
                    Likelihood.model_validate(
                        {
                            "model": name,
                            "dialogue": session,
                            "turn": turn,
                            "rule": rule,
                            "condition": condition,
                            "nll": nll,
                            "tokens": tokens,
                        }
                    )
                )
                bar.advance(1, name)
            del model


def items(sessions: list[Dialogue], settings: Probe, seed: int) -> Iterator[list[Item]]:
    """For each scored turn, its three conditions. Turns from the second on, the latest of each session."""
    for session in sessions:
        turns = range(2, len(session.answers) + 1)
        for turn in list(turns)[-settings.turns_per_session :]:
            context, answer = session.before(turn), session.answers[turn - 1]
            rule = dependence(session.queries[turn - 1], turn)
            alone = context.model_copy(update={"turns": context.turns[-1:]})
            history = other_history(sessions, session.id, turn, seed)
            swapped = context.model_copy(update={"turns": (*history, alone.turns[0])})
            yield [
                (session.id, turn, rule, condition, shown, answer)
                for condition, shown in (("true", context), ("swap", swapped), ("none", alone))
            ]


def _ids(renderer: Renderer, context: Dialogue, answer: str) -> tuple[tuple[int, ...], list[int]]:
    rendered = renderer.render(context.say(answer))
    last = len(context.turns)
    return rendered.ids, [i for i, message in enumerate(rendered.messages) if message == last]


@torch.inference_mode()
def score(model: Any, renderer: Renderer, context: Dialogue, answer: str) -> tuple[float, int]:
    """Summed NLL in nats (fp32) of the answer with its end-of-turn mark under ``context``, and its tokens."""
    ids, places = _ids(renderer, context, answer)
    end = places[-1] + 1
    input_ids = torch.tensor([ids[:end]], device=model.device)
    # Logits only where they are needed: over a whole sequence they would be the largest tensor there is.
    logits = model(input_ids=input_ids, logits_to_keep=end - places[0] + 1, use_cache=False).logits[0, :-1]
    targets = input_ids[0, places[0] : end]
    nll = F.cross_entropy(logits.float(), targets, reduction="sum")
    return float(nll), len(targets)
