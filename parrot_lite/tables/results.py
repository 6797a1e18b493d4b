"""A table's rows put together: means, differences, guards, costs, the paper's numbers, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parrot_lite import __version__
from parrot_lite.evaluate import bench, statistics
from parrot_lite.evaluate.estimates import INTERVALS, Numbers, contrast_table, written
from parrot_lite.evaluate.statistics import Contrast, Estimate, Values, corrected
from parrot_lite.recipe import Recipe
from parrot_lite.table import Report, Table
from parrot_lite.tables.measures import FORMS, MEANING, Evaluated
from parrot_lite.tables.places import Trial
from parrot_lite.tables.sheet import UNITS, Comparison, Measure, Measures, Sheet
from parrot_lite.tables.verdict import Finding, Guarded, Verdict, verdict

Runs = Mapping[int, Evaluated]  # training seed -> what its evaluation wrote
Key = tuple[str, str, Measure]  # row, baseline, measure
FIRST, ACROSS = 2, 3  # measures in the first table of rows, which has the paper's numbers too, and in the others
TRAINED = ("pairs", "sessions", "steps")
UNFIT = "sessions left out: no turn fits max_tokens"  # as train-sft counts them


@dataclass(frozen=True)
class Cost:
    """What the stages of one row took that no other row uses, over all its seeds, and what its model trained on."""

    minutes: float
    tokens: int
    devices: tuple[str, ...]
    trained: tuple[int, int, int] | None  # pairs, sessions, steps of one seed's CaPO; None where there is none
    tuned: int | None = None  # sessions that SFT trained on; None where there was none

    def doses(self) -> dict[str, int]:
        """What it trained on, by name."""
        found = dict(zip(TRAINED, self.trained, strict=True)) if self.trained else {}
        return found if self.tuned is None else {**found, "SFT sessions": self.tuned}


@dataclass(frozen=True)
class Outcome:
    """A table's results. ``seeds`` are those that each row was wanted under."""

    sheet: Sheet
    recipe: Recipe
    seeds: tuple[int, ...]
    rows: Mapping[str, Runs]  # those with a result, by name
    costs: Mapping[str, Cost]
    shared: tuple[tuple[str, float, str], ...]  # stage and hash, minutes, the rows that use it
    failed: Mapping[str, str]  # row, or "row under seed n" where there are several -> why it has no result

    @property
    def measures(self) -> Measures:
        """What is measured."""
        assert self.sheet.measures is not None
        return self.sheet.measures

    def numbers(self) -> Numbers:
        """How estimates are made."""
        return Numbers(self.recipe.eval.resamples, self.recipe.run.seed)

    def level(self, row: str, measure: Measure) -> Estimate | None:
        """A row's mean; None where it was not measured."""
        return statistics.over_seeds(_distinct(self.rows.get(row, {}), measure))

    def contrast(self, row: str, baseline: str, measure: Measure) -> Contrast | None:
        """The difference, paired by session and turn and, where there are several, by training seed."""
        mine, theirs = self.rows.get(row, {}), self.rows.get(baseline, {})
        both = [seed for seed in mine if seed in theirs]
        if len(both) == 1:
            return self.numbers().contrast(mine[both[0]].values(measure), theirs[both[0]].values(measure))
        return statistics.contrast_over_seeds(
            {seed: mine[seed].values(measure) for seed in both}, {seed: theirs[seed].values(measure) for seed in both}
        )

    def by_seed(self) -> dict[Key, dict[int, Estimate]]:
        """Every comparison in the primary measures, under each training seed by itself; empty where there is one."""
        if len(self.seeds) == 1:
            return {}
        found: dict[Key, dict[int, Estimate]] = {}
        for measure in (self.measures.primary, *self.measures.co_primary):
            for one in self.sheet.comparisons:
                mine, theirs = self.rows.get(one.row, {}), self.rows.get(one.baseline, {})
                for seed in self.seeds:
                    if seed not in mine or seed not in theirs:
                        continue
                    both = statistics.paired(mine[seed].values(measure), theirs[seed].values(measure))
                    if (estimate := statistics.mean(both)) is not None:
                        found.setdefault(_key(one, measure), {})[seed] = estimate
        return found

    def primary(self) -> list[Finding]:
        """The comparisons that the verdict rests on, as one family."""
        wanted = (self.measures.primary, *self.measures.co_primary)
        pairs = [(one, measure) for one in self.sheet.comparisons if one.order == "primary" for measure in wanted]
        made = self._corrected(pairs)
        return [Finding(one, measure, made.get(_key(one, measure))) for one, measure in pairs]

    def others(self) -> dict[str, dict[Key, Contrast]]:
        """All other comparisons, by their unit: secondary ones, and primary ones in other measures."""
        basis = (self.measures.primary, *self.measures.co_primary)
        found: dict[str, dict[Key, Contrast]] = {}
        for unit in dict.fromkeys(UNITS[measure] for measure in self.measures.all):
            pairs = [
                (one, measure)
                for measure in self.measures.all
                for one in self.sheet.comparisons
                if UNITS[measure] == unit and (one.order == "secondary" or measure not in basis)
            ]
            if made := self._corrected(pairs):
                found[unit] = made
        return found

    def compared(self, measure: Measure) -> dict[tuple[str, str], Contrast]:
        """Every comparison in one measure, by row and baseline, each corrected within its own family."""
        primary = {_key(one.comparison, one.measure): one.contrast for one in self.primary()}
        found = {**primary, **self.others().get(UNITS[measure], {})}
        pairs = sorted(self.sheet.comparisons, key=lambda one: one.order != "primary")
        made = {(one.row, one.baseline): found.get(_key(one, measure)) for one in pairs}
        return {key: one for key, one in made.items() if one is not None}

    def _corrected(self, pairs: Sequence[tuple[Comparison, Measure]]) -> dict[Key, Contrast]:
        made = {_key(one, measure): self.contrast(one.row, one.baseline, measure) for one, measure in pairs}
        return corrected({key: one for key, one in made.items() if one is not None})

    def guards(self) -> list[Guarded]:
        """Every guard of every row that a primary comparison is about."""
        against = self.measures.against
        rows = dict.fromkeys(one.row for one in self.sheet.comparisons if one.order == "primary")
        found = []
        for row in rows:
            for guard, limit in self.measures.guards.items():
                if against is not None and row != against and row in self.rows:
                    one = self.contrast(row, against, guard)
                    found.append(Guarded(row, against, guard, limit, one.difference if one else None))
        return found

    def doses(self) -> list[str]:
        """What compared rows trained on unequally, beyond the sheet's tolerance."""
        if self.sheet.dose is None:
            return []
        found: dict[str, None] = {}
        for one in self.sheet.comparisons:
            mine, theirs = (self.costs[name].doses() if name in self.costs else {} for name in (one.row, one.baseline))
            for what in (name for name in mine if name in theirs):
                more, less = mine[what], theirs[what]
                if max(more, less) > (1 + self.sheet.dose) * min(more, less):
                    found[f"{one.row} has {more} {what}, {one.baseline} {less}"] = None
        return list(found)

    def verdict(self) -> Verdict:
        """What all of it allows to be said."""
        return verdict(self.primary(), self.guards(), self.failed, len(self.seeds), self.doses())


