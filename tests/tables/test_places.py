"""Which stages rows share, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from parrot_lite.recipe import SECTION, Stage
from parrot_lite.recipe_file import load as load_recipe
from parrot_lite.tables.places import Trial, identity, trials
from parrot_lite.tables.schedule import left, tasks
from parrot_lite.tables.sheet import load

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "recipes" / "demo.toml")
NOWHERE = "run.folder=no-such-folder"  # what lies in runs/ decides where stages are found


def where(table: str, *overrides: str, seeds: Sequence[int] = (0,)) -> dict[str, list[str]]:
    """Stage -> the places in which it runs, once each, in running order."""
    sheet = load(str(ROOT / "recipes" / "tables" / f"{table}.toml"))
    found: dict[str, list[str]] = {}
    for task in tasks(trials(sheet, DEMO, [NOWHERE, *overrides], seeds)):
        found.setdefault(task.stage, []).append(task.folder.parent.name)
    return found


def test_table6_shares_all_but_capo_and_evaluation() -> None:
    assert where("table6") == {
        "logs": ["shared"],
        "train-ask": ["shared"],
        "collect": ["shared"],
        "train-sft": ["shared"],
        "negatives": ["shared"],
        "train-capo": ["neglect", "hallucination", "misunderstanding", "all"],
        "eval": ["none", "neglect", "hallucination", "misunderstanding", "all"],
    }


def test_what_one_row_uses_lies_in_its_folder() -> None:
    found = where("table3")
    assert found["negatives"] == ["capo"]
    assert found["train-sft"] == ["shared"]
    assert where("asker")["collect"] == ["trained", "prompted"]
    assert where("asker")["train-ask"] == ["trained"]


def test_tables_meet_in_the_same_shared_folders() -> None:
    sheets = [load(str(ROOT / "recipes" / "tables" / f"{name}.toml")) for name in ("table6", "controls")]
    folders = [
        {
            task.stage: task.folder
            for task in tasks(trials(sheet, DEMO, [NOWHERE], [0]))
            if task.folder.parent.name == "shared"
        }
        for sheet in sheets
    ]
    assert all(folders[0][stage] == folders[1][stage] for stage in ("logs", "train-ask", "collect", "train-sft"))


def test_what_another_table_finished_is_taken_from_there(tmp_path: Path) -> None:
    def row(table: str, name: str) -> Trial:
        sheet = load(str(ROOT / "recipes" / "tables" / f"{table}.toml"))
        (one,) = [each for each in trials(sheet, DEMO, [f"run.folder={tmp_path}"], [0]) if each.row.name == name]
        return one

    def finish(one: Trial, *stages: Stage) -> None:
        one.write()
        for stage in stages:
            one.folders[stage].mkdir(parents=True, exist_ok=True)
            (one.folders[stage] / "manifest.json").write_text("{}", encoding="utf-8")

    def tables(one: Trial) -> dict[Stage, str]:
        return {
            stage: folder.relative_to(tmp_path / "demo" / "tables").parts[0] for stage, folder in one.folders.items()
        }

    lender = row("controls", "C")
    finish(lender)
    assert tables(row("rejected", "C"))["train-capo"] == "rejected"  # the other has not finished it
    finish(lender, "logs", "negatives", "train-sft", "train-capo", "eval")
    assert row("rejected", "C").folders == lender.folders
    assert row("rejected", "R").folders["train-capo"].parent.name == "R"  # another training

    # In table3 one row alone uses the negatives, in table6 several do; the model's name is part of its evaluation.
    finish(row("table6", "all"), "negatives", "train-capo", "eval")
    found = tables(row("table3", "capo"))
    assert (found["negatives"], found["train-capo"], found["eval"]) == ("shared", "table6", "table3")

    # What was read there is not what would be read here: a training of its own, then an evaluation of its own.
    own = row("rejected", "C").recipe.folder("train-capo").name
    mine = tmp_path / "demo" / "tables" / "rejected" / "C" / own
    mine.mkdir(parents=True)
    (mine / "manifest.json").write_text("{}", encoding="utf-8")
    found = tables(row("rejected", "C"))
    assert (found["negatives"], found["train-capo"], found["eval"]) == ("shared", "rejected", "rejected")


def test_several_seeds_train_several_times_and_collect_once() -> None:
    found = where("table6", seeds=(0, 1, 2))
    assert {stage: len(places) for stage, places in found.items()} == {
        "logs": 1,
        "train-ask": 1,
        "collect": 1,
        "negatives": 1,
        "train-sft": 3,
        "train-capo": 12,
        "eval": 15,
    }
    assert where("table3", seeds=(0, 1))["eval"].count("base") == 1  # never trained, so one evaluation for both


def test_an_identity_is_of_what_decides_the_result() -> None:
    plain = load_recipe(DEMO)
    ids = {stage: identity(plain, stage) for stage in SECTION}

    def changed(*overrides: str) -> set[str]:
        other = load_recipe(DEMO, overrides)
        return {stage for stage in SECTION if identity(other, stage) != ids[stage]}

    assert changed("capo.beta=0.2") == {"train-capo", "eval"}
    assert changed("sft.epochs=2") == {"train-sft", "train-capo", "eval"}
    assert changed("negatives.turns_per_session=1") == {"negatives", "train-capo", "eval"}
    assert changed("logs.heldout=9") == set(SECTION)
    assert changed("capo.save_every=9", "negatives.chunk=9", "run.folder=elsewhere") == set()  # where and how fast
    assert changed("run.places.logs=elsewhere") == set()


def test_a_row_has_one_model_and_a_whole_recipe_on_disk(tmp_path: Path) -> None:
    sheet = load(str(ROOT / "recipes" / "tables" / "table6.toml"))
    overrides = [f"run.folder={tmp_path}", 'eval.judge.pairs=[["capo", "sft"]]', "eval.probe.bench_from=capo"]
    for trial in trials(sheet, DEMO, overrides, [3]):
        trial.write()
        again = load_recipe(trial.file)
        assert list(again.eval.models) == [trial.row.name]
        assert again.capo.seed == again.sft.seed == 3
        assert {stage: again.folder(stage) for stage in trial.stages} == trial.folders
        for stage in trial.stages:
            assert again.resolved(stage) == trial.recipe.resolved(stage)
            assert identity(again, stage) == identity(trial.recipe, stage)


def test_rows_stand_over_what_the_user_sets() -> None:
    sheet = load(str(ROOT / "recipes" / "tables" / "table6.toml"))
    made = trials(sheet, DEMO, ['capo.kinds=["random"]', "capo.beta=0.7"], [0])
    assert {trial.row.name: trial.recipe.capo.kinds for trial in made}["neglect"] == ("neglect",)
    assert {trial.recipe.capo.beta for trial in made} == {0.7}


@pytest.mark.parametrize(
    ("todo", "seconds", "expected"),
    [
        (["eval", "train-capo", "eval"], {"eval": [20.0, 40.0], "train-capo": [100.0]}, (160.0, True)),
        (["eval", "train-capo"], {"eval": [20.0]}, (20.0, False)),
        (["eval"], {"eval": []}, None),
        (["eval"], {}, None),
    ],
)
def test_time_left_by_hand(todo: list[str], seconds: dict[str, list[float]], expected: object) -> None:
    assert left(todo, seconds) == expected  # type: ignore[arg-type]
