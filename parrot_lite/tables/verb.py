"""``parrot table``: run what is missing of a table's rows, then put them beside each other and beside the paper."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from parrot_lite.collect import compare
from parrot_lite.errors import UserError
from parrot_lite.evaluate import bench
from parrot_lite.progress import say
from parrot_lite.recipe import Recipe, Stage
from parrot_lite.store import dialogue_files, read, require, write_atomically
from parrot_lite.table import Report
from parrot_lite.tables import page, picture, results
from parrot_lite.tables.leaks import leaks
from parrot_lite.tables.measures import Evaluated, evaluated
from parrot_lite.tables.places import Trial, home, trials
from parrot_lite.tables.results import Outcome
from parrot_lite.tables.schedule import Task, tasks
from parrot_lite.tables.schedule import run as run_all
from parrot_lite.tables.sheet import Sheet, load
from parrot_lite.types import Dialogue

SHOWN = 3  # leaks that an error names


def run(recipe: str, table: str, overrides: Sequence[str], seeds: Sequence[int], rows: Sequence[str]) -> bool:
    """Run a table and write it into its folder, whether every row has its result.

    As ``<table>.md`` and ``.json``, and where rows are models as a page (``.html``) and a picture (``.svg``), too.
    ``seeds`` replace the table's own; ``rows`` are those to run, none = all: the others are shown where they are
    finished. Raises UserError where table, recipe or a row does not hold, and where training would see what is
    evaluated on.
    """
    sheet = load(table)
    wanted = tuple(dict.fromkeys(seeds)) or sheet.seeds
    unknown = next((name for name in rows if name not in [row.name for row in sheet.rows]), None)
    if unknown is not None:
        raise UserError(f"no row {unknown}", table, f"Its rows are {', '.join(row.name for row in sheet.rows)}")
    every = trials(sheet, recipe, overrides, wanted if sheet.kind == "models" else sheet.seeds[:1])
    mine = [trial for trial in every if not rows or trial.row.name in rows]
    state = run_all(sheet.name, tasks(mine), refuse_leaks())
    failed = {label(trial, wanted): why for trial in mine if (why := state.reason(trial))}
    made = every[0].recipe
    folder = home(made, sheet)
    folder.mkdir(parents=True, exist_ok=True)
    options = [*(f"--seed {seed}" for seed in seeds), *(f"--row {row}" for row in rows)]
    command = " ".join(["parrot table", *map(shlex.quote, (recipe, table, *overrides)), *options])
    if sheet.kind == "data":
        _data(sheet, [trial for trial in mine if label(trial, wanted) not in failed], folder, failed)
    else:
        outcome = gathered(sheet, every, wanted, failed)  # with the rows that nobody wanted run, too
        report = results.report(outcome, command)
        text = json.dumps(results.as_json(outcome, command), indent=1, ensure_ascii=False)
        write_atomically(folder / f"{sheet.name}.json", text + "\n")
        reports = {(one.row.name, one.seed): one.recipe.folder("report") / "report.html" for one in every}
        write_atomically(folder / f"{sheet.name}.html", page.render(page.view(outcome, report, folder, reports)))
        write_atomically(folder / f"{sheet.name}.svg", picture.draw(sheet.title, outcome))
        _written(folder, sheet, report, outcome.verdict().text)
    for name, why in failed.items():
        say(f"{sheet.name}: row {name} failed: {why}")
    say(f"{sheet.name}: {len(failed) or 'none'} of {len(mine)} failed; written to {folder / sheet.name}.md")
    return not failed


def label(trial: Trial, seeds: Sequence[int]) -> str:
    """The row, and its training seed where there are several."""
    return trial.row.name if len(seeds) == 1 else f"{trial.row.name} under seed {trial.seed}"


def refuse_leaks() -> Callable[[Task], None]:
    """A check ahead of every training: raises UserError where it would see what is evaluated on."""
    checked: set[tuple[object, ...]] = set()

    def check(task: Task) -> None:
        recipe = task.trial.recipe
        probe = recipe.eval.probe if "logs" in task.trial.stages else None
        for file in _trained_on(recipe, task.stage):
            apart = bench.heldout_file(recipe, probe) if probe else None
            # Rows that train on the same file need not be evaluated on the same sessions.
            key = file, apart, recipe.eval.bench, recipe.eval.sessions
            if key in checked:
                continue
            checked.add(key)
            heldout = list(read(apart, Dialogue)) if apart else []
            questions = bench.pick(bench.load(recipe.eval.bench), recipe.eval.sessions)
            found = list(islice(leaks([file], heldout, questions), SHOWN))
            if found:
                fix = "Leave such sessions out of the data; what logs and collect write has none"
                raise UserError(f"training would see what is evaluated on: {'; '.join(found)}", task.stage, fix)

    return check


def _trained_on(recipe: Recipe, stage: Stage) -> list[Path]:
    if stage == "train-capo":
        return [require(recipe, "negatives") / "trees.jsonl"]
    if stage not in ("train-ask", "train-sft"):
        return []
    section = recipe.ask if stage == "train-ask" else recipe.sft
    try:
        return list(dialogue_files(recipe, section.data).values())
    except UserError:
        return []  # a file is missing: the stage says so, and the other rows go on


def gathered(sheet: Sheet, every: Sequence[Trial], seeds: Sequence[int], failed: Mapping[str, str]) -> Outcome:
    """The results that there are; what is not finished and did not fail was not run."""
    kept: dict[Path, Evaluated] = {}  # one object an evaluation: an untrained row has the same one under every seed
    rows: dict[str, dict[int, Evaluated]] = {}
    missing = dict(failed)
    for trial in every:
        folder = trial.recipe.folder("eval")
        if folder not in kept:
            try:
                kept[folder] = evaluated(trial.recipe)
            except UserError:
                missing.setdefault(label(trial, seeds), "not run")
                continue
        rows.setdefault(trial.row.name, {})[trial.seed] = kept[folder]
    made = every[0].recipe
    costs = {row.name: results.costs(row.name, every) for row in sheet.rows if row.name in rows}
    return Outcome(sheet, made, tuple(seeds), rows, costs, results.shared(every), missing)


def _data(sheet: Sheet, done: Sequence[Trial], folder: Path, failed: dict[str, str]) -> None:
    """A table of data sets: counted, not tested."""
    found = []
    for trial in done:
        name = trial.row.data or ""
        try:
            file = dialogue_files(trial.recipe, [name])[name]
            found.append(compare.measure(trial.row.name, str(file), None, False, trial.recipe.run.seed))
        except UserError as error:
            failed[trial.row.name] = str(error)
    if not found:
        raise UserError("no data set could be counted", sheet.name, next(iter(failed.values()), ""))
    whole = compare.build(found, "all sessions")
    report = Report(
        sheet.title, whole.facts, tuple(f"row {n} has no result: {why}" for n, why in failed.items()), whole.tables
    )
    _written(folder, sheet, report, "Counts, beside the paper's own: no comparison is declared, and none is decided.")
    data = {
        "table": sheet.model_dump(mode="json", exclude_none=True),
        "rows": [one.model_dump(mode="json") for one in found],
    }
    write_atomically(folder / f"{sheet.name}.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _written(folder: Path, sheet: Sheet, report: Report, verdict: str) -> None:
    head, _, rest = report.markdown().partition("\n")
    write_atomically(folder / f"{sheet.name}.md", f"{head}\n\n**Verdict.** {verdict}\n{rest}")
    report.show()
    print(f"\nVerdict. {verdict}")