def _key(one: Comparison, measure: Measure) -> Key:
    return one.row, one.baseline, measure


def _distinct(runs: Runs, measure: Measure) -> dict[int, Values]:
    """A row's values by seed, one seed of those that were never trained and so are one evaluation."""
    first: dict[int, int] = {}
    for seed, one in runs.items():
        first.setdefault(id(one), seed)
    return {seed: runs[seed].values(measure) for seed in first.values()}


def costs(row: str, every: Sequence[Trial]) -> Cost:
    """What a row's stages took, of those that no other row of its table uses; its dose whoever uses them."""
    folders = {folder: stage for trial in every if trial.row.name == row for stage, folder in trial.folders.items()}
    users = _users(every)
    done = [one for folder in folders if len(users[folder]) == 1 and (one := manifest(folder))]
    trained, tuned = (
        next((one for folder, each in folders.items() if each == stage and (one := manifest(folder))), None)
        for stage in ("train-capo", "train-sft")
    )
    return Cost(
        sum(one["seconds"] for one in done) / 60,
        sum(one.get("tokens", 0) for one in done),
        tuple(dict.fromkeys(one["device"] for one in done)),
        # In the layout of pairs a session is not counted, and a step is of pairs.
        (trained["pairs"], trained.get("sessions", trained["pairs"]), trained["steps"]) if trained else None,
        tuned["counts"]["sessions read"] - tuned["counts"].get(UNFIT, 0) if tuned else None,
    )


def shared(every: Sequence[Trial]) -> tuple[tuple[str, float, str], ...]:
    """The stages that several rows use: name, minutes, rows."""
    return tuple(
        (folder.name, facts["seconds"] / 60, ", ".join(rows))
        for folder, rows in _users(every).items()
        if len(rows) > 1 and (facts := manifest(folder))
    )


