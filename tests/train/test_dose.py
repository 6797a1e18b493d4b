"""Which negatives are trained on: by kind, at turns that rows have in common, one a turn."""

from __future__ import annotations

import tomllib
from collections import Counter

import pytest

from parrot_lite.recipe import Capo
from parrot_lite.train.dose import dosed
from parrot_lite.types import KINDS, Kind, SessionTree
from tests.lm.test_template import session
from tests.train.trees import branch

LONG = session(*(text for turn in range(1, 8) for text in (f"Query {turn}?", f"Answer {turn}.")))


def capo(text: str = "") -> Capo:
    return Capo.model_validate(tomllib.loads(text), strict=False)


def hung(*turns: tuple[int, tuple[Kind, ...]], name: str = "one") -> SessionTree:
    """A session with a negative of each of these kinds at these turns."""
    dialogue = LONG.model_copy(update={"id": name})
    return SessionTree(
        dialogue=dialogue,
        branches=tuple(branch(dialogue, turn, k, f"{k} {turn}") for turn, kinds in turns for k in kinds),
    )


def left(trees: list[SessionTree], section: Capo) -> list[list[tuple[int, Kind]]]:
    return [[(one.turn, one.negative.kind) for one in tree.branches] for tree in dosed(trees, section)]


def test_by_default_every_negative_of_the_papers_kinds() -> None:
    given = hung((2, (*KINDS, "random")), (3, ("neglect",)))
    assert left([given], capo()) == [[(2, "neglect"), (2, "hallucination"), (2, "misunderstanding"), (3, "neglect")]]


def test_one_a_turn_goes_round_the_kinds_over_sessions() -> None:
    trees = [hung((2, KINDS), (3, KINDS), name="a"), hung((5, KINDS), (6, KINDS), name="b")]
    assert left(trees, capo("one_a_turn = true")) == [
        [(2, "neglect"), (3, "hallucination")],
        [(5, "misunderstanding"), (6, "neglect")],
    ]


def test_a_kind_that_is_missing_gives_its_turn_to_the_next_one() -> None:
    given = hung((2, ("misunderstanding",)), (3, ("neglect", "misunderstanding")), (4, ("neglect", "hallucination")))
    assert left([given], capo("one_a_turn = true")) == [
        [(2, "misunderstanding"), (3, "misunderstanding"), (4, "neglect")]
    ]


def test_rows_of_different_kinds_train_on_the_same_turns() -> None:
    everything: tuple[Kind, ...] = (*KINDS, "same-writer", "random")
    trees = [hung((2, everything), (3, KINDS), (4, (*KINDS, "random"))), hung((2, ("random",)))]
    shared = f"turns_with = {[*everything]}\n"
    rows = ["one_a_turn = true", 'kinds = ["same-writer"]', 'kinds = ["random"]']
    turns = [[turn for turn, _ in tree] for row in rows for tree in left(trees, capo(shared + row))]
    assert turns == [[2], []] * 3
    # A turn without a wanted kind is left out, and does not turn the wheel.
    assert left([hung((2, ("random",)), (3, KINDS))], capo("one_a_turn = true")) == [[(3, "neglect")]]


def test_the_writers_own_answer_as_the_chosen_one() -> None:
    given = hung((2, ("neglect", "same-writer")), (3, ("neglect",)), (4, ("neglect", "same-writer")))
    stranger = [one.model_copy(update={"writer": "another"}) for one in [given.branches[-1].negative]]
    strange = given.branches[-1].model_copy(update={"negative": stranger[0]})
    trees = [given, given.model_copy(update={"branches": (*given.branches[:-1], strange)})]
    section = capo('chosen = "same-writer"\nkinds = ["neglect"]')
    found = [
        [(one.turn, one.negative.text, tree.chosen(one)) for one in tree.branches] for tree in dosed(trees, section)
    ]
    assert found == [
        [(2, "neglect 2", "same-writer 2"), (4, "neglect 4", "same-writer 4")],
        [(2, "neglect 2", "same-writer 2")],  # at turn 4 it is another writer's
    ]


def test_a_pair_of_two_equal_answers_is_none() -> None:
    given = LONG.model_copy(update={"id": "one"})
    same = [branch(given, 2, kind, "the same") for kind in ("neglect", "same-writer")]
    section = capo('chosen = "same-writer"\nkinds = ["neglect"]')
    assert left([SessionTree(dialogue=given, branches=tuple(same))], section) == [[]]


@pytest.mark.parametrize("turns", [30, 31])
def test_the_kinds_have_equal_shares(turns: int) -> None:
    trees = [hung((2, KINDS), name=f"{number}") for number in range(turns)]
    shares = Counter(kind for tree in left(trees, capo("one_a_turn = true")) for _, kind in tree)
    assert sum(shares.values()) == turns
    assert max(shares.values()) - min(shares.values()) <= 1


def test_the_sessions_own_answer_at_another_turn() -> None:
    """A later one before an earlier one, of those the nearest in length, never the same words again."""
    given = session("a?", "one two", "b?", "one two", "c?", "one two three four five", "d?", "one two three")
    tree = SessionTree(
        dialogue=given,
        branches=tuple(branch(given, turn, kind, f"{kind} {turn}") for turn in (2, 3, 4) for kind in KINDS),
    )
    (found,) = dosed([tree], capo('kinds = ["other-turn"]'))
    assert [(one.turn, one.negative.text) for one in found.branches] == [
        (2, "one two three"),  # before five words; the first turn's are the chosen ones
        (3, "one two three"),
        (4, "one two"),  # nothing comes later
    ]
    assert found.branches[0].negative.saw == given.before(4).turns
    assert found.branches[0].rule == tree.branches[0].rule
    first = tree.branches[0].model_copy(update={"chosen": "one two three", "context": given.before(2).turns[-1:]})
    (kept,) = dosed([SessionTree(dialogue=given, branches=(first,))], capo('kinds = ["other-turn"]'))
    (own,) = kept.branches
    assert (own.negative.text, own.chosen, own.context) == ("one two three four five", first.chosen, first.context)
    only = SessionTree(dialogue=session("a?", "same", "b?", "same"), branches=(branch(given, 2, "neglect", "x"),))
    assert left([only], capo('kinds = ["other-turn"]')) == [[]]
    mixed = capo('kinds = ["neglect", "other-turn"]\none_a_turn = true')
    assert left([tree], mixed) == [[(2, "neglect"), (3, "other-turn"), (4, "neglect")]]
