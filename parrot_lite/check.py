"""A detector of context dependence against labelled queries and their human rewrites. Run: parrot context-check FILE...

A row is a query at its place in a session, with a rewrite by a person that can be read alone. Rows of the first turn,
and those whose rewrite changes function words alone (``label_strict`` null), are left out and counted. One-line
baselines stand beside the detector, computed by the same code.

Labels are noisy: annotators left some dependent queries as they were, so specificity reads too low.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parrot_lite.collect.selection import Detect, detector
from parrot_lite.context import Asked, by_rules
from parrot_lite.errors import UserError
from parrot_lite.evaluate.statistics import Estimate, mean
from parrot_lite.progress import progress, say
from parrot_lite.recipe import Detector, Recipe
from parrot_lite.store import read, writable_file, write_atomically
from parrot_lite.types import Dialogue, Record, Role, Turn, derive_seed

Half = Literal["dev", "test"]
ALL = "all"
WIDTH = 120

PERSON = r"\b(?:he|him|his|she|her|hers|it|its|they|them|their|theirs)\b"
POINTING = rf"{PERSON}|\b(?:this|that|these|those)\b"
BASELINES: dict[str, Callable[[str], bool]] = {
    "always dependent": lambda query: True,
    "third-person pronouns": lambda query: bool(re.search(PERSON, query, re.IGNORECASE)),
    "with demonstratives": lambda query: bool(re.search(POINTING, query, re.IGNORECASE)),
    "with cue words": lambda query: bool(re.search(rf"{POINTING}|\b(?:what about|other|more)\b", query, re.IGNORECASE)),
    "demonstratives, or 5 words": lambda query: (
        len(query.split()) <= 5 or bool(re.search(POINTING, query, re.IGNORECASE))
    ),
}


class Said(Record):
    """A message of a row's history, as it stands there."""

    role: Role
    content: str


class LabelledQuery(Record):
    """A labelled query. Fields that the check does not need may stand beside these."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: str
    source: str
    turn: int = Field(ge=1)
    history: tuple[Said, ...]
    query: str
    rewrite: str
    label: Literal[0, 1]
    label_strict: Literal[0, 1] | None

    @property
    def dialogue(self) -> str:
        """The session that the row comes from: its id without the last part."""
        return self.id.rpartition("_")[0] or self.id

    @property
    def half(self) -> Half:
        """Which half its whole dialogue lies in, drawn by ``derive_seed``: rules were designed on ``dev`` alone."""
        return "test" if derive_seed(0, "context-check", self.dialogue) % 2 else "dev"

    @property
    def paired(self) -> bool:
        """Whether query and rewrite are contrasted: the query is dependent, and the rewrite is another text."""
        return self.label_strict == 1 and self.query != self.rewrite


@dataclass(frozen=True)
class Judged:
    """What a detector says of a row's query and of its rewrite; None where it could not say or was not asked."""

    row: LabelledQuery
    query: bool | None
    rewrite: bool | None

    @property
    def paired(self) -> float | None:
        """1 where the query alone is called dependent, 0 where the rewrite alone is, 0.5 where both or neither are."""
        if not self.row.paired or self.query is None or self.rewrite is None:
            return None
        return 0.5 + (self.query - self.rewrite) / 2


@dataclass(frozen=True)
class Figures:
    """A detector on the rows of one source. A ratio without any row below its line is None.

    ``paired`` is the mean over rows with ``label_strict`` 1 whose rewrite differs: 1 where the detector calls the query
    dependent and not its rewrite, 0 where it says the reverse, 0.5 for a tie; ``low`` and ``high`` are its 95% interval
    with dialogues as the sample. ``strict`` counts ties as 0. ``silent`` rows have no verdict and count nowhere.
    """

    source: str
    detector: str
    rows: int
    silent: int
    precision: float | None
    recall: float | None
    specificity: float | None
    f1: float | None
    pairs: int
    paired: float | None
    low: float | None
    high: float | None
    strict: float | None


