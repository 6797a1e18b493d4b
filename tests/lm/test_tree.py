from __future__ import annotations

from array import array

import pytest

from parrot_lite.lm.tree import Answer, Limb, TokenTree, joined


def tree(ids: int, limbs: list[tuple[int, int, int, int]], answers: list[tuple[int, int, int]] = ()) -> TokenTree:  # type: ignore[assignment]
    return TokenTree(
        array("i", range(100, 100 + ids)), tuple(Limb(*one) for one in limbs), tuple(Answer(*one) for one in answers)
    )


# A trunk of six tokens; three more behind its fourth, two more behind its second. Scored: the trunk's last two and
# both branches.
TREE = tree(11, [(0, 0, 0, 6), (0, 4, 6, 9), (0, 2, 9, 11)], [(4, 6, 3), (6, 9, 3), (9, 11, 1)])


def test_positions_continue_from_the_fork() -> None:
    assert TREE.positions == [0, 1, 2, 3, 4, 5, 4, 5, 6, 2, 3]


def test_the_first_token_is_predicted_at_the_fork_and_each_other_one_before_itself() -> None:
    assert [answer.predictors for answer in TREE.answers] == [[3, 4], [3, 6, 7], [1, 9]]
    assert [len(answer) for answer in TREE.answers] == [2, 3, 2]


def test_rows_are_context_and_answer() -> None:
    assert TREE.context == 7
    assert [list(TREE.way(answer)) for answer in TREE.answers] == [
        [100, 101, 102, 103, 104, 105],
        [100, 101, 102, 103, 106, 107, 108],
        [100, 101, 109, 110],
    ]


def test_joined_trees_lie_one_behind_the_other() -> None:
    both = joined([TREE, TREE])
    assert list(both.ids) == [*TREE.ids, *TREE.ids]
    assert both.positions == TREE.positions * 2
    assert both.limbs[3:] == (Limb(11, 11, 11, 17), Limb(11, 15, 17, 20), Limb(11, 13, 20, 22))
    assert both.answers[3:] == (Answer(15, 17, 14), Answer(17, 20, 14), Answer(20, 22, 12))
    assert [len(both.way(answer)) for answer in both.answers] == [6, 7, 4] * 2
    assert joined([TREE]) == TREE


@pytest.mark.parametrize(
    ("limbs", "answers", "message"),
    [
        ([(0, 0, 0, 5)], [], "cover 5 of 6"),
        ([(0, 0, 0, 4), (0, 2, 5, 6)], [], "does not begin where"),  # a gap
        ([(0, 0, 0, 4), (0, 2, 3, 6)], [], "does not begin where"),  # twice
        ([(0, 0, 0, 4), (0, 2, 4, 4), (0, 2, 4, 6)], [], "does not begin where"),  # nothing in it
        ([(0, 0, 0, 4), (0, 5, 4, 6)], [], "does not fork from a trunk"),  # behind its trunk
        ([(0, 0, 0, 4), (1, 2, 4, 6)], [], "does not fork from a trunk"),  # from the middle of one
        ([(0, 0, 0, 2), (0, 1, 2, 4), (2, 3, 4, 6)], [], "does not fork from a trunk"),  # from a branch
        ([(0, 1, 0, 6)], [], "does not fork from a trunk"),
        ([(0, 0, 0, 6)], [(0, 2, -1)], "is not predicted"),  # nothing predicts a first token
        ([(0, 0, 0, 6)], [(4, 6, 2)], "is not predicted"),
        ([(0, 0, 0, 4), (0, 2, 4, 6)], [(4, 6, 3)], "is not predicted"),  # by what it does not see
        ([(0, 0, 0, 6)], [(4, 4, 3)], "within one limb"),
        ([(0, 0, 0, 6)], [(4, 7, 3)], "within one limb"),
        ([(0, 0, 0, 4), (0, 2, 4, 6)], [(3, 5, 2)], "within one limb"),
    ],
)
def test_what_does_not_hold_is_refused(
    limbs: list[tuple[int, int, int, int]], answers: list[tuple[int, int, int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tree(6, limbs, answers)