def _users(every: Sequence[Trial]) -> dict[Path, dict[str, None]]:
    """Folder -> the rows whose stages lie there, wherever that is."""
    users: dict[Path, dict[str, None]] = {}
    for trial in every:
        for folder in trial.folders.values():
            users.setdefault(folder, {})[trial.row.name] = None
    return users


def manifest(folder: Path) -> dict[str, Any] | None:
    """A finished stage's manifest; None where it is not finished."""
    file = folder / "manifest.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def report(outcome: Outcome, command: str) -> Report:
    """The tables of a table; its verdict stands beside."""
    sheet, recipe = outcome.sheet, outcome.recipe
    several = len(outcome.seeds) > 1
    facts = [
        ("parrot_lite", __version__),
        ("recipe", recipe.name),
        ("command", command),
        ("training seeds", ", ".join(map(str, outcome.seeds))),
        *bench.scored_on(recipe),
        ("intervals", INTERVALS if not several else "95%, Student's t over sessions and training seeds"),
        (
            "p values",
            outcome.numbers().tests if not several else "two-sided, of the t test that belongs to the interval",
        ),
        ("primary", f"{', '.join((outcome.measures.primary, *outcome.measures.co_primary))}, declared before the run"),
    ]
    tables = _levels(outcome)
    if findings := [one for one in outcome.primary() if one.contrast is not None]:
        unit = UNITS[outcome.measures.primary]
        made = {_key(one.comparison, one.measure): one.contrast for one in findings if one.contrast is not None}
        tables.append(_contrasts("Primary differences", made, unit, outcome))
    tables += _seeds(outcome)
    for unit, made in outcome.others().items():
        tables.append(_contrasts(f"Other differences, {unit}", made, unit, outcome))
    tables += [*_guards(outcome.guards()), *_paper(sheet), _cost(outcome), *_shared(outcome.shared)]
    failed = [f"row {name} has no result: {reason}" for name, reason in outcome.failed.items()]
    return Report(sheet.title, tuple(facts), tuple(failed), tuple(tables))


def _levels(outcome: Outcome) -> list[Table]:
    """Rows down, measures across: as many a table as fit in its width, the paper's numbers beside the first ones."""
    sheet = outcome.sheet
    levels = {one: {row.name: outcome.level(row.name, one) for row in sheet.rows} for one in outcome.measures.all}
    measured = [one for one, by_row in levels.items() if any(by_row.values())]
    missing = [one for one in levels if one not in measured]
    columns = sheet.paper.columns if sheet.paper else ()
    blocks = [measured[:FIRST], *(measured[at : at + ACROSS] for at in range(FIRST, len(measured), ACROSS))]
    tables = []
    for block in blocks:
        theirs = columns if block is blocks[0] else ()
        rows = tuple(
            (
                row.name,
                *(written(levels[one][row.name], FORMS[UNITS[one]]) for one in block),
                *(f"{row.paper[column]:g}" if column in row.paper else "-" for column in theirs),
            )
            for row in sheet.rows
        )
        notes = [f"{one}, {UNITS[one]}: {MEANING[one]}" for one in block]
        if block is blocks[0]:
            notes = [*(f"{row.name}: {row.about}." for row in sheet.rows), *notes]
            notes += [f"Paper: {sheet.paper.source}."] if sheet.paper else []
        if block is blocks[-1] and missing:
            notes.append(f"Not measured: {', '.join(missing)}.")
        head = ("Row", *(f"{one} [95%]" for one in block), *(f"{column}\n(paper)" for column in theirs))
        tables.append(Table("Rows" if block is blocks[0] else "Rows, other measures", head, rows, tuple(notes)))
    return tables


def _contrasts(title: str, made: Mapping[Key, Contrast], unit: str, outcome: Outcome) -> Table:
    rows = {
        f"{measure}: {row} minus {base}": (one, str(one.difference.values))
        for (row, base, measure), one in made.items()
    }
    effect = outcome.measures.effect if unit == "nats a token" else outcome.recipe.eval.effect
    note = "Turns: values in both; likelihoods of a session are one value."
    return contrast_table(title, rows, unit.capitalize(), FORMS[unit], effect, (note,))


def _seeds(outcome: Outcome) -> list[Table]:
    found = outcome.by_seed()
    rows = tuple(
        (
            f"{measure}: {row} minus {base}",
            *(f"{by[seed].mean:+{FORMS[UNITS[measure]]}}" if seed in by else "-" for seed in outcome.seeds),
        )
        for (row, base, measure), by in found.items()
    )
    head = ("Difference", *(f"Seed {seed}" for seed in outcome.seeds))
    note = "What each training seed gave by itself: how much training varies, and no test."
    title = f"Differences under each training seed, {UNITS[outcome.measures.primary]}"
    return [Table(title, head, rows, (note,))] if rows else []


