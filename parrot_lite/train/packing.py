"""Session trees → token trees: a session and all its negatives in one sequence, each chosen answer once.

The chosen answers of all turns of a session are the session: it is laid down once, as the trunk, and every negative
hangs on it as a branch at its turn. Tokens = session + negatives, instead of 2 x (prompt + answer) for every pair.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parrot_lite.errors import UserError
from parrot_lite.lm.tree import Answer, Limb, TokenTree, joined
from parrot_lite.progress import progress, say
from parrot_lite.recipe import Capo
from parrot_lite.store import RunFolder
from parrot_lite.train.dose import dosed
from parrot_lite.types import Branch, Dialogue, Kind, SessionTree, Turn

if TYPE_CHECKING:
    from parrot_lite.lm.tokens import Renderer

MANY = 200  # sessions that take long enough to lay down for a bar


@dataclass(frozen=True)
class Contrast:
    """A chosen and a rejected answer, by their places among the tree's answers."""

    chosen: int
    rejected: int
    kind: Kind


@dataclass(frozen=True)
class Packed:
    """One session as a token tree, with the pairs that it holds."""

    session: str
    tree: TokenTree
    contrasts: tuple[Contrast, ...]

    @property
    def pair_tokens(self) -> int:
        """The tokens of the same pairs in the usual layout: a row for each chosen and each rejected answer."""
        rows = [len(self.tree.way(answer)) for answer in self.tree.answers]
        return sum(rows[one.chosen] + rows[one.rejected] for one in self.contrasts)


def packed(
    renderer: Renderer, trees: Iterable[SessionTree], section: Capo, folder: RunFolder, total: int
) -> list[Packed]:
    """Every tree that has negatives of the wanted kinds, with what was cut or left out counted in ``folder``.

    ``total`` is the number of trees, for the bar. Raises UserError where nothing is left.
    """
    kept: list[Packed] = []
    counts = folder.counts
    pairs = 0
    with progress(f"{folder.stage}: laying down", total) if total > MANY else nullcontext() as bar:
        for tree in dosed(trees, section):
            if bar is not None:
                bar.advance()
            branches = list(tree.branches)
            if section.pairs is not None:
                counts["pairs not used: capo.pairs reached"] += max(0, pairs + len(branches) - section.pairs)
                branches = branches[: section.pairs - pairs]
            if not branches:
                continue
            one, cut = _fitting(renderer, tree, branches, section)
            there = len(one.contrasts) if one else 0
            counts["pairs left out: their session is too long"] += len(branches) - there
            if one is not None:
                kept.append(one)
                pairs += there
                counts["sessions whose first exchanges were cut"] += cut > 0
                counts.update(f"pairs of {contrast.kind}" for contrast in one.contrasts)
    if not kept:
        raise UserError("no pair is left to train on", folder.stage, "Raise max_tokens, or widen capo.kinds or how")
    cut = counts["sessions whose first exchanges were cut"]
    lost = counts["pairs left out: their session is too long"]
    if cut or lost:
        say(f"{folder.stage}: max_tokens and tree_tokens cost {cut} sessions their first exchanges, and {lost} pairs")
    return kept


def _fitting(
    renderer: Renderer, tree: SessionTree, branches: Sequence[Branch], section: Capo
) -> tuple[Packed | None, int]:
    """The tree within ``max_tokens`` and ``tree_tokens``, and how many of the session's exchanges that cost.

    The first exchanges go first, each with the branches that hang there: the late turns are what CaPO is about. A
    context of a branch's own loses its own first exchanges. What does not fit by itself is left out at once, so that
    nothing else has to make room for it.
    """
    whole = pack(renderer, tree, branches)
    if _fits(whole, section):
        return whole, 0
    possible = [b for b in (_alone(renderer, tree, branch, section.max_tokens) for branch in branches) if b]
    for cut, left in _smaller(possible):
        one = pack(renderer, tree, left, cut)
        if _fits(one, section):
            return one, cut
    return None, 0


def _fits(one: Packed, section: Capo) -> bool:
    return one.tree.context <= section.max_tokens and len(one.tree) <= section.tree_tokens


