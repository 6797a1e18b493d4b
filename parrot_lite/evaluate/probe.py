"""The judge-free probe: how much an answer's likelihood leans on its history.

Fixed answers are scored under their true history and under spoiled ones (variants.py); what the loss of the history
costs, in nats a token, is context use (context_use.py). All variants of a session are one token tree: the session is
its trunk and says the answers under the true history itself, another session's history is a second trunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from parrot_lite.chat import adapter_inputs
from parrot_lite.errors import UserError
from parrot_lite.evaluate import bench, choices, written
from parrot_lite.evaluate.records import LEFT_OUT, Choice, Likelihood, Played, Question, Written
from parrot_lite.evaluate.variants import Variant, of_bench, of_logs
from parrot_lite.lm import attention
from parrot_lite.lm.forest import Row, forests
from parrot_lite.lm.likelihood import answer_log_probs
from parrot_lite.lm.model import load_for_inference, load_renderer, skeleton
from parrot_lite.lm.tokens import Renderer
from parrot_lite.lm.tree import TokenTree, joined
from parrot_lite.progress import progress
from parrot_lite.recipe import Local, Probe, Recipe
from parrot_lite.store import RunFolder, read


@dataclass(frozen=True)
class Batch:
    """Variants that one forward pass scores: one answer of the tree each."""

    variants: tuple[Variant, ...]
    tree: TokenTree


def check(recipe: Recipe, settings: Probe) -> None:
    """Raises UserError where the base model's architecture does not take token trees: now, not after hours of play."""
    if any(isinstance(spec, Local) for spec in recipe.eval.models.values()):
        attention.use(skeleton(recipe.model), settings.max_tokens)


def run(recipe: Recipe, folder: RunFolder) -> None:
    """Score every local model of ``[eval.models]``; appends to ``likelihoods.jsonl`` and resumes there.

    Raises UserError where fewer than two sessions are held out, and where a model's architecture does not take trees.
    """
    settings = recipe.eval.probe
    if settings is None:
        return
    renderer = load_renderer(recipe.model)
    batches = laid_down(renderer, _sessions(recipe, settings, folder), settings, folder)
    pairs = choices.laid_down(recipe, settings, renderer, folder)
    number = sum(len(batch.variants) for batch in batches) + sum(len(some) for _, some in pairs)
    local = {name: spec for name, spec in recipe.eval.models.items() if isinstance(spec, Local)}
    with (
        folder.journal("likelihoods.jsonl", Likelihood, _key) as likelihoods,
        folder.journal("choices.jsonl", Choice, _choice_key) as chosen,
        progress("probe", len(local) * number, len(likelihoods) + len(chosen)) as bar,
    ):
        for name, spec in local.items():
            # A batch that was interrupted is scored whole again: another layout would round otherwise.
            left = [batch for batch in batches if any((name, *one.key) not in likelihoods for one in batch.variants)]
            undecided = [
                (session, some)
                for session, some in pairs
                if any((name, session, one.turn, one.negative.kind, one.negative.how) not in chosen for one, *_ in some)
            ]
            if not left and not undecided:
                continue
            model = loaded(recipe, spec, settings.max_tokens)
            for batch in left:
                for one in scored(model, name, batch):
                    if _key(one) not in likelihoods:
                        likelihoods.append(one)
                        bar.advance(1, name)
            for session, some in undecided:
                for choice in choices.chosen(model, name, session, some, settings.tree_tokens):
                    if _choice_key(choice) not in chosen:
                        chosen.append(choice)
                        bar.advance(1, name)
            del model


def _choice_key(one: Choice) -> tuple[object, ...]:
    return one.model, one.dialogue, one.turn, one.kind, one.how


def _key(one: Likelihood) -> tuple[object, ...]:
    return one.model, one.dialogue, one.turn, one.answer, one.condition


def loaded(recipe: Recipe, spec: Local, longest: int) -> Any:
    """A model that scores trees whose ways have at most ``longest`` tokens. Raises as ``attention.use`` does."""
    adapter = next(iter(adapter_inputs(spec, recipe).values()), None)
    model = load_for_inference(recipe.model, adapter).requires_grad_(False)
    attention.use(model.get_base_model() if hasattr(model, "get_base_model") else model, longest)
    return model


