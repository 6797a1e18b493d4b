"""Which of the written pairs are trained on: the same turns in rows that are compared, and how many at each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from parrot_lite.recipe import Capo
from parrot_lite.types import Branch, Negative, SessionTree


def dosed(trees: Iterable[SessionTree], section: Capo) -> Iterator[SessionTree]:
    """Every tree with the branches that ``section`` trains on, which may be none."""
    turns = 0  # over all trees, so that every kind has its share
    for tree in trees:
        kept: list[Branch] = []
        for turn in dict.fromkeys(branch.turn for branch in tree.branches):
            there = (*tree.at(turn), *_of_another_turn(tree, turn))
            if not {branch.negative.kind for branch in there}.issuperset(section.turns_with):
                continue
            wanted = [one for one in there if section.trains(one.negative.kind, one.negative.how)]
            if section.chosen == "same-writer":
                wanted = [better for one in wanted if (better := _by_its_writer(one, there)) is not None]
            if wanted and section.one_a_turn:
                wanted = [_in_rotation(wanted, section, turns)]
            turns += bool(wanted)
            kept += wanted
        yield tree.model_copy(update={"branches": tuple(kept)})


def _of_another_turn(tree: SessionTree, turn: int) -> Iterator[Branch]:
    """The session's own answer to another query as the worse one: of the same author and on the same subject.

    A later one if there is one, for an earlier one stands in the history. What it is contrasted with, and the context,
    are those of the first negative that was written there.
    """
    first, answers = tree.at(turn)[0], tree.dialogue.answers
    others = [number for number, text in enumerate(answers, 1) if number != turn and text != tree.chosen(first)]
    if others:
        words = len(tree.chosen(first).split())
        among = [number for number in others if number > turn] or others
        number = min(among, key=lambda one: abs(len(answers[one - 1].split()) - words))
        negative = Negative(
            kind="other-turn",
            text=answers[number - 1],
            how="structural",
            writer="session",
            done=f"the session's answer at turn {number}",
            saw=tree.dialogue.before(number).turns,
        )
        yield first.model_copy(update={"negative": negative})


def _by_its_writer(branch: Branch, there: Iterable[Branch]) -> Branch | None:
    """The pair with the writer's own answer under the true history as the chosen one; None where it has none."""
    for other in there:
        if other.negative.kind == "same-writer" and other.negative.writer == branch.negative.writer:
            text = other.negative.text
            return None if text == branch.negative.text else branch.model_copy(update={"chosen": text})
    return None


def _in_rotation(branches: Iterable[Branch], section: Capo, turn: int) -> Branch:
    """The branch whose kind has its turn, or of the next kind in ``section.kinds`` that is there."""
    order = len(section.kinds)
    return min(branches, key=lambda one: (section.kinds.index(one.negative.kind) - turn) % order)
