"""How estimates are written: tables as wide as a screen, shares that are shares."""

from __future__ import annotations

from parrot_lite.evaluate.estimates import across, bounded
from parrot_lite.evaluate.statistics import Estimate


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
