"""Two crowds that write alike are not told apart, two that do not are; and the area by another implementation."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from parrot_lite.evaluate import classifier
from parrot_lite.evaluate.classifier import FOLDS, Query, auc, later_queries, matched
from tests.test_types import talk

WORDS = [f"{a}{b}" for a in ("ba", "ki", "lo", "mu", "re", "to") for b in ("n", "sh", "t", "ll", "m", "d", "nd", "rk")]


def crowd(name: str, sessions: int, turns: int, seed: int, end: str = "?") -> list[Query]:
    rng = random.Random(seed)
    return [
        Query(f"{name}-{session}", turn, " ".join(rng.choices(WORDS, k=8)) + end)
        for session in range(sessions)
        for turn in range(2, turns + 2)
    ]


def test_the_same_crowd_twice_is_not_told_apart() -> None:
    found = auc(crowd("a", 80, 3, seed=1), crowd("b", 80, 3, seed=2), 500, 0)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.mean == pytest.approx(0.5, abs=0.08)
    assert found.low < 0.5 < found.high
    assert 0.05 < found.high - found.low < 0.25
    assert (found.sessions, found.values) == (160, 480)


def test_a_habit_gives_a_crowd_away() -> None:
    found = auc(crowd("a", 40, 3, seed=1), crowd("b", 40, 3, seed=2, end="!"), 200, 0)
    assert found is not None
    assert found.mean > 0.99
    again = auc(crowd("b", 40, 3, seed=2, end="!"), crowd("a", 40, 3, seed=1), 200, 0)
    assert again is not None
    assert again.mean > 0.99  # who is called real does not matter


def test_a_session_is_never_on_both_sides() -> None:
    """Each session says one thing of its own over and over: what tells them in training is not there when tried."""
    rng = random.Random(0)

    def own(name: str) -> list[Query]:
        said = [" ".join(f"{rng.choice(WORDS)}{rng.random():.9f}" for _ in range(5)) for _ in range(40)]
        return [Query(f"{name}-{i}", turn, text) for i, text in enumerate(said) for turn in (2, 3, 4, 5)]

    found = auc(own("a"), own("b"), 200, 0)
    assert found is not None
    assert 0.2 < found.mean < 0.8  # 1 if sessions were split


def test_folds_hold_whole_sessions_and_are_as_large() -> None:
    dealt = classifier._dealt(crowd("a", 23, 2, seed=0), seed=5)
    sessions = [{query.session for query in fold} for fold in dealt]
    assert [len(fold) for fold in sessions] == [5, 5, 5, 4, 4]
    assert sum(map(len, sessions)) == len(set().union(*sessions)) == 23


def test_the_area_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.integers(0, 9, 12), rng.integers(2, 11, 9)  # with ties
    ordered = (generated > real[:, None]) + 0.5 * (generated == real[:, None])
    weights = rng.integers(0, 4, 12), rng.integers(0, 4, 9)
    (found,) = classifier._area([(ordered, np.arange(12), np.arange(9))], weights[0][None], weights[1][None])
    labels, scores = [0] * 12 + [1] * 9, [*real, *generated]
    assert found == pytest.approx(roc_auc_score(labels, scores, sample_weight=np.concatenate(weights)))


def test_matching_by_hand() -> None:
    real = later_queries([talk("a", "-", "b", "-", "c", "-", "d", name="r1"), talk("e", "-", "f", "-", name="r2")])
    assert sorted(real) == [Query("r1", 2, "b"), Query("r1", 3, "c"), Query("r1", 4, "d"), Query("r2", 2, "f")]
    made = later_queries([talk("g", "-", f"h{i}", "-", f"i{i}", name=f"g{i}") for i in range(6)])
    one, other = matched(real, made, 0)
    assert sorted(one) == [Query("r1", 2, "b"), Query("r1", 3, "c"), Query("r2", 2, "f")]  # nobody made a turn 4
    assert Counter(query.turn for query in other) == {2: 2, 3: 1}
    assert set(other) <= set(made)
    assert matched(real, made, 0) == (one, other)
    assert {tuple(matched(real, made, seed)[1]) for seed in range(8)} != {tuple(other)}
    assert matched(real, [], 0) == ([], [])


def test_too_few_sessions_give_no_area() -> None:
    assert auc(crowd("a", FOLDS - 1, 9, seed=1), crowd("b", 50, 2, seed=2), 100, 0) is None
    assert auc([], [], 100, 0) is None
