"""Rows as one tree: the layout by hand, and random rows whose every way must come out again."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from parrot_lite.lm.forest import Row, forest, forests
from parrot_lite.lm.tree import Limb


def test_rows_that_share_their_beginning_are_laid_down_once() -> None:
    rows: list[Row] = [((1, 2, 3, 4), (8, 9)), ((1, 2, 5), (8, 9)), ((7,), (8, 9)), ((1, 2, 3), (8, 9))]
    tree = forest(rows)
    assert list(tree.ids) == [1, 2, 3, 4, 8, 9, 8, 9, 5, 8, 9, 7, 8, 9]
    assert tree.limbs == (Limb(0, 0, 0, 6), Limb(0, 3, 6, 8), Limb(0, 2, 8, 11), Limb(11, 11, 11, 14))
    assert [tuple(tree.way(answer)) for answer in tree.answers] == [prompt + answer for prompt, answer in rows]


def test_what_a_trunk_says_itself_needs_no_branch() -> None:
    tree = forest([((1, 2), (3, 4)), ((1, 2, 3, 4, 5), (6,)), ((1, 2), (3, 4))])
    assert list(tree.ids) == [1, 2, 3, 4, 5, 6]
    assert [(answer.start, answer.end, answer.before) for answer in tree.answers] == [(2, 4, 1), (5, 6, 4), (2, 4, 1)]


def test_an_answer_is_never_parted() -> None:
    """It begins as the trunk goes on, so it could leave it two tokens later; an answer lies within one limb."""
    tree = forest([((1, 2), (3, 4, 5, 6)), ((1, 2), (3, 4, 7))])
    assert tree.limbs == (Limb(0, 0, 0, 6), Limb(0, 2, 6, 9))
    assert list(tree.ids) == [1, 2, 3, 4, 5, 6, 3, 4, 7]


def test_a_second_history_becomes_a_trunk_where_that_saves_tokens() -> None:
    """Both histories open alike; repeating those two tokens spares the six that two rows share behind them."""
    true, other = (1, 1, *range(10, 18)), (1, 1, *range(20, 26))
    rows: list[Row] = [((*true, 50), (60,)), ((*true, 51), (60,)), ((*other, 50), (60,)), ((*other, 51), (60,))]
    tree = forest(rows)
    assert len([limb for limb in tree.limbs if not limb.seen]) == 2
    assert len(tree) == (10 + 2) + 2 + (8 + 2) + 2


def test_only_rows_with_something_to_score() -> None:
    for rows in ([], [((), (1,))], [((1,), ())]):
        with pytest.raises(ValueError, match="has a prompt and an answer"):
            forest(rows)


def drawn(draw: random.Random) -> list[Row]:
    """Rows over two letters, so that they share a lot, and repeat, and begin one another."""
    return [
        (tuple(draw.choices((1, 2), k=draw.randint(1, 9))), tuple(draw.choices((1, 2), k=draw.randint(1, 4))))
        for _ in range(draw.randint(1, 12))
    ]


def test_random_rows_come_out_again_in_any_order() -> None:
    draw = random.Random(0)
    for _ in range(300):
        rows = drawn(draw)
        tree = forest(rows)  # a TokenTree checks that its limbs and answers hold
        for (prompt, answer), found in zip(rows, tree.answers, strict=True):
            assert tuple(tree.way(found)) == prompt + answer
            assert len(found) == len(answer)
        order = draw.sample(range(len(rows)), len(rows))
        other = forest([rows[place] for place in order])
        assert (other.ids, other.limbs) == (tree.ids, tree.limbs)
        assert other.answers == tuple(tree.answers[place] for place in order)


def fewest(rows: list[Row]) -> int:
    """The tokens of the best choice of trunks, by trying them all."""
    unique = sorted(set(rows))

    def spared(row: Row, trunk: Row) -> int:
        way, other = row[0] + row[1], trunk[0] + trunk[1]
        if other[: len(way)] == way:
            return len(way)
        return max(n for n in range(len(row[0]) + 1) if other[:n] == way[:n])

    total = sum(len(prompt) + len(answer) for prompt, answer in unique)
    best = total
    for count in range(1, len(unique) + 1):
        for trunks in combinations(unique, count):
            saved = sum(max(spared(row, trunk) for trunk in trunks) for row in unique if row not in trunks)
            best = min(best, total - saved)
    return best


def test_greedy_trunks_are_close_to_the_best_ones() -> None:
    draw = random.Random(1)
    found = [(len(forest(rows)), fewest(rows)) for rows in (drawn(draw)[:8] for _ in range(100))]
    assert all(tokens >= best for tokens, best in found)
    assert sum(tokens for tokens, _ in found) < 1.05 * sum(best for _, best in found)


def test_forests_keep_within_their_tokens_and_hold_every_row() -> None:
    draw = random.Random(2)
    for _ in range(100):
        rows = drawn(draw)
        parts = list(forests(rows, 20))
        assert sorted(place for places, _ in parts for place in places) == list(range(len(rows)))
        for places, tree in parts:
            assert len(tree) <= 20
            assert [tuple(tree.way(answer)) for answer in tree.answers] == [sum(rows[p], ()) for p in places]
    assert len(list(forests(rows, 1000))) == 1
    with pytest.raises(ValueError, match="13 tokens where 12 are allowed"):
        list(forests([((1,) * 9, (2,) * 4)], 12))
