"""Rows put beside each other, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parrot_lite.evaluate import statistics
from parrot_lite.evaluate.records import Likelihood
from parrot_lite.recipe_file import load as load_recipe
from parrot_lite.tables import results
from parrot_lite.tables.measures import Evaluated
from parrot_lite.tables.results import Cost, Outcome
from parrot_lite.tables.sheet import load
from parrot_lite.types import Condition, Judgment
from tests.tables.rehearsal import TABLE

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"
SESSIONS = [f"s{number}" for number in range(8)]


def scored(gain: float, wobble: float = 0.01, nll: float = 1.0) -> Evaluated:
    """A model whose answers at dependent turns lose ``gain`` nats a token, more or less, under another history."""
    found = []
    for index, session in enumerate(SESSIONS):
        off = wobble * (index % 4 - 1.5)
        for turn, rule in ((2, "pronoun"), (3, None)):
            spoiled: tuple[tuple[Condition, float], ...] = (
                ("true", nll),
                ("swapped", nll + (gain + off if rule else 0.0)),
                ("shortened", nll + 0.5 * gain + off),
            )
            found += [
                Likelihood(model="m", dialogue=session, turn=turn, rule=rule, condition=one, nll=10 * per, tokens=10)
                for one, per in spoiled
            ]
    judged = [
        Judgment(model="m", dialogue="q", category="c", turn=turn, judge="j@p", score=score)
        for turn, score in ((1, 8.0), (2, 6.0), (3, 1.0))
    ]
    return Evaluated("m", tuple(found), tuple(judged), ())


def outcome(tmp_path: Path, text: str = TABLE, **changed: object) -> Outcome:
    file = tmp_path / "kinds.toml"
    file.write_text(text, encoding="utf-8")
    rows = {"none": {0: scored(0.1)}, "neglect": {0: scored(0.2)}, "all": {0: scored(0.3, 0.02)}}
    costs = {name: Cost(1.5, 2000, ("card",), (30, 10, 5)) for name in rows}
    made = Outcome(load(str(file)), load_recipe(DEMO), (0,), rows, costs, (), {})
    return Outcome(**{**vars(made), **changed})  # type: ignore[arg-type]


def test_levels_and_differences_by_hand(tmp_path: Path) -> None:
    one = outcome(tmp_path)
    level = one.level("all", "PMI-swap")
    assert level is not None
    assert level.mean == pytest.approx(0.3)
    self_contained = one.level("all", "PMI-swap self-contained")
    assert self_contained is not None
    assert self_contained.mean == pytest.approx(0.0)
    contrast = one.contrast("all", "none", "PMI-swap")
    assert contrast is not None
    assert contrast.difference.mean == pytest.approx(0.2)
    assert contrast.difference.sessions == 8
    assert contrast.p == pytest.approx(2 / 2**8)
    assert [one.level("all", name).mean for name in ("score", "score of turns 1-2")] == [5.0, 7.0]  # type: ignore[union-attr]
    assert one.level("all", "repetition") is None


def test_families(tmp_path: Path) -> None:
    """The primary family: the primary comparison in both measures. All else is corrected apart from it, by unit."""
    one = outcome(tmp_path)
    primary = one.primary()
    assert [(f.comparison.row, f.measure) for f in primary] == [("all", "PMI-swap"), ("all", "PMI-last")]
    assert [f.contrast.adjusted for f in primary if f.contrast] == pytest.approx([2 * 2 / 2**8] * 2)
    others = one.others()
    keys = {(row, base, measure) for made in others.values() for row, base, measure in made}
    assert ("all", "neglect", "PMI-swap") in keys
    assert ("all", "none", "PMI-swap") not in keys
    assert ("all", "none", "NLL") in keys


def test_a_row_that_is_missing(tmp_path: Path) -> None:
    whole = outcome(tmp_path)
    one = outcome(
        tmp_path, rows={name: runs for name, runs in whole.rows.items() if name != "all"}, failed={"all": "lost"}
    )
    assert [finding.contrast for finding in one.primary()] == [None, None]
    assert "open, no result of all" in one.verdict().text
    report = results.report(one, "parrot table")
    assert report.warnings == ("row all has no result: lost",)
    json.dumps(results.as_json(one, "parrot table"))


def test_guards(tmp_path: Path) -> None:
    rows = {"none": {0: scored(0.1)}, "all": {0: scored(0.3, 0.02, nll=1.08)}}
    one = outcome(tmp_path, rows=rows)
    (nll, repetition) = one.guards()
    assert (nll.guard, nll.state) == ("NLL", "broken")
    assert nll.difference is not None
    assert nll.difference.mean == pytest.approx(0.08)
    assert (repetition.guard, repetition.state) == ("repetition", "open")
    assert "2 found at a cost" in one.verdict().text


def test_doses(tmp_path: Path) -> None:
    text = TABLE.replace("[paper]", "dose = 0.05\n[paper]", 1)
    whole = outcome(tmp_path, text)
    assert whole.doses() == []
    costs = {**whole.costs, "neglect": Cost(1.0, 1, (), (28, 10, 5)), "none": Cost(1.0, 1, (), None)}
    assert outcome(tmp_path, text, costs=costs).doses() == ["all has 30 pairs, neglect 28"]
    assert outcome(tmp_path, text.replace("0.05\n[paper]", "0.1\n[paper]"), costs=costs).doses() == []
    assert outcome(tmp_path, costs=costs).doses() == []  # a table that promises no dose
    tuned = {name: Cost(1.5, 2000, ("card",), None, number) for name, number in (("none", 40), ("all", 16))}
    assert outcome(tmp_path, text, costs=tuned).doses() == ["all has 16 SFT sessions, none 40"]


def test_seeds_are_folded_and_an_untrained_row_stands_under_each(tmp_path: Path) -> None:
    base = scored(0.1)
    seeds = {0: scored(0.3), 1: scored(0.32), 2: scored(0.28)}
    rows = {"none": dict.fromkeys(seeds, base), "all": seeds}
    one = outcome(tmp_path, rows=rows, seeds=(0, 1, 2))
    contrast = one.contrast("all", "none", "PMI-swap")
    assert contrast == statistics.contrast_over_seeds(
        {seed: run.values("PMI-swap") for seed, run in seeds.items()},
        {seed: base.values("PMI-swap") for seed in seeds},
    )
    assert contrast is not None
    assert contrast.difference.spread is not None
    assert contrast.difference.spread.seeds == 3
    assert one.level("none", "PMI-swap") == statistics.mean(base.values("PMI-swap"))  # not three samples of one model
    assert "training seed" not in one.verdict().text


def test_each_seed_by_itself(tmp_path: Path) -> None:
    assert "under each training seed" not in results.report(outcome(tmp_path), "x").markdown()
    base, three = {0: scored(0.1), 1: scored(0.2)}, {0: scored(0.3), 1: scored(0.32), 2: scored(0.28)}
    one = outcome(tmp_path, rows={"none": base, "all": three}, seeds=(0, 1, 2))
    text = results.report(one, "x").markdown()
    assert "| Difference | Seed 0 | Seed 1 | Seed 2 |" in text
    assert "| PMI-swap: all minus none | +0.200 | +0.120 | - |" in text  # a seed that one of them lacks is no pair
    assert "neglect minus none | " not in text.partition("under each training seed")[2].partition("##")[0]
    (swap,) = (each for each in results.as_json(one, "x")["by seed"] if each["measure"] == "PMI-swap")
    assert (swap["seed 0"], swap["seed 1"]) == (pytest.approx(0.2), pytest.approx(0.12))
    assert "seed 2" not in swap


def test_the_report_has_the_paper_beside_ours(tmp_path: Path) -> None:
    text = results.report(outcome(tmp_path), "parrot table x y").markdown()
    assert "| none | 0.100 [0.090, 0.110] | 0.050 [0.040, 0.060] | 6.81 |" in text
    assert "| all | 1.5 | 2,000 | 30 | 10 | 5 | card |" in text
    assert "- command: parrot table x y" in text