def _guards(guards: Sequence[Guarded]) -> list[Table]:
    rows = tuple(
        (
            f"{one.row} minus {one.against}",
            one.guard,
            written(one.difference, f"+{FORMS[UNITS[one.guard]]}"),
            f"{one.limit:+g}",
            one.state,
        )
        for one in guards
    )
    note = "Broken: the mean is above the limit. Open: it is not, but its interval reaches beyond."
    return [Table("Guards", ("Row", "Guard", "Difference [95%]", "Limit", "State"), rows, (note,))] if rows else []


def _paper(sheet: Sheet) -> list[Table]:
    if sheet.paper is None:
        return []
    given = {row.name: row.paper for row in sheet.rows if row.paper} | dict(sheet.paper.others)
    columns = sheet.paper.columns
    rows = tuple((name, *(f"{of[one]:g}" if one in of else "-" for one in columns)) for name, of in given.items())
    note = "As published, on the paper's models, data and judge: beside ours, not comparable with them."
    note = f"{sheet.paper.source}. {note}"
    return [Table("The paper's numbers", ("Row", *columns), rows, (note,))] if rows else []


def _cost(outcome: Outcome) -> Table:
    rows = []
    for row in outcome.sheet.rows:
        cost = outcome.costs.get(row.name)
        if cost is None:
            continue
        dose = tuple(f"{number:,}" for number in cost.trained) if cost.trained else ("-",) * len(TRAINED)
        rows.append((row.name, f"{cost.minutes:.1f}", f"{cost.tokens:,}", *dose, ", ".join(cost.devices) or "-"))
    return Table(
        "Cost",
        ("Row", "Minutes", "Tokens", "Pairs", "Sessions", "Steps", "Device"),
        tuple(rows),
        (
            "Minutes and tokens of the stages that no other row uses, over all seeds: of training data once, and "
            "generated. Minutes are of the attempt that finished. Pairs, sessions, steps: of CaPO under one seed.",
        ),
    )


def _shared(stages: Sequence[tuple[str, float, str]]) -> list[Table]:
    rows = tuple((name, f"{minutes:.1f}", users) for name, minutes, users in stages)
    return [Table("Stages that rows share", ("Stage", "Minutes", "Rows"), rows)] if rows else []


def as_json(outcome: Outcome, command: str) -> dict[str, Any]:
    """All figures of a table, for programs."""
    sheet = outcome.sheet
    return {
        "made": {"parrot_lite": __version__, "recipe": outcome.recipe.name, "command": command},
        "table": sheet.model_dump(mode="json", exclude_none=True),
        "seeds": list(outcome.seeds),
        "verdict": outcome.verdict().text,
        "rows": {
            row.name: {
                "levels": {one: _plain(outcome.level(row.name, one)) for one in outcome.measures.all},
                "cost": asdict(outcome.costs[row.name]) if row.name in outcome.costs else None,
                "seeds": list(outcome.rows.get(row.name, {})),
            }
            for row in sheet.rows
        },
        "without a result": dict(outcome.failed),
        "primary": [
            {"row": one.comparison.row, "baseline": one.comparison.baseline, "measure": one.measure}
            | _contrast(one.contrast)
            for one in outcome.primary()
        ],
        "by seed": [
            {"row": row, "baseline": base, "measure": measure} | {f"seed {seed}": one.mean for seed, one in by.items()}
            for (row, base, measure), by in outcome.by_seed().items()
        ],
        "others": [
            {"row": row, "baseline": base, "measure": measure} | _contrast(one)
            for made in outcome.others().values()
            for (row, base, measure), one in made.items()
        ],
        "guards": [
            {
                "row": one.row,
                "guard": one.guard,
                "limit": one.limit,
                "state": one.state,
                **(_plain(one.difference) or {}),
            }
            for one in outcome.guards()
        ],
    }


def _plain(one: Estimate | None) -> dict[str, Any] | None:
    if one is None:
        return None
    keys = ("mean", "low", "high", "sessions", "values", "detectable")
    return {key: getattr(one, key) for key in keys}


def _contrast(one: Contrast | None) -> dict[str, Any]:
    return (
        {**(_plain(one.difference) or {}), "p": one.p, "adjusted": one.adjusted} if one is not None else {"mean": None}
    )
