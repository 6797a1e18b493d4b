"""How estimates are written: tables as wide as a screen, shares that are shares."""

from __future__ import annotations

import numpy as np

from parrot_lite.evaluate.estimates import Numbers, across, bounded, contrast_table
from parrot_lite.evaluate.statistics import ALPHA, FEWEST, Estimate, sign_flip


def test_more_models_than_fit_stand_in_several_tables() -> None:
    names = ["base", "sft", "capo", "a model with a name that is longer than a cell"]
    first, second = across("Score", "Turn", names, ["1", "2"], lambda row, name: f"{name[0]}{row}", ("A note.",))
    assert (first.title, second.title) == ("Score, part 1 of 2", "Score, part 2 of 2")
    assert first.head == ("Turn", "base", "sft", "capo")
    assert first.rows == (("1", "b1", "s1", "c1"), ("2", "b2", "s2", "c2"))
    assert second.head == ("Turn", "a model with a name that is\nlonger than a cell")
    assert second.rows == (("1", "a1"), ("2", "a2"))
    assert (first.notes, second.notes) == ((), ("A note.",))
    (one,) = across("Score", "Turn", names[:3], [], lambda row, name: "", ("A note.",))
    assert (one.title, one.notes) == ("Score", ("A note.",))


def test_a_share_lies_between_nothing_and_all() -> None:
    found = bounded(Estimate(0.9, 0.7, 1.1, 8, 64))
    assert found is not None
    assert (found.mean, found.low, found.high) == (0.9, 0.7, 1.0)
    alone = Estimate(0.9, None, None, 1, 8)
    assert (bounded(alone), bounded(None)) == (alone, None)


def test_no_plan_asks_for_so_few_sessions_that_the_test_shows_nothing() -> None:
    """The formulas are of a t test; p is of exchanging models in whole sessions, which needs six."""
    assert sign_flip(np.ones(FEWEST - 1), 1, 0) > ALPHA > sign_flip(np.ones(FEWEST), 1, 0)
    for sessions, shown in ((FEWEST - 1, "-"), (FEWEST, "0")):
        values = {str(at): {1: 1.0 + at % 2 / 10} for at in range(sessions)}
        made = Numbers(100, 0).contrast(values, {session: {1: 0.0} for session in values})
        assert made is not None
        (row,) = contrast_table("T", {"a minus b": (made, "1")}, "Points", ".2f", 5.0).rows
        assert row[4].startswith(shown)
        assert row[5] == str(FEWEST)  # of that t test, 2
