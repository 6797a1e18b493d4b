"""Every statistic by hand on two sessions, and against other implementations on real ones."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from parrot_lite.collect import statistics
from parrot_lite.collect.statistics import DataSet, Mean, Pool, Repeats, Sums, Tally, median, none_of, self_rouge
from parrot_lite.evaluate.statistics import mean as jackknifed
from parrot_lite.store import locate, read
from parrot_lite.types import Dialogue
from tests.test_types import talk

GARDEN = talk(
    *("How do tomatoes grow?", "Tomatoes grow from seed.", "Do they need sun?", "Yes, plenty."),
    *("Thank you!", "Gladly."),
    name="garden",
)
CHESS = talk("What is chess?", "A board game.", "Where is Lima?", "In Peru.", name="chess")


def tallied(*sessions: Dialogue) -> DataSet:
    tally = Tally()
    for session in sessions:
        tally.add(session)
    return tally.result("two", "two.jsonl", "f00d", "sessions", {})


def test_none_of_some_leaves_a_share_under_which_that_happens_once_in_forty() -> None:
    for values in (1, 3, 207, 40_000):
        assert (1 - none_of(values)) ** values == pytest.approx(0.025)
    assert none_of(207) == pytest.approx(0.0177, abs=1e-4)


def test_two_sessions_by_hand() -> None:
    found = tallied(GARDEN, CHESS)
    assert found.sessions == 2
    expected = {  # mean, half = 1.96 sqrt(2 x squared residuals of the sessions) / values, sessions, values
        "turns": (2.5, 0.98, 2, 2),  # 3 and 2
        "dependent": (0.5, 0.98, 2, 2),  # "they", and none
        "dependent later": (1 / 3, 1.96 * 2 / 9, 2, 3),  # 1 of 2, 0 of 1: residuals 1/3 and -1/3
        "topics": (1.5, 0.98, 2, 2),  # Lima comes from nowhere; thanks have no content word
        "query words": (3.2, 1.96 * 2 * 0.4 / 5, 2, 5),  # 10 of 3, 6 of 2: residuals 0.4 and -0.4
        "later query words": (3.0, None, 2, 3),  # 6 of 2, 3 of 1: no spread
        "answer words": (2.4, 1.96 * 2 * 0.2 / 5, 2, 5),  # 7 of 3, 5 of 2: residuals -0.2 and 0.2
        "role drift": (0.0, None, 2, 3),
        "answers itself": (0.0, None, 2, 3),
        "thanks": (1 / 3, 1.96 * 2 / 9, 2, 3),
        # Garden: "do" in two queries of four words, f = 1/4, in one of three pairs. Chess: "is", f = 1/3, the one pair.
        "self-rouge": (100 * (1 / 12 + 1 / 3) / 2, 1.96 * 100 * (1 / 3 - 1 / 12) / 2, 2, 2),
    }
    assert found.means.keys() == expected.keys()
    for name, (value, half, sessions, values) in expected.items():
        one = found.means[name]
        assert (one.mean, one.sessions, one.values) == (pytest.approx(value), sessions, values), name
        assert one.half == (None if half is None else pytest.approx(half)), name
    assert found.medians == {"turns": 2.5, "query words": 3, "later query words": 3, "answer words": 2}
    assert found.histograms == {
        "turns": {2: 1, 3: 1},
        "query words": {2: 1, 3: 2, 4: 2},
        "later query words": {2: 1, 3: 1, 4: 1},
        "answer words": {1: 1, 2: 2, 3: 1, 4: 1},
    }
    assert found.dependent_by_turn == {2: (1, 2), 3: (0, 1)}
    assert found.shares == {"repeated": 0.0}  # 9 words are too few for distinct-n


def test_a_session_of_one_turn_has_no_later_queries() -> None:
    found = tallied(talk("Why?", "So."))
    assert not found.means.keys() & {"dependent later", "self-rouge", "thanks", "role drift", "later query words"}
    assert found.means["turns"] == Mean(mean=1, half=None, sessions=1, values=1)
    assert found.shares == {}
    assert found.dependent_by_turn == {}
    with pytest.raises(ValueError, match="not complete"):
        Tally().add(talk("Why?"))


def test_what_an_asker_should_not_say_is_counted() -> None:
    later = ("As an AI language model, I ask.", "Great, thanks!", "User: Is it? Assistant: It is.", "And in Ghent?")
    one = talk("Hi, is Bruges old?", *[text for query in later for text in ("It is.", query)], "Yes.")
    found = tallied(one)
    shares = {name: found.means[name].mean for name in ("role drift", "thanks", "answers itself")}
    assert shares == {"role drift": 0.25, "thanks": 0.25, "answers itself": 0.25}


def test_topics_need_a_query_that_neither_leans_nor_shares_a_word() -> None:
    asked = talk("Tell me about oak trees.", "They live long.", "What is the capital of Peru?", "Lima.")
    assert tallied(asked).means["topics"].mean == 2
    for query in (
        "What is the long river of Peru?",
        "What is OAK in Spanish?",
        "What is its capital?",
        "What is 12 + 5?",
    ):
        same = talk("Tell me about oak trees.", "They live long.", query, "Lima.")
        assert tallied(same).means["topics"].mean == 1, query


def by_rouge_score(queries: tuple[str, ...]) -> float | None:
    """Over all ordered pairs of the queries that have a token."""
    scorer = RougeScorer(["rougeL"])
    kept = [query for query in queries if any(c.isascii() and c.isalnum() for c in query.lower())]
    if len(kept) < 2:
        return None
    found = [scorer.score(one, other)["rougeL"].fmeasure for one, other in permutations(kept, 2)]
    return 100 * sum(found) / len(found)


def test_self_rouge_is_rouge_scores_on_real_queries() -> None:
    for session in list(read(locate("package:parrot_lite/data/sessions.jsonl"), Dialogue))[:15]:
        assert self_rouge(session.queries) == pytest.approx(by_rouge_score(session.queries))


@given(st.lists(st.text(alphabet="abAB1 .,'é漢K\n", max_size=12), max_size=4).map(tuple))
def test_self_rouge_is_rouge_scores_on_any_text(queries: tuple[str, ...]) -> None:
    assert self_rouge(queries) == pytest.approx(by_rouge_score(queries))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_interval_is_that_of_the_tables(seed: int) -> None:
    rng = random.Random(seed)
    parts = [(rng.randint(0, 9), rng.randint(1, 6)) for _ in range(80)]
    sums = Sums()
    for total, count in parts:
        sums.add(total, count)
    values = {str(i): dict.fromkeys(range(count), total / count) for i, (total, count) in enumerate(parts)}
    found, other = sums.mean(), jackknifed(values)
    assert found is not None
    assert other is not None
    assert other.low is not None
    assert other.high is not None
    assert found.mean == pytest.approx(other.mean)
    assert found.half == pytest.approx((other.high - other.low) / 2, rel=0.05)


def test_no_spread_no_interval() -> None:
    sums = Sums()
    for count in (3, 7, 11):
        sums.add(0.1 * count, count)  # not exact in binary: the residuals are rounding alone
    found = sums.mean()
    assert found is not None
    assert (found.mean, found.half, found.sessions, found.values) == (pytest.approx(0.1), None, 3, 21)
    assert Sums().mean() is None


def test_repeated_queries() -> None:
    repeats = Repeats()
    assert repeats.share() is None
    repeats.add(["go on", "and?", "go on"], 1)  # twice in one session is no repetition across sessions
    assert repeats.share() == 0
    repeats.add(["go on", "why?"], 2)
    assert repeats.share() == 3 / 5


def test_repeated_queries_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """30,000 queries, a third of them in two sessions, with room for 2,000 different ones."""
    monkeypatch.setattr(statistics, "DISTINCT", 2_000)
    repeats = Repeats()
    for session in range(1, 10_001):
        own = f"only {session}"
        shared = f"two have {session // 2}" if session % 2 == 0 or session < 10_000 else own
        repeats.add([own, f"mine {session}", shared], session)
        assert len(repeats._seen) <= 2_000
    share = repeats.share()
    assert share == pytest.approx(1 / 3, abs=0.04)


def test_distinct_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLE", 6)
    pool = Pool(0)
    pool.add(talk("First?", "a", "go on now", "b", "Go on then", "c"))
    # Both queries in either order: 4 different words of 6, and of "go on", "on now", "go on", "on then" 3 of 4.
    assert pool.distinct(1) == pytest.approx(4 / 6)
    assert pool.distinct(2) == pytest.approx(3 / 4)
    monkeypatch.setattr(statistics, "SAMPLE", 7)
    assert pool.distinct(1) is None


def test_the_pool_is_the_same_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "POOL", 20)
    monkeypatch.setattr(statistics, "SAMPLE", 40)
    sessions = [talk("Q?", "a", f"tell me of {i} and {i * i}", "b", name=str(i)) for i in range(100)]
    pools = [Pool(0), Pool(0), Pool(1)]
    for session in sessions:
        pools[0].add(session)
        pools[2].add(session)
    for session in reversed(sessions):
        pools[1].add(session)
    first, again, other = (pool.distinct(1) for pool in pools)
    assert first == again != other
    assert [len(pool._kept) for pool in pools] == [20] * 3


def test_distinct_does_not_grow_or_fall_with_the_data_set() -> None:
    """The same kind of text, 300 and 3,000 queries of it."""

    def share(count: int) -> float:
        pool = Pool(0)
        for i in range(count):
            pool.add(
                talk("Q?", "a", " ".join(f"w{(i * 7919 + k * 104729) % 997}" for k in range(12)), "b", name=str(i))
            )
        found = pool.distinct(1)
        assert found is not None
        return found

    assert share(3_000) == pytest.approx(share(300), abs=0.03)


@pytest.mark.parametrize(
    ("histogram", "middle"), [({}, None), ({4: 1}, 4), ({1: 1, 4: 1}, 2.5), ({1: 2, 9: 3}, 9), ({1: 3, 9: 3}, 5)]
)
def test_median(histogram: dict[int, int], middle: float | None) -> None:
    assert median(histogram) == middle


def many(first: int, last: int) -> Iterator[Dialogue]:
    """Sessions of four turns, no two queries alike."""
    for i in range(first, last):
        texts = [f"{kind} number {i * 8 + k} of thing {i % 89}" for k, kind in enumerate(["ask", "say"] * 4)]
        yield talk(*texts, name=str(i))


def test_memory_does_not_grow_with_the_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DISTINCT", 500)
    monkeypatch.setattr(statistics, "POOL", 300)
    tally = Tally()
    tracemalloc.start()
    try:
        for session in many(0, 400):
            tally.add(session)
        before = tracemalloc.get_traced_memory()[0]
        for session in many(400, 1_500):
            tally.add(session)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # All 3,300 later queries would take some 600 KB more.
    assert after - before < 100_000, (before, after)
