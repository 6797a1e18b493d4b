"""Session trees → pairs of one chosen and one rejected answer, as ids: the layout of TRL's ``DPOTrainer``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from parrot_lite.errors import UserError
from parrot_lite.recipe import Capo
from parrot_lite.store import RunFolder
from parrot_lite.train.dose import dosed
from parrot_lite.types import Dialogue, Kind, SessionTree

if TYPE_CHECKING:
    from parrot_lite.lm.tokens import Renderer


@dataclass(frozen=True)
class Pair:
    """One chosen and one rejected answer behind one prompt, as ids; both answers end with the end-of-turn mark."""

    session: str
    turn: int
    kind: Kind
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def pairs(renderer: Renderer, trees: Iterable[SessionTree], section: Capo, folder: RunFolder) -> list[Pair]:
    """One pair a branch of the wanted kinds, cut and left out with a count.

    A prompt too long for ``max_tokens`` loses its first exchanges, whole: the late turns are what CaPO is about.
    Raises UserError where nothing is left.
    """
    kept: list[Pair] = []
    for pair, cut in _candidates(renderer, trees, section):
        if section.pairs is not None and len(kept) == section.pairs:
            folder.counts["pairs not used: capo.pairs reached"] += 1
        elif pair is None:
            folder.counts["pairs left out: query and answer alone exceed max_tokens"] += 1
        else:
            folder.counts[f"pairs of {pair.kind}"] += 1
            folder.counts["pairs whose first exchanges were cut"] += bool(cut)
            kept.append(pair)
    if not kept:
        raise UserError("no pair is left to train on", "train-capo", "Raise max_tokens, or widen capo.kinds or how")
    return kept


def _candidates(renderer: Renderer, trees: Iterable[SessionTree], section: Capo) -> Iterator[tuple[Pair | None, int]]:
    for tree in dosed(trees, section):
        yield from _of_tree(renderer, tree, section)


def _of_tree(renderer: Renderer, tree: SessionTree, section: Capo) -> Iterator[tuple[Pair | None, int]]:
    @cache  # the negatives of a turn share all of this
    def shared(context: Dialogue, chosen: str, cut: int) -> tuple[Dialogue, tuple[int, ...], tuple[int, ...]]:
        shown = context.model_copy(update={"turns": context.turns[2 * cut :]})
        prompt = tuple(renderer.prompt(shown))
        return shown, prompt, renderer.answer(shown, prompt, chosen)

    for branch in tree.branches:
        context = tree.context(branch)
        for cut in range(len(context.queries)):
            shown, prompt, chosen = shared(context, tree.chosen(branch), cut)
            if len(prompt) + len(chosen) > section.max_tokens:
                continue
            rejected = renderer.answer(shown, prompt, branch.negative.text)
            if len(prompt) + len(rejected) <= section.max_tokens:
                yield Pair(tree.id, branch.turn, branch.negative.kind, prompt, chosen, rejected), cut
                break
        else:
            yield None, 0