@torch.inference_mode()
def scored(model: Any, name: str, batch: Batch) -> list[Likelihood]:
    """What ``model`` says of a batch's variants. Raises UserError where that is not a number."""
    sums = answer_log_probs(model, batch.tree).tolist()
    found: list[Likelihood] = []
    for variant, answer, total in zip(batch.variants, batch.tree.answers, sums, strict=True):
        if not math.isfinite(total):
            where = f"{name}, dialogue {variant.dialogue}, turn {variant.query.turn}"
            raise UserError("a log-prob is not a number", where, "Try model.dtype")
        found.append(
            Likelihood(
                model=name,
                dialogue=variant.dialogue,
                turn=variant.query.turn,
                answer=variant.answer,
                rule=variant.query.rule,
                phenomena=variant.query.phenomena,
                condition=variant.condition,
                nll=-total,
                tokens=len(answer),
            )
        )
    return found


def _sessions(recipe: Recipe, settings: Probe, folder: RunFolder) -> list[list[Variant]]:
    """The variants of each session: held-out ones, then those that ``bench_from`` played."""
    heldout, seed = bench.heldout(recipe, settings), recipe.run.seed
    wrote: dict[tuple[str, int], Written] = {}
    if "same-writer" in settings.answers:
        wrote = {(one.dialogue, one.turn): one for one in read(folder.path / written.FILE, Written)}
        for one in wrote.values():
            if one.reason is not None:
                folder.counts[f"{LEFT_OUT}same-writer, {one.reason}"] += 1
            folder.counts["probe: same-writer's answers cut at max_tokens"] += not one.ended
    found = list(of_logs(heldout, wrote, settings, seed))
    if settings.bench_from is not None:
        played = [one for one in read(folder.path / "answers.jsonl", Played) if one.model == settings.bench_from]
        found += of_bench(played, list(read(folder.path / bench.QUESTIONS, Question)), settings, seed)
    return found


def laid_down(
    renderer: Renderer, sessions: Iterable[Sequence[Variant]], settings: Probe, folder: RunFolder
) -> list[Batch]:
    """Sessions as token trees, as many a batch as ``tree_tokens`` hold. What was left out is counted in ``folder``.

    An answer one of whose histories is too long is left out under all of them. Raises UserError where an answer's
    tokens depend on its history.
    """
    batches: list[Batch] = []
    variants: list[Variant] = []
    trees: list[TokenTree] = []
    counts = folder.counts
    for session in sessions:
        rows = _fitting(renderer, session, settings, folder)
        if not rows:
            continue
        counts["probe: sessions"] += 1
        counts["probe: likelihoods a model"] += len(rows)
        counts["probe: tokens of rows"] += sum(len(prompt) + len(answer) for _, (prompt, answer) in rows)
        for places, tree in forests([row for _, row in rows], settings.tree_tokens):
            counts["probe: tokens of trees"] += len(tree)
            if trees and sum(map(len, trees)) + len(tree) > settings.tree_tokens:
                batches.append(Batch(tuple(variants), joined(trees)))
                variants, trees = [], []
            variants += (rows[place][0] for place in places)
            trees.append(tree)
    if trees:
        batches.append(Batch(tuple(variants), joined(trees)))
    return batches


def _fitting(
    renderer: Renderer, variants: Sequence[Variant], settings: Probe, folder: RunFolder
) -> list[tuple[Variant, Row]]:
    """The variants of a session with their rows, without answers that are too long under one of their histories."""
    answers: dict[tuple[int, str], list[Variant]] = {}
    for one in variants:
        answers.setdefault((one.query.turn, one.answer), []).append(one)
    found: list[tuple[Variant, Row]] = []
    for (turn, by), group in answers.items():
        rows = [renderer.row(one.context, one.text, one.ended) for one in group]
        if len({answer for _, answer in rows}) > 1:
            where = f"dialogue {group[0].dialogue}, turn {turn}"
            raise UserError("an answer's tokens depend on its history", where, "Choose another model.template")
        if max(len(prompt) + len(answer) for prompt, answer in rows) > settings.max_tokens:
            folder.counts[f"{LEFT_OUT}{by} answer, longer than probe.max_tokens"] += 1
            continue
        found += zip(group, rows, strict=True)
        folder.counts[f"probe: {by} answers scored"] += 1
    return found
