"""Table files: every shipped one holds, over every recipe; mistakes are one clear line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from parrot_lite.collect.compare import PAPER
from parrot_lite.errors import UserError
from parrot_lite.tables.places import trials
from parrot_lite.tables.sheet import Sheet, load
from tests.tables.rehearsal import TABLE

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "recipes" / "tables").glob("*.toml"))
DEMO = str(ROOT / "recipes" / "demo.toml")
NAMES = ("asker", "beta", "controls", "lr", "rejected", "table1", "table3", "table4", "table5", "table6")


def shipped(name: str) -> Sheet:
    return load(str(ROOT / "recipes" / "tables" / f"{name}.toml"))


def test_their_count() -> None:
    assert tuple(file.stem for file in FILES) == NAMES


@pytest.mark.parametrize("recipe", ["demo", "paper-13b"])
@pytest.mark.parametrize("name", NAMES)
def test_each_holds_over_a_recipe(name: str, recipe: str) -> None:
    sheet = shipped(name)
    made = trials(sheet, str(ROOT / "recipes" / f"{recipe}.toml"), [], sheet.seeds)
    assert [trial.row.name for trial in made] == [row.name for row in sheet.rows]
    if sheet.kind == "models":  # no two rows are the same thing under two names
        assert len({trial.recipe.folder("eval") for trial in made}) == len(made)
        assert any(one.order == "primary" for one in sheet.comparisons)
        assert {trial.stages[-1] for trial in made} == {"eval"}


def test_the_papers_numbers() -> None:
    """As the paper prints them; those of Table 1 are the ones that `parrot stats` shows."""
    of = {name: {row.name: row.paper for row in shipped(name).rows} for name in NAMES}
    assert of["table6"]["all"] == of["table3"]["capo"] == {"MT-Bench": 7.04, "MT-Bench++": 6.85}
    assert of["table6"]["none"] == of["table3"]["sft"] == of["table5"]["all"] == {"MT-Bench": 6.81, "MT-Bench++": 6.56}
    assert [row["MT-Bench++"] for row in of["table6"].values()] == [6.56, 6.72, 6.73, 6.69, 6.85]
    assert [row["MT-Bench"] for row in of["table5"].values()] == [6.59, 6.49, 6.66, 6.81]
    assert [row["MT-Bench"] for row in of["table4"].values()] == [3.53, 6.09, 6.33, 6.47, 6.70]
    paper = shipped("table1").paper
    assert paper is not None
    given = {"ShareGPT": of["table1"]["logs"], "Parrot-40K": of["table1"]["collected"], **paper.others}
    assert given == PAPER


def test_controls_differ_in_what_they_say_and_in_nothing_else() -> None:
    """All train on the same turns of the same negatives, one pair a turn."""
    made = {trial.row.name: trial.recipe for trial in trials(shipped("controls"), DEMO, [], [0])}
    trained = ("B", "C", "D", "E", "E0", "R")
    assert len({made[name].folder("negatives") for name in trained}) == 1
    assert len({made[name].folder("train-sft") for name in made}) == 1
    everything = set(made["C"].negatives.kinds)
    for name in trained:
        capo = made[name].capo
        assert set(capo.turns_with) == everything
        assert capo.one_a_turn or len(capo.kinds) == 1
        usual = {"kinds": (), "one_a_turn": False, "dpo_weight": 1.0, "sft_weight": 0.0}
        own = {"chosen": "session"} if name == "E" else {"chosen": "session", "context": "session"}
        plain = capo.model_copy(update=usual | (own if name in ("E", "E0") else {}))
        reference = made["C"].capo.model_copy(update={"kinds": (), "one_a_turn": False})
        assert plain == reference
    assert made["E"].capo.chosen == "same-writer"
    assert made["E0"].capo.model_copy(update={"context": "session"}) == made["E"].capo


def test_sweeps_go_up() -> None:
    rates = [float(row.name) for row in shipped("lr").rows if row.name != "sft"]
    assert rates == [5e-5, 1e-4, 2e-4, 5e-4]
    for name, key in (("lr", "learning_rate"), ("beta", "beta")):
        rows = [row for row in shipped(name).rows if row.set]
        values = [row.set["capo"][key] for row in rows]
        assert values == [float(row.name) for row in rows]
        assert all(low < high for low, high in pairwise(values))


MISTAKES = {
    "unknown key": ('title = "Kinds', 'titel = "x"\ntitle = "Kinds', "unknown key 'titel'", "Did you mean 'title'?"),
    "unknown measure": ('primary = "PMI-swap"', 'primary = "PMI-swop"', "measures.primary", "PMI-swap"),
    "row twice": ('name = "neglect"', 'name = "none"', "two rows are called 'none'", "another name"),
    "no such row": ('baseline = "neglect"', 'baseline = "neglct"', "compares no two rows", "none, neglect, all"),
    "itself": ('baseline = "neglect"', 'baseline = "all"', "compares no two rows", "none, neglect, all"),
    "twice": ('baseline = "neglect"', 'baseline = "none"', "compared twice", "Leave one out"),
    "shared key": ('set.capo.kinds = ["neglect"]', "set.logs.heldout = 9", "row 'neglect' sets logs.heldout", "[set]"),
    "own key": ('set.capo.kinds = ["neglect"]', "set.capo.seed = 9", "row 'neglect' sets capo.seed", "[set]"),
    "other unit": ('["PMI-last"]', '["score"]', "'score' has another unit than 'PMI-swap'", "Move it to others"),
    "no column": ('{ "MT-Bench" = 6.81 }', '{ "MT" = 6.81 }', "'none' has a number of 'MT'", "MT-Bench"),
    "no guard row": ('against = "none"', 'against = "nobody"', "guards need a row", "measures.against"),
    "no word": ('name = "all"', 'name = "all of them"', "string should match pattern", "Change its value"),
    "data row": ('adapter = "train-sft"', 'data = "logs"', "row 'none' does not fit kind = models", "Leave data out"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(tmp_path: Path, mistake: str) -> None:
    old, new, what, fix = MISTAKES[mistake]
    assert old in TABLE
    file = tmp_path / "mine.toml"
    file.write_text(TABLE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(str(file))
    message = str(caught.value)
    assert message.startswith(str(file))
    assert what in message
    assert fix in message
    assert len(message.splitlines()) == 1


def test_a_rows_key_is_checked_against_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(TABLE.replace('set.capo.kinds = ["neglect"]', 'set.capo.kindes = ["neglect"]'), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"^table mine, row neglect: unknown key 'capo.kindes'. Did you mean 'capo.kinds'"
    ):
        trials(load(str(file)), DEMO, [], [0])
    file.write_text(TABLE, encoding="utf-8")
    with pytest.raises(UserError, match=r"nothing is measured. Set eval.probe"):
        trials(load(str(file)), DEMO, ["eval.probe=none", "eval.judge=none"], [0])


def test_no_such_table() -> None:
    with pytest.raises(UserError, match=r"no such table. Did you mean recipes/tables/table6.toml\?"):
        load("table66")
