"""The statistics against what can be worked by hand, other methods, and data of which the truth is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from parrot_lite.evaluate.statistics import (
    Array,
    Contrast,
    Estimate,
    Spread,
    Values,
    contrast,
    contrast_over_seeds,
    corrected,
    crossed,
    difference,
    half_width,
    holm,
    jackknife,
    mean,
    noncentrality,
    over_seeds,
    sign_flip,
)

DRAWS = 2_000
TURNS = 8
CORRELATION = 0.5  # within a session


def values(rows: Sequence[Sequence[float]]) -> dict[str, dict[int, float]]:
    """Sessions of turns."""
    return {str(number): dict(enumerate(row, 1)) for number, row in enumerate(rows)}


def simulated(sessions: int, seed: int, draws: int = DRAWS) -> Array:
    """(draws, sessions, turns) values of mean 0 and variance 1."""
    rng = np.random.default_rng(seed)
    of_session = rng.normal(size=(draws, sessions, 1)) * CORRELATION**0.5
    return of_session + rng.normal(size=(draws, sessions, TURNS)) * (1 - CORRELATION) ** 0.5


def summed(drawn: Array) -> tuple[Array, Array]:
    """The sums and counts of sessions."""
    return drawn.sum(-1), np.full(drawn.shape[:-1], float(drawn.shape[-1]))


class TestByHand:
    def test_nothing_gives_nothing(self) -> None:
        assert mean({}) is None
        assert mean({"a": {}}) is None
        assert difference({"a": {1: 1.0}}, {"a": {2: 1.0}, "b": {1: 1.0}}) is None
        assert contrast({"a": {1: 1.0}}, {}, 100, 0) is None
        assert over_seeds({}) is None
        assert over_seeds({1: {}, 2: {"a": {}}}) is None
        assert contrast_over_seeds({1: {"a": {1: 1.0}}}, {2: {"a": {1: 1.0}}}) is None

    def test_one_session_has_a_mean_and_nothing_else(self) -> None:
        estimate = mean({"a": {1: 2.0, 2: 5.0}, "b": {}})
        assert estimate == Estimate(3.5, None, None, 1, 2)
        assert (estimate.detectable, estimate.needed(0.1)) == (None, None)
        assert contrast({"a": {1: 2.0, 2: 5.0}}, {"a": {1: 1.0}}, 100, 0) == Contrast(
            Estimate(1.0, None, None, 1, 1), None
        )
        assert over_seeds({1: {"a": {1: 2.0}}, 2: {"a": {1: 5.0}}}) == estimate

    @pytest.mark.parametrize("step", [0.0, 1.0, 0.1])
    def test_no_spread_is_no_evidence(self, step: float) -> None:
        base = values([[1.0, 2.0, 4.7], [3.0], [8.3, 0.3]])
        better = {session: {turn: value + step for turn, value in turns.items()} for session, turns in base.items()}
        for found in (
            contrast(better, base, 100, 0),
            contrast_over_seeds({1: better, 2: better}, {1: base, 2: base}),
        ):
            assert found is not None
            assert found.difference.mean == pytest.approx(step)
            assert found.difference.low == found.difference.high == found.difference.mean
            assert (found.p, found.difference.detectable, found.difference.needed(1)) == (None, None, None)

    def test_two_sessions(self) -> None:
        # Without a the ratio is 7, without b it is 1: jackknife variance 1/2 x (3^2 + 3^2).
        estimate = mean({"a": {1: 1.0}, "b": {1: 3.0, 2: 9.0, 3: 9.0}})
        assert estimate is not None
        assert (estimate.mean, estimate.sessions, estimate.values) == (22 / 4, 2, 4)
        assert estimate.error == pytest.approx(3.0)
        assert (estimate.low, estimate.high) == pytest.approx((5.5 - 12.7062 * 3, 5.5 + 12.7062 * 3), rel=1e-5)

    def test_with_as_many_turns_everywhere_it_is_the_t_interval_of_session_means(self) -> None:
        rows = simulated(12, 5, 1)[0] + 4
        estimate = mean(values(rows.tolist()))
        known = stats.ttest_1samp(rows.mean(1), 0).confidence_interval(0.95)
        assert estimate is not None
        assert (estimate.low, estimate.high) == pytest.approx((known.low, known.high))

    def test_uneven_sessions_against_leaving_each_out(self) -> None:
        rng = np.random.default_rng(0)
        rows = [rng.normal(size=size).tolist() for size in (1, 8, 3, 3, 5, 2)]
        without = [np.mean(np.concatenate(rows[:left] + rows[left + 1 :])) for left in range(6)]
        estimate = mean(values(rows))
        assert estimate is not None
        assert estimate.mean == pytest.approx(np.mean(np.concatenate(rows)))
        assert estimate.error == pytest.approx(math.sqrt(5 / 6 * np.var(without) * 6))

    def test_more_turns_that_say_the_same_do_not_narrow_the_interval(self) -> None:
        once = [[float(index % 5)] for index in range(20)]
        first, second = mean(values(once)), mean(values([row * 8 for row in once]))
        assert first is not None
        assert second is not None
        assert (second.mean, second.low, second.high) == pytest.approx((first.mean, first.low, first.high))
        assert (first.values, second.values) == (20, 160)

    def test_difference_is_paired_by_turn(self) -> None:
        base = {str(index): {1: float(index), 2: index / 2} for index in range(10)}
        better = {session: {turn: value + 0.25 for turn, value in turns.items()} for session, turns in base.items()}
        del better["0"]
        del base["3"][1]  # an unjudged turn on one side: neither side may count it
        estimate = difference(better, base)
        assert estimate is not None
        assert estimate.mean == pytest.approx(0.25)
        assert (estimate.sessions, estimate.values) == (9, 17)


class TestSignFlip:
    def test_three_sessions(self) -> None:
        # |1 + 2 + 4| and its mirror are the most extreme of 8; |-1 + 2 + 4| = 5 is reached by them and its own two.
        assert sign_flip(np.array([1.0, 2.0, 4.0]), 0, 0) == 2 / 8
        assert sign_flip(np.array([-1.0, 2.0, 4.0]), 0, 0) == 4 / 8
        assert sign_flip(np.array([-1.0, 1.0, 0.0]), 0, 0) == 1

    @given(st.lists(st.integers(-9, 9), min_size=2, max_size=9))
    def test_exact_p_is_scipys(self, sums: list[int]) -> None:
        known = stats.permutation_test(
            (np.array(sums, float),), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
        )
        # scipy doubles the smaller tail, which is ours where no flip is a tie: the statistic is symmetric about 0.
        assert float(sign_flip(np.array(sums, float), 0, 0)) == pytest.approx(min(1, known.pvalue))

    def test_equal_statistics_count_whatever_their_rounding(self) -> None:
        assert sign_flip(np.array([0.1, 0.2, 0.3]) / 3, 0, 0) == sign_flip(np.array([1.0, 2.0, 3.0]), 0, 0) == 2 / 8
        assert sign_flip(np.array([0.1, 0.2, -0.3]), 0, 0) == 1  # 0.1 + 0.2 - 0.3 is no 0 in binary

    def test_drawn_p_comes_near_the_exact_one_and_is_never_0(self) -> None:
        sums = np.array([3, 1, -2, 4, 2, -1, 3, -4, 2, 5, 1, -3, 2], float)
        flips = np.array(list(itertools.product([1, -1], repeat=13)))
        exact = float((np.abs(flips @ sums) >= abs(sums.sum())).mean())
        assert float(sign_flip(sums, 20_000, 1)) == pytest.approx(exact, abs=0.01)
        assert float(sign_flip(np.full(80, 1.0), 999, 0)) == 1 / 1000
        assert sign_flip(sums, 500, 4) == sign_flip(sums, 500, 4) != sign_flip(sums, 500, 5)

    def test_a_session_weighs_its_turns_as_in_the_difference(self) -> None:
        # Sums 4 (of four turns), -2 and 1: the mean over turns is 3/6. |+-4 +-2 +-1| >= 3 in 6 of 8; session means
        # 1, -2 and 1 would give 8 of 8.
        found = contrast(values([[1.0] * 4, [-2.0], [1.0]]), values([[0.0] * 4, [0.0], [0.0]]), 0, 0)
        assert found is not None
        assert (found.difference.mean, found.p) == (3 / 6, 6 / 8)

    def test_exchanging_the_models_changes_the_sign_alone(self) -> None:
        one, other = (values((simulated(15, seed, 1)[0] + seed).tolist()) for seed in (1, 2))
        there, back = contrast(one, other, 300, 0), contrast(other, one, 300, 0)
        assert there is not None
        assert back is not None
        assert there.p == back.p
        assert there.difference.mean == -back.difference.mean


class TestHolm:
    def test_published_examples(self) -> None:
        # The documentation of pingouin's holm.
        assert holm([0.50, 0.003, 0.32, 0.054, 0.0003]) == pytest.approx([0.64, 0.012, 0.64, 0.162, 0.0015])
        # Wikipedia, Holm-Bonferroni method: H4 and H1 are rejected at 0.05, H3 and H2 are not.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
    def test_is_the_closed_test_of_bonferroni(self, raw: list[float]) -> None:
        # Holm's own proof: a hypothesis falls when every set of hypotheses that has it falls by Bonferroni.
        families = [
            family for size in range(1, len(raw) + 1) for family in itertools.combinations(range(len(raw)), size)
        ]
        worst = [
            max(min(1.0, len(family) * min(raw[at] for at in family)) for family in families if each in family)
            for each in range(len(raw))
        ]
        assert holm(raw) == pytest.approx(worst)

    def test_what_is_not_tested_is_not_corrected_for(self) -> None:
        none = Estimate(0.0, None, None, 1, 1)
        found = corrected({name: Contrast(none, p) for name, p in (("a", 0.02), ("b", None), ("c", 0.01))})
        assert {name: one.adjusted for name, one in found.items()} == {"a": 0.02, "b": None, "c": 0.02}
        assert corrected({}) == {}


class TestPower:
    def test_sessions_needed_are_the_fewest_that_reach_the_power(self) -> None:
        for spread, effect in ((1.0, 0.2), (2.0, 3.0), (0.04, 0.03)):
            estimate = Estimate(0.1, 0.0, 0.2, 12, 96, Spread(spread))
            needed = estimate.needed(effect)
            assert needed is not None

            def power(sessions: int, spread: float = spread, effect: float = effect) -> float:
                bound = stats.t.ppf(0.975, sessions - 1)
                shift = effect / math.sqrt(spread / sessions)
                return float(stats.nct.sf(bound, sessions - 1, shift) + stats.nct.cdf(-bound, sessions - 1, shift))

            assert power(needed) >= 0.8 - 1e-6
            assert needed == 2 or power(needed - 1) < 0.8

    def test_so_many_sessions_as_there_are_show_what_is_detectable(self) -> None:
        estimate = mean(values(simulated(40, 3, 1)[0].tolist()))
        assert estimate is not None
        assert estimate.detectable is not None
        assert estimate.needed(estimate.detectable * 1.0001) == 40
        assert estimate.needed(estimate.detectable * 0.9999) == 41
        # Textbook: (1.960 + 0.842) standard errors, a little more with 39 degrees of freedom.
        assert estimate.error is not None
        assert estimate.detectable / estimate.error == pytest.approx(2.802, rel=0.03)

    def test_no_number_of_sessions_outweighs_seeds_that_differ(self) -> None:
        estimate = Estimate(0.1, 0.0, 0.2, 80, 640, Spread(1.0, 0.04, 0.1, seeds=3))
        assert estimate.needed(0.2) is None
        more = Estimate(0.1, 0.0, 0.2, 80, 640, Spread(1.0, 0.0004, 0.1, seeds=3))
        few = Estimate(0.1, 0.0, 0.2, 80, 640, Spread(1.0)).needed(0.2)
        needed = more.needed(0.2)
        assert few is not None
        assert needed is not None
        assert needed > few


class TestSeeds:
    def test_components_by_hand(self) -> None:
        # Sessions 0 and 6 apart, seeds 2 apart, and an interaction of +-1: mean squares 36, 4 and 4.
        cells = np.array([[0.0, 4.0], [0.0, 8.0]])
        assert [float(each) for each in crossed(cells)] == [(36 - 4) / 2, 0.0, 4.0]

    def test_components_of_known_size(self) -> None:
        rng = np.random.default_rng(0)
        cells = (
            rng.normal(size=(500, 1, 40)) * 0.8
            + rng.normal(size=(500, 5, 1)) * 1.2
            + rng.normal(size=(500, 5, 40)) * 0.5
        )
        assert [float(each.mean()) for each in crossed(cells)] == pytest.approx([0.64, 1.44, 0.25], rel=0.08)

    def test_one_seed_is_the_mean_over_sessions(self) -> None:
        one = values(simulated(15, 1, 1)[0].tolist())
        assert over_seeds({7: one}) == over_seeds({7: one, 8: {}}) == mean(one)

    def test_seeds_that_agree_say_what_one_says(self) -> None:
        one = values(simulated(40, 1, 1)[0].tolist())
        alone, together = mean(one), over_seeds({1: one, 2: one, 3: one})
        assert alone is not None
        assert together is not None
        assert (together.mean, together.low, together.high) == pytest.approx((alone.mean, alone.low, alone.high))
        assert (together.sessions, together.values) == (40, 3 * 320)

    def test_seeds_that_differ_are_three_samples(self) -> None:
        # Far apart, so that sessions weigh nothing: the t interval of three means, two degrees of freedom.
        rows = simulated(40, 1, 1)[0]
        runs = {seed: values((rows + shift).tolist()) for seed, shift in ((1, -50.0), (2, 10.0), (3, 40.0))}
        found = over_seeds(runs)
        known = stats.ttest_1samp(rows.mean() + np.array([-50, 10, 40]), 0).confidence_interval()
        assert found is not None
        assert (found.low, found.high) == pytest.approx((known.low, known.high), rel=1e-3)

    def test_contrast_is_paired_by_seed_session_and_turn(self) -> None:
        base = {seed: values((simulated(20, seed, 1)[0] + 9 * seed).tolist()) for seed in (1, 2, 3)}
        noise = np.random.default_rng(0).normal(size=(3, 20)) * 0.1
        better: dict[int, Values] = {
            seed: {
                session: {turn: value + 0.5 + noise[seed - 1, int(session)] for turn, value in turns.items()}
                for session, turns in base[seed].items()
            }
            for seed in (1, 2, 3)
        }
        found = contrast_over_seeds({**better, 4: better[1]}, base)
        assert found is not None
        assert found.p is not None
        assert found.difference.values == 3 * 20 * TURNS
        assert found.difference.mean == pytest.approx(0.5 + noise.mean())
        assert found.difference.error == pytest.approx(noise.std() / math.sqrt(60), rel=0.5)
        assert found.p < 0.01

    def test_p_is_that_of_the_interval(self) -> None:
        rng = np.random.default_rng(2)
        for _ in range(50):
            cells = rng.normal(size=(3, 12)) + rng.normal(size=(3, 1)) * 0.3 + 0.5
            zero = values(np.zeros((12, 1)).tolist())
            runs = {seed: values(row[:, None].tolist()) for seed, row in enumerate(cells)}
            found = contrast_over_seeds(runs, dict.fromkeys(runs, zero))
            assert found is not None
            assert found.p is not None
            assert found.difference.low is not None
            assert found.difference.high is not None
            assert (found.p < 0.05) == (found.difference.low > 0 or found.difference.high < 0)

    def test_a_session_that_a_seed_lacks(self) -> None:
        runs = {seed: values(simulated(10, seed, 1)[0].tolist()) for seed in (1, 2)}
        del runs[2]["3"]
        found = over_seeds(runs)
        assert found is not None
        assert (found.sessions, found.values) == (10, 19 * TURNS)
        assert found.mean == pytest.approx(
            np.mean([value for run in runs.values() for turns in run.values() for value in turns.values()])
        )


class TestOnSimulatedData:
    """Monte Carlo error of a rate of 0.95 over 2,000 draws: 0.005; of 0.80: 0.009."""

    @pytest.mark.parametrize("sessions", [12, 40, 80])
    def test_intervals_cover_and_those_over_turns_do_not(self, sessions: int) -> None:
        drawn = simulated(sessions, sessions)
        point, error = jackknife(*summed(drawn))
        assert 0.93 <= np.mean(np.abs(point) <= half_width(error, sessions - 1)) <= 0.97
        turns = drawn.reshape(DRAWS, -1, 1)  # the same functions, with every turn as a session of its own
        point, error = jackknife(*summed(turns))
        assert np.mean(np.abs(point) <= half_width(error, turns.shape[1] - 1)) < 0.75

    @pytest.mark.parametrize("sessions", [12, 40, 80])
    def test_intervals_cover_a_paired_difference_of_uneven_sessions(self, sessions: int) -> None:
        """Two models share the sessions' difficulty; half the turns, and with them length, are missing at random."""
        rng = np.random.default_rng(sessions)
        hard = rng.normal(size=(DRAWS, sessions, 1)) * 3
        there = rng.random((DRAWS, sessions, TURNS)) < rng.uniform(0.4, 1, size=(DRAWS, sessions, 1))
        there[..., 0] = True
        models = [hard + simulated(sessions, seed) for seed in (1, 2)]
        point, error = jackknife(((models[0] + 0.3 - models[1]) * there).sum(-1), there.sum(-1).astype(float))
        assert 0.93 <= np.mean(np.abs(point - 0.3) <= half_width(error, sessions - 1)) <= 0.97

    @pytest.mark.parametrize("sessions", [12, 40, 80])
    def test_stated_power_is_reached(self, sessions: int) -> None:
        variance = CORRELATION + (1 - CORRELATION) / TURNS  # of a session's mean
        detectable = Estimate(0, 0, 0, sessions, 1, Spread(variance)).detectable
        assert detectable is not None
        assert detectable == pytest.approx(noncentrality(sessions - 1) * math.sqrt(variance / sessions))
        sums, counts = summed(simulated(sessions, 100 + sessions) + detectable)
        point, error = jackknife(sums, counts)
        by_interval = np.mean(np.abs(point) > half_width(error, sessions - 1))
        by_exchange = np.mean(sign_flip(sums, 1_000, 0) < 0.05)
        assert 0.77 <= by_interval <= 0.83
        assert 0.77 <= by_exchange <= 0.83

    @pytest.mark.parametrize("sessions", [12, 40])
    @pytest.mark.parametrize("shape", [lambda x: x, lambda x: x**3], ids=["normal", "heavy tails"])
    def test_p_is_uniform_under_the_null(self, sessions: int, shape: Callable[[Array], Array]) -> None:
        p = sign_flip(shape(simulated(sessions, 7)).sum(-1), 1_000, 0)
        assert 0.04 <= np.mean(p <= 0.05) <= 0.06
        assert stats.kstest(p, "uniform").pvalue > 0.01

    def test_few_sessions_give_steps_that_never_say_too_much(self) -> None:
        p = sign_flip(simulated(5, 3).sum(-1), 0, 0)
        assert p.min() == 2 / 32
        for step in (2 / 32, 4 / 32, 16 / 32):
            assert np.mean(p <= step) == pytest.approx(step, abs=0.03)

    def test_holm_keeps_the_family_wise_error(self) -> None:
        """Six arms against one baseline, none better: their differences share its noise."""
        arms = simulated(40, 11, 7 * DRAWS).sum(-1).reshape(7, DRAWS, 40)
        p = np.stack([sign_flip(arm - arms[0], 1_000, 0) for arm in arms[1:]], axis=-1)
        assert np.mean((p < 0.05).any(-1)) > 0.12
        family = np.mean((holm(p) < 0.05).any(-1))
        assert 0.01 < family <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / DRAWS)

    @pytest.mark.parametrize("of_seed", [0.0, 0.3, 1.0])
    def test_intervals_over_three_seeds_cover(self, of_seed: float) -> None:
        rng = np.random.default_rng(5)
        sessions, draws = 40, 1_000
        cells = (
            rng.normal(size=(draws, 1, sessions)) * CORRELATION**0.5
            + rng.normal(size=(draws, 3, 1)) * of_seed
            + rng.normal(size=(draws, 3, sessions)) * (1 - CORRELATION) ** 0.5
        )
        components = np.stack(crossed(cells), axis=-1).tolist()
        spreads = [Spread(session, seed, rest, 3) for session, seed, rest in components]
        halves = [half_width(spread.error(sessions), spread.freedom(sessions)) for spread in spreads]
        assert 0.92 <= np.mean(np.abs(cells.mean((-2, -1))) <= halves) <= 0.98
        # Without the seeds as a factor, the interval is about these three trainings alone.
        point, error = jackknife(cells.sum(-2), np.full((draws, sessions), 3.0))
        alone = np.mean(np.abs(point) <= half_width(error, sessions - 1))
        assert alone < {0.0: 0.97, 0.3: 0.85, 1.0: 0.5}[of_seed]
