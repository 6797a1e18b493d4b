"""Table files: ``recipes/tables/NAME.toml``, what a table compares, how, and what the paper has in its place.

All of it is written down before the run: which rows are compared, which comparison and which measure is primary, and
what must not break meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from parrot_lite.errors import UserError
from parrot_lite.recipe import Section, Sessions
from parrot_lite.recipe_file import toml, validated

FOLDER = Path("recipes/tables")
Measure = Literal[
    "PMI-swap",
    "PMI-last",
    "PMI-none",
    "PMI-swap self-contained",
    "PMI-last self-contained",
    "NLL",
    "score",
    "score of turns 1-2",
    "repetition",
]
Guard = Literal["NLL", "repetition"]
UNITS: dict[Measure, str] = {
    "PMI-swap": "nats a token",
    "PMI-last": "nats a token",
    "PMI-none": "nats a token",
    "PMI-swap self-contained": "nats a token",
    "PMI-last self-contained": "nats a token",
    "NLL": "nats a token",
    "score": "points",
    "score of turns 1-2": "points",
    "repetition": "share of 4-grams",
}
# What a row must not set: it would change what all rows have in common, or what a table decides itself.
COMMON = ("run", "logs", "model", "eval")
OWN = ("sft.seed", "capo.seed", "run.places", "eval.models")


class Paper(Section):
    """Published numbers."""

    source: str = Field(description="where they stand, e.g. Parrot, Table 6")
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = Field(description="what they are numbers of")
    others: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="of what has no row here: name -> column -> number"
    )


class Row(Section):
    """One model, or one data set, by what is different about it."""

    name: str = Field(pattern=r"^[\w.-]+$", description="a word: the row's folder")
    about: str = Field(description="what it is, in words")
    adapter: Literal["train-sft", "train-capo"] | None = Field(
        default=None, description="the stage whose adapter is evaluated; none = the bare base"
    )
    data: Sessions | None = Field(default=None, description="of a table of kind = data: logs, collect, or a file")
    set: dict[str, Any] = Field(default_factory=dict, description="keys of the recipe, over the table's and the user's")
    paper: dict[str, float] = Field(default_factory=dict, description="column -> the paper's number")


class Comparison(Section):
    """Two rows whose difference is tested: ``row`` minus ``baseline``."""

    row: str
    baseline: str
    order: Literal["primary", "secondary"] = Field(
        default="secondary", description="primary = the verdict rests on it, corrected with the other primary ones"
    )
    asks: str = Field(description="the question that it answers; higher is yes")


class Measures(Section):
    """What is measured, and what the verdict rests on."""

    primary: Measure = Field(description="the verdict rests on it")
    co_primary: tuple[Measure, ...] = Field(default=(), description="and on these, corrected together with it")
    others: tuple[Measure, ...] = Field(default=(), description="shown and tested apart, no basis of the verdict")
    guards: dict[Guard, float] = Field(
        default_factory=dict, description="by how much a row's value may exceed that of the row `against`"
    )
    against: str | None = Field(default=None, description="the row that guards are taken against")
    effect: float = Field(default=0.03, gt=0, description="difference that the next run should show, for its size")

    @property
    def all(self) -> tuple[Measure, ...]:
        """Every measure, the primary one first."""
        return tuple(dict.fromkeys((self.primary, *self.co_primary, *self.others, *self.guards)))


class Sheet(Section):
    """A table. ``name`` is the file's name."""

    name: str = Field(description="the file's, never set")
    title: str
    kind: Literal["models", "data"] = Field(
        default="models", description="models = rows are evaluated; data = rows are data sets, counted"
    )
    paper: Paper | None = None
    set: dict[str, Any] = Field(default_factory=dict, description="keys of the recipe, for all rows")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = Field(
        default=(0,), description="of training; data and evaluation stay the same. Three or more, or one"
    )
    dose: float | None = Field(
        default=None,
        ge=0,
        description="share by which compared rows may differ in pairs, sessions and steps before the verdict says so",
    )
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    comparisons: tuple[Comparison, ...] = ()
    measures: Measures | None = None

    @model_validator(mode="after")
    def _rows_hold(self) -> Self:
        names = [row.name for row in self.rows]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two rows are called '{twice}'. Give one of them another name")
        for row in self.rows:
            if (row.data is None) == (self.kind == "data"):
                fix = "Add data = ... to it" if self.kind == "data" else 'Leave data out, or set kind = "data"'
                raise ValueError(f"row '{row.name}' does not fit kind = {self.kind}. {fix}")
            wrong = next((key for key in keys_of(row.set) if key.startswith(OWN) or key.split(".")[0] in COMMON), None)
            if wrong is not None:
                raise ValueError(f"row '{row.name}' sets {wrong}, which all rows share. Move it to the table's [set]")
        own = next((key for key in keys_of(self.set) if key.startswith(OWN)), None)
        if own is not None:
            raise ValueError(f"[set] has {own}, which a table sets itself. Leave it out")
        return self

    @model_validator(mode="after")
    def _comparisons_hold(self) -> Self:
        names = [row.name for row in self.rows]
        seen = set[frozenset[str]]()
        for one in self.comparisons:
            pair = frozenset((one.row, one.baseline))
            if not pair <= set(names) or len(pair) < 2:
                what = f"'{one.row}' minus '{one.baseline}' compares no two rows"
                raise ValueError(f"{what}. The rows are {', '.join(names)}")
            if pair in seen:
                raise ValueError(f"'{one.row}' and '{one.baseline}' are compared twice. Leave one out")
            seen.add(pair)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds names one twice. Name each once")
        return self

    @model_validator(mode="after")
    def _measures_hold(self) -> Self:
        if (self.measures is None) != (self.kind == "data"):
            needs = "needs [measures]. Add it" if self.measures is None else "has no [measures]. Leave it out"
            raise ValueError(f"kind = {self.kind} {needs}")
        measures = self.measures
        if measures is None:
            return self
        if measures.guards and measures.against not in [row.name for row in self.rows]:
            raise ValueError("guards need a row to be taken against. Set measures.against to one of the rows")
        other = next((one for one in measures.co_primary if UNITS[one] != UNITS[measures.primary]), None)
        if other is not None:
            raise ValueError(f"'{other}' has another unit than '{measures.primary}'. Move it to others")
        return self

    @model_validator(mode="after")
    def _numbers_have_columns(self) -> Self:
        columns = self.paper.columns if self.paper else ()
        given = {row.name: row.paper for row in self.rows} | dict(self.paper.others if self.paper else {})
        for name, numbers in given.items():
            if unknown := next((column for column in numbers if column not in columns), None):
                raise ValueError(
                    f"'{name}' has a number of '{unknown}'. paper.columns are {', '.join(columns) or 'none'}"
                )
        return self

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


def keys_of(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The dotted keys that a table sets."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from keys_of(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def load(table: str) -> Sheet:
    """A table by its file, or by its name in ``recipes/tables/``. Raises UserError where it does not hold."""
    path = Path(table) if table.endswith(".toml") else FOLDER / f"{table}.toml"
    data = toml(path, "table", f"{FOLDER}/")
    if "name" in data:
        raise UserError("'name' is taken from the file's name", f"{path}", "Remove the key and rename the file")
    return validated(Sheet, {**data, "name": path.stem}, str(path))
