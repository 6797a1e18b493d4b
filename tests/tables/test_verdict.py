"""The paragraph says what the statistics allow, in every case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parrot_lite.evaluate.statistics import Contrast, Estimate, Spread
from parrot_lite.tables.sheet import Comparison
from parrot_lite.tables.verdict import Finding, Guarded, verdict

ASKED = Comparison(row="C", baseline="D", order="primary", asks="Is it the context?")


def estimate(mean: float, half: float, sessions: int = 80) -> Estimate:
    return Estimate(mean, mean - half, mean + half, sessions, sessions, Spread((half / 2) ** 2 * sessions))


def finding(mean: float, half: float, p: float, adjusted: float, sessions: int = 80) -> Finding:
    return Finding(ASKED, "PMI-swap", Contrast(estimate(mean, half, sessions), p, adjusted))


def guard(mean: float, half: float, limit: float = 0.05) -> Guarded:
    return Guarded("C", "A", "NLL", limit, estimate(mean, half))


def said(
    findings: Sequence[Finding],
    guards: Sequence[Guarded],
    failed: Mapping[str, str],
    seeds: int,
    doses: Sequence[str] = (),
) -> str:
    return verdict(findings, guards, failed, seeds, doses).text


def test_found() -> None:
    text = said([finding(0.098, 0.03, 0.0001, 0.0002)], [guard(0.01, 0.02)], {}, 3)
    assert text.startswith(
        "Of 1 primary test: 1 found. Is it the context? C minus D in PMI-swap: uses its history more"
    )
    assert "+0.098 nats a token (95% interval +0.068 to +0.128" in text
    assert text.endswith("All guards are kept.")
    assert "seed" not in text


def test_reversed() -> None:
    text = said([finding(-0.098, 0.03, 0.0001, 0.0002)], [], {}, 3)
    assert text.startswith("Of 1 primary test: 1 the other way round.")
    assert "uses its history less: -0.098" in text
    assert " found" not in text


def test_not_found_says_what_could_not_have_been_seen() -> None:
    one = finding(0.004, 0.03, 0.6, 1.0)
    assert one.contrast is not None
    text = said([one], [], {}, 3)
    assert text.startswith("Of 1 primary test: 1 not found.")
    assert "no difference was shown" in text
    limit = one.contrast.difference.detectable
    assert limit is not None
    assert f"a true one below {limit:.3f} is smaller than what so many sessions can be relied on to show" in text


def test_small_p_that_the_correction_takes_is_not_found() -> None:
    text = said([finding(0.03, 0.03, 0.04, 0.08)], [], {}, 3)
    assert "1 not found" in text
    assert "may well be chance" in text


def test_too_few_sessions() -> None:
    text = said([finding(0.5, 0.6, 0.0625, 0.0625, sessions=5)], [], {}, 3)
    assert "1 not found" in text
    assert "5 sessions can show none, however large" in text
    single = Finding(ASKED, "PMI-swap", Contrast(Estimate(0.5, None, None, 1, 4), None))
    text = said([single], [], {}, 3)
    assert "1 not tested" in text
    assert "a single session, which says nothing about others" in text


def test_failed_rows() -> None:
    failed = {"D": "train-capo: the card's memory is full.", "R": "not run"}
    text = said([Finding(ASKED, "PMI-swap", None)], [], failed, 3)
    assert text.startswith(
        "Of 1 primary test: 1 without a result. Is it the context? C minus D in PMI-swap: open, no result of D."
    )
    assert "Row D has no result: train-capo: the card's memory is full. Row R has no result: not run." in text
    assert "it was not measured on both" in said([Finding(ASKED, "PMI-last", None)], [], {}, 3)


def test_a_broken_guard_takes_the_finding_back() -> None:
    text = said([finding(0.098, 0.03, 0.0001, 0.0002)], [guard(0.08, 0.01)], {}, 3)
    assert text.startswith("Of 1 primary test: 1 found at a cost.")
    assert "but C breaks its guard" in text
    assert "Guard broken: NLL of C is +0.080 nats a token from A, where +0.05 is the limit." in text
    # A guard of another row is no matter of this comparison.
    other = Guarded("E", "A", "NLL", 0.05, estimate(0.08, 0.01))
    text = said([finding(0.098, 0.03, 0.0001, 0.0002)], [other], {}, 3)
    assert "1 found." in text
    assert "Guard broken: NLL of E" in text


def test_a_guard_is_kept_by_its_interval_alone() -> None:
    assert [guard(mean, 0.02).state for mean in (0.01, 0.029, 0.031, 0.05, 0.051)] == [
        "kept",
        "kept",
        "open",
        "open",
        "broken",
    ]
    assert Guarded("C", "A", "NLL", 0.05, None).state == "open"
    text = said([finding(0.098, 0.03, 0.0001, 0.0002)], [guard(0.04, 0.02)], {}, 3)
    assert "1 found." in text
    assert "Neither kept nor broken" in text
    assert "NLL of C" in text


def test_two_measures_of_one_question_are_asked_once() -> None:
    last = Finding(ASKED, "PMI-last", Contrast(estimate(0.001, 0.03), 0.9, 0.9))
    text = said([finding(0.098, 0.03, 0.0001, 0.0002), last], [], {}, 3)
    assert text.startswith("Of 2 primary tests: 1 found, 1 not found.")
    assert text.count("Is it the context?") == 1
    assert "In PMI-last: no difference was shown" in text


def test_seeds_and_doses() -> None:
    found = [finding(0.098, 0.03, 0.0001, 0.0002)]
    assert said(found, [], {}, 1).endswith("One training seed: what another one would give is not known.")
    assert "Two training seeds are no basis for a claim" in said(found, [], {}, 2)
    text = said(found, [], {}, 3, ["C has 90 pairs, D 60"])
    assert "The rows differ in more than their names say: C has 90 pairs, D 60." in text


def test_without_a_primary_comparison_nothing_is_decided() -> None:
    assert said([], [], {"a": "not run"}, 1) == (
        "The table declares no primary comparison, so it describes and decides nothing. Row a has no result: not run."
    )