def run(
    files: Sequence[Path], recipe: Recipe | None, name: Detector, half: Half | None, limit: int | None, out: Path | None
) -> None:
    """Print the figures of one detector and of the baselines, and write them to ``out``.

    Without a recipe the detector is the rules, which need none, and the seed is 0. Raises UserError where a row does
    not hold, none is left, or ``out`` cannot be written.
    """
    if out is not None:
        writable_file(out)
    gold = load(files, half)
    seed = recipe.run.seed if recipe else 0
    rows = gold.rows if limit is None else sample(gold.rows, limit, seed)
    judged = {f"detector: {name}": _detected(rows, gold.sessions, name, recipe)}
    for title, baseline in BASELINES.items():
        judged[title] = [Judged(row, baseline(row.query), baseline(row.rewrite)) for row in rows]
    sources = [*dict.fromkeys(row.source for row in rows), ALL]
    table = [
        figures(source, title, [one for one in found if source in (one.row.source, ALL)])
        for source in sources
        for title, found in judged.items()
    ]
    if out is not None:
        text = {
            "files": [str(file) for file in files],
            "half": half,
            "left out": dict(gold.left_out),
            "figures": [asdict(one) for one in table],
        }
        write_atomically(out, json.dumps(text, indent=1) + "\n")
    _print(table, gold.left_out, half)


@dataclass(frozen=True)
class Gold:
    """The rows to check, the sessions that they come from, and how many rows were left out for which reason."""

    rows: list[LabelledQuery]
    sessions: dict[str, Dialogue]
    left_out: Counter[str]


def load(files: Sequence[Path], half: Half | None) -> Gold:
    """The labelled rows of some files. Raises UserError where an id occurs twice or no row is left."""
    rows: list[LabelledQuery] = []
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    sessions: dict[str, Dialogue] = {}
    for file in files:
        for row in read(file, LabelledQuery):
            if row.id in seen:
                raise UserError(f"a second row '{row.id}'", str(file), "Name every row once")
            seen.add(row.id)
            if half is not None and row.half != half:
                counts["other half"] += 1
                continue
            if (session := session_of(row)) is not None and len(session.turns) > len(
                sessions.get(row.dialogue, Dialogue(id="", source="")).turns
            ):
                sessions[row.dialogue] = session
            if row.turn == 1:
                counts["first turn"] += 1
            elif row.label_strict is None:
                counts["no strict label"] += 1
            else:
                rows.append(row)
    if not rows:
        left_out = ", ".join(f"{count} x {reason}" for reason, count in counts.items()) or "no rows"
        raise UserError(f"nothing to check: {left_out}", ", ".join(map(str, files)), "Name a file of labelled rows")
    return Gold(rows, sessions, counts)


def session_of(row: LabelledQuery) -> Dialogue | None:
    """The session up to the row's query; None where its history holds no answers, as in CAsT."""
    try:
        turns = tuple(Turn(role=said.role, content=said.content.strip()) for said in row.history)
        return Dialogue(id=row.dialogue, source=row.source, turns=turns).say(row.query)
    except ValueError:
        return None


def sample(rows: Sequence[LabelledQuery], limit: int, seed: int) -> list[LabelledQuery]:
    """At most ``limit`` rows, drawn by seed and then in their order."""
    drawn = sorted(range(len(rows)), key=lambda at: derive_seed(seed, "context-check sample", rows[at].id))[:limit]
    return [rows[at] for at in sorted(drawn)]


def figures(source: str, title: str, judged: Sequence[Judged]) -> Figures:
    """The figures of one detector over some rows. Strict labels decide what is right."""
    found = [(one, one.query) for one in judged if one.query is not None]
    precision = _share([one.row.label_strict == 1 for one, said in found if said])
    recall = _share([said for one, said in found if one.row.label_strict == 1])
    specificity = _share([not said for one, said in found if one.row.label_strict == 0])
    pairs = [(one.row, value) for one in judged if (value := one.paired) is not None]
    paired = _by_dialogue(pairs)
    return Figures(
        source=source,
        detector=title,
        rows=len(judged),
        silent=len(judged) - len(found),
        precision=precision,
        recall=recall,
        specificity=specificity,
        f1=_f1(precision, recall),
        pairs=len(pairs),
        paired=paired.mean if paired else None,
        low=paired.low if paired else None,
        high=paired.high if paired else None,
        strict=_share([value == 1 for _, value in pairs]),
    )


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _f1(precision: float | None, recall: float | None) -> float | None:
    if precision is None or recall is None or precision + recall == 0:
        return None
    return 2 * precision * recall / (precision + recall)