def _alone(renderer: Renderer, tree: SessionTree, branch: Branch, max_tokens: int) -> Branch | None:
    """The branch, a context of its own cut to fit; None where its query and answers are too long by themselves."""
    context = tree.context(branch)
    for cut in range(len(context.queries)):
        shown = context.model_copy(update={"turns": context.turns[2 * cut :]})
        prompt = renderer.prompt(shown)
        answers = (renderer.answer(shown, prompt, text) for text in (tree.chosen(branch), branch.negative.text))
        if len(prompt) + max(map(len, answers)) <= max_tokens:
            return branch if branch.context is None else branch.model_copy(update={"context": shown.turns})
    return None


def _smaller(branches: Sequence[Branch]) -> Iterator[tuple[int, list[Branch]]]:
    """Ever less of a session: without its first exchanges, then without the first of the branches that are left."""
    last = max((branch.turn for branch in branches if branch.context is None), default=1)
    left = list(branches)
    for cut in range(last):
        left = [branch for branch in branches if branch.context is not None or branch.turn > cut]
        if left:
            yield cut, left
    for first in range(1, len(left)):
        yield last - 1, left[first:]


def pack(renderer: Renderer, tree: SessionTree, branches: Sequence[Branch], cut: int = 0) -> Packed:
    """Lay down ``branches`` and what they hang on, without the session's first ``cut`` exchanges.

    Branches with a context of their own hang on a trunk of their own. Raises UserError where the template's tokens of
    a prompt are not the beginning of the session's.
    """
    groups: dict[tuple[Turn, ...] | None, list[Branch]] = {}
    for branch in branches:
        groups.setdefault(branch.context, []).append(branch)
    parts: list[TokenTree] = []
    contrasts: list[Contrast] = []
    for context, group in groups.items():
        if context is None:
            last = max(branch.turn for branch in group)
            trunk = tree.dialogue.model_copy(update={"turns": tree.dialogue.turns[2 * cut : 2 * last]})
            forks = [2 * (branch.turn - cut) - 1 for branch in group]
        else:
            trunk = tree.context(group[0]).say(tree.chosen(group[0]))
            forks = [len(context)] * len(group)
        texts = [(tree.chosen(branch), branch.negative.text) for branch in group]
        part, places = _lay(renderer, trunk, forks, texts)
        before = sum(len(earlier.answers) for earlier in parts)
        contrasts += (
            Contrast(before + chosen, before + rejected, branch.negative.kind)
            for branch, (chosen, rejected) in zip(group, places, strict=True)
        )
        parts.append(part)
    return Packed(tree.id, joined(parts), tuple(contrasts))


def _lay(
    renderer: Renderer, trunk: Dialogue, forks: Sequence[int], texts: Sequence[tuple[str, str]]
) -> tuple[TokenTree, list[tuple[int, int]]]:
    """A trunk with a chosen and a rejected answer at the message that each of ``forks`` names, from 0.

    An answer that the trunk says itself needs no branch. The trunk ends where nothing needs it any more.
    """
    rendered = renderer.render(trunk)
    spans: dict[int, tuple[int, int]] = {}
    for message in sorted(set(forks)):
        mine = [i for i, owner in enumerate(rendered.messages) if owner == message]
        spans[message] = mine[0], mine[-1] + 1
    said = [trunk.turns[message].content in both for message, both in zip(forks, texts, strict=True)]
    end = max(spans[message][spoken] for message, spoken in zip(forks, said, strict=True))
    ids = array("i", rendered.ids[:end])
    limbs = [Limb(0, 0, 0, end)]
    answers: list[Answer] = []
    places: dict[tuple[int, str], int] = {}

    def place(message: int, text: str) -> int:
        if (message, text) in places:
            return places[message, text]
        fork, close = spans[message]
        if text == trunk.turns[message].content:
            answers.append(Answer(fork, close, fork - 1))
        else:
            context = trunk.model_copy(update={"turns": trunk.turns[:message]})
            start = len(ids)
            ids.extend(renderer.answer(context, rendered.ids[:fork], text))
            limbs.append(Limb(0, fork, start, len(ids)))
            answers.append(Answer(start, len(ids), fork - 1))
        return places.setdefault((message, text), len(answers) - 1)

    pairs = [(place(at, chosen), place(at, rejected)) for at, (chosen, rejected) in zip(forks, texts, strict=True)]
    return TokenTree(ids, tuple(limbs), tuple(answers)), pairs
