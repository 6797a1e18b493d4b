"""The clustered bootstrap against what can be worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parrot_lite.evaluate.statistics import Estimate, difference, mean


def test_nothing_gives_nothing() -> None:
    assert mean({}, 100, 0) is None
    assert mean({"a": {}}, 100, 0) is None
    assert difference({"a": {1: 1.0}}, {"a": {2: 1.0}, "b": {1: 1.0}}, 100, 0) is None


def test_one_session_has_a_mean_and_no_interval() -> None:
    estimate = mean({"a": {1: 2.0, 2: 5.0}}, 100, 0)
    assert estimate == Estimate(3.5, None, None, 1, 2)
    assert estimate.detectable is None


def test_two_sessions_by_hand() -> None:
    # A resample is aa, ab, ba or bb, so the 2.5% and 97.5% points are the sessions' own means.
    estimate = mean({"a": {1: 1.0}, "b": {1: 3.0, 2: 9.0, 3: 9.0}}, 2000, 0)
    assert estimate == Estimate(22 / 4, 1.0, 7.0, 2, 4)


def test_interval_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    estimate = mean({str(index): {1: float(value)} for index, value in enumerate(values)}, 4000, 3)
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    error = float(values.std()) / math.sqrt(len(values))
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert estimate.detectable == pytest.approx(2.802 * error, rel=0.06)


def test_more_turns_that_say_the_same_do_not_narrow_the_interval() -> None:
    once = {str(index): {1: float(index % 5)} for index in range(20)}
    often = {session: dict.fromkeys(range(8), turns[1]) for session, turns in once.items()}
    first, second = mean(once, 500, 0), mean(often, 500, 0)
    assert first is not None
    assert second is not None
    assert (second.mean, second.low, second.high) == pytest.approx((first.mean, first.low, first.high))
    assert (first.values, second.values) == (20, 160)


def test_difference_is_paired_by_turn() -> None:
    base = {str(index): {1: float(index), 2: index / 2} for index in range(10)}
    better = {session: {turn: value + 0.25 for turn, value in turns.items()} for session, turns in base.items()}
    del better["0"]
    del base["3"][1]  # an unjudged turn on one side: neither side may count it
    estimate = difference(better, base, 200, 0)
    assert estimate is not None
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((0.25, 0.25, 0.25))
    assert (estimate.sessions, estimate.values) == (9, 17)


def test_same_seed_same_interval() -> None:
    values = {str(index): {1: float(index)} for index in range(7)}
    assert mean(values, 50, 4) == mean(values, 50, 4)
    assert mean(values, 50, 4) != mean(values, 50, 5)