def _by_dialogue(pairs: Sequence[tuple[LabelledQuery, float]]) -> Estimate | None:
    values: dict[str, dict[int, float]] = {}
    for row, value in pairs:
        mine = values.setdefault(row.dialogue, {})
        mine[len(mine)] = value
    return mean(values)


def _detected(
    rows: Sequence[LabelledQuery], sessions: dict[str, Dialogue], name: Detector, recipe: Recipe | None
) -> list[Judged]:
    """The detector's verdicts on every query, and on the rewrites that are contrasted with theirs."""
    queries = [_asked(row, row.query, sessions) for row in rows]
    contrasted = [row for row in rows if row.paired]
    rewrites = [_asked(row, row.rewrite, sessions) for row in contrasted]
    with ExitStack() as stack:
        detect: Detect = by_rules
        if recipe is not None:
            detect = stack.enter_context(detector(name, recipe, [one.complete() for one in sessions.values()]))
        bar = stack.enter_context(progress("context-check", len(queries) + len(rewrites)))
        said = []
        chunk = recipe.negatives.chunk if recipe else 1
        for start in range(0, len(queries) + len(rewrites), chunk):
            for verdict in detect([*queries, *rewrites][start : start + chunk]):
                said.append(verdict)
                bar.advance()
    silent = Counter(verdict.why for verdict in said if verdict.dependent is None)
    for why, count in silent.most_common(3):
        say(f"context-check: {name} gave no verdict on {count} of {len(said)} texts: {why}")
    of_rewrite = {row.id: verdict.dependent for row, verdict in zip(contrasted, said[len(rows) :], strict=True)}
    return [
        Judged(row, verdict.dependent, of_rewrite.get(row.id))
        for row, verdict in zip(rows, said[: len(rows)], strict=True)
    ]


def _asked(row: LabelledQuery, query: str, sessions: dict[str, Dialogue]) -> Asked:
    """The query, or its rewrite, at the row's place; without a history where the session has no answers."""
    session = sessions.get(row.dialogue)
    if session is None or row.turn > len(session.queries):
        return Asked(row.dialogue, row.turn, query, (), None)
    answer = session.answers[row.turn - 1] if row.turn <= len(session.answers) else None
    return Asked(row.dialogue, row.turn, query, session.before(row.turn).turns[:-1], answer)


def _print(table: Sequence[Figures], left_out: Counter[str], half: Half | None) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    head = ("", "rows", "precision", "recall", "specificity", "F1", "pairs", "paired", "95%", "ties = 0")
    for source, part in groupby(table, key=lambda one: one.source):
        block = Table(title=Text(source, "bold"), title_justify="left", box=None, padding=(0, 2, 0, 0))
        for index, name in enumerate(head):
            block.add_column(Text(name, "bold"), justify="right" if index else "left", no_wrap=True)
        for one in part:
            interval = "" if one.low is None or one.high is None else f"{one.low:.3f}-{one.high:.3f}"
            rows = f"{one.rows - one.silent}/{one.rows}" if one.silent else str(one.rows)
            ratios = map(_ratio, (one.precision, one.recall, one.specificity, one.f1))
            cells = (one.detector, rows, *ratios, str(one.pairs), _ratio(one.paired), interval, _ratio(one.strict))
            block.add_row(*map(Text, cells))
        console.print(block)
        console.print()
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    console.print(Text(f"half: {half or 'both'}; left out: {reasons or 'nothing'}"), soft_wrap=True)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
