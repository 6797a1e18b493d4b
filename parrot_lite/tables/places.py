"""Where the stages of a table's rows lie: what several rows share in one place, what only one uses in its own.

A stage's folder is named by what decides its result: the stage, its part of the resolved recipe, and the same of every
stage that it reads. Rows that agree so far meet in one folder, and the stage runs once.

    <run.folder>/<recipe>/tables/shared/<stage>-<hash>         used by several rows, of whatever table
    <run.folder>/<recipe>/tables/<table>/<row>/<stage>-<hash>  by this row alone: delete it, and this row runs again

What another table's row has finished is not run again: a stage that is not finished in its place is taken from there.
So a row can rest on a folder of another table; where that is deleted, it runs again as well.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_lite.errors import UserError
from parrot_lite.recipe import SECTION, Local, Recipe, Stage, dump
from parrot_lite.recipe_file import load
from parrot_lite.store import write_atomically
from parrot_lite.tables.sheet import Row, Sheet

SHARED = "shared"
LENGTH = 10  # hexadecimal digits of a hash: enough for a table's few hundred stages


@dataclass(frozen=True)
class Trial:
    """A row under one training seed: its recipe, every stage of it in its place, and the stages in running order."""

    row: Row
    seed: int
    recipe: Recipe
    stages: tuple[Stage, ...]
    file: Path  # where its recipe is written, for the stages' processes and for whoever looks

    @property
    def folders(self) -> dict[Stage, Path]:
        """Where each of its stages lies."""
        return {stage: self.recipe.folder(stage) for stage in self.stages}

    def write(self) -> None:
        """Put its recipe beside its results: a whole recipe, which every verb takes."""
        whole = self.recipe.model_dump(mode="json", exclude_none=True, exclude={"name"})
        text = f"# Row {self.row.name} under training seed {self.seed}, as parrot table resolved it.\n{dump(whole)}"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not self.file.exists() or self.file.read_text(encoding="utf-8") != text:
            write_atomically(self.file, text)


def home(recipe: Recipe, sheet: Sheet) -> Path:
    """The table's folder."""
    return Path(recipe.run.folder) / recipe.name / "tables" / sheet.name


def trials(sheet: Sheet, recipe: str, overrides: Sequence[str], seeds: Sequence[int]) -> list[Trial]:
    """Every row under every seed, in the table's order, each stage in its place.

    Raises UserError where a row's recipe does not hold, or measures nothing.
    """
    made = [(row, seed, _recipe(sheet, row, recipe, overrides, seed)) for seed in seeds for row in sheet.rows]
    chains = [_chain(one, _last(sheet, row)) for row, _, one in made]
    names = [
        {stage: f"{stage}-{identity(one, stage)}" for stage in chain}
        for (*_, one), chain in zip(made, chains, strict=True)
    ]
    users: dict[str, set[str]] = {}
    for (row, *_), mine in zip(made, names, strict=True):
        for name in mine.values():
            users.setdefault(name, set()).add(row.name)
    theirs = _theirs(home(made[0][2], sheet).parent) if made else []
    found = []
    for (row, seed, one), chain, mine in zip(made, chains, names, strict=True):
        folder = home(one, sheet)
        places: dict[str, Path] = {}
        for stage, name in mine.items():
            own = (folder / row.name if len(users[name]) == 1 else folder.parent / SHARED) / name
            read: dict[str, Path] = {each: places[each] for each in one.needs(stage)}
            places[stage] = own if _finished(own) else _lent(stage, name, read, theirs) or own
        if "eval" in mine:
            places["report"] = folder / row.name / mine["eval"].replace("eval", "report")
        run = one.run.model_copy(update={"places": {stage: str(place) for stage, place in places.items()}})
        placed = one.model_copy(update={"run": run})
        found.append(Trial(row, seed, placed, chain, folder / row.name / f"{sheet.name}-{row.name}-seed{seed}.toml"))
    return found


def _theirs(tables: Path) -> list[dict[str, Path]]:
    """Where every row of every table has its stages, by the recipes beside them."""
    files = (tomllib.loads(file.read_text(encoding="utf-8")) for file in sorted(tables.glob("*/*/*-seed*.toml")))
    return [{stage: Path(place) for stage, place in file["run"]["places"].items()} for file in files]


def _lent(stage: str, name: str, read: Mapping[str, Path], theirs: Sequence[Mapping[str, Path]]) -> Path | None:
    """Where another row finished the very same stage, having read the very folders that it would read here."""
    for places in theirs:
        place = places.get(stage)
        same = place is not None and place.name == name and _finished(place)
        if same and all(places.get(each) == folder for each, folder in read.items()):
            return place
    return None


def _finished(folder: Path) -> bool:
    return (folder / "manifest.json").exists()


def identity(recipe: Recipe, stage: Stage) -> str:
    """A short hash of all keys that decide a stage's result: its own, and those of the stages that it reads."""
    return hashlib.sha256(json.dumps(_keys(recipe, stage), sort_keys=True).encode()).hexdigest()[:LENGTH]


def _keys(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    return {stage: recipe.resolved(stage), "reads": [_keys(recipe, one) for one in recipe.needs(stage)]}


def _recipe(sheet: Sheet, row: Row, recipe: str, overrides: Sequence[str], seed: int) -> Recipe:
    file = f"table {sheet.name}"
    changes: Mapping[str, Mapping[str, Any]] = {
        f"{file}, [set]": sheet.set,
        f"{file}, row {row.name}": row.set,
        f"{file}, seed {seed}": {"sft": {"seed": seed}, "capo": {"seed": seed}},
    }
    made = load(recipe, overrides, changes)
    if sheet.kind == "data":
        return made
    if made.eval.probe is None and made.eval.judge is None:
        raise UserError("nothing is measured", recipe, "Set eval.probe, or eval.judge as well")
    # One model a row, so that rows are evaluated apart; with the batch that the recipe gives to models of its kind.
    alike = [one for one in made.eval.models.values() if isinstance(one, Local) and one.adapter == row.adapter]
    spec = alike[0] if alike else Local(kind="local", adapter=row.adapter)
    changed: dict[str, Any] = {"models": {row.name: spec}}
    # What speaks of other models of the recipe: there is nobody to be compared with, or to be scored for all.
    if made.eval.judge is not None:
        changed["judge"] = made.eval.judge.model_copy(update={"pairs": ()})
    if made.eval.probe is not None:
        changed["probe"] = made.eval.probe.model_copy(update={"bench_from": None})
    return made.model_copy(update={"eval": made.eval.model_copy(update=changed)})


def _last(sheet: Sheet, row: Row) -> tuple[Stage, ...]:
    """The stages that a row wants, without those that they read."""
    if sheet.kind == "models":
        return ("eval",)
    return tuple(stage for stage in SECTION if stage == row.data)  # none for a file


def _chain(recipe: Recipe, wanted: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages and all that they read, each behind what it reads."""
    found: dict[Stage, None] = {}
    for stage in wanted:
        for one in (*_chain(recipe, recipe.needs(stage)), stage):
            found[one] = None
    return tuple(found)
