"""The table: judge scores and judge-free context use, each with its interval and its coverage.

Reads the finished eval folder only, so it prints again at any time what was measured then.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parrot_lite.evaluate.judge import NO_ANSWER
from parrot_lite.evaluate.records import Condition, Likelihood, Played
from parrot_lite.evaluate.statistics import Estimate, Values, difference, mean
from parrot_lite.recipe import ChatSpec, Gguf, Local, Recipe, Scripted, Server
from parrot_lite.store import read, require_unchanged, write_atomically
from parrot_lite.table import Report, Table
from parrot_lite.types import Judgment, derive_seed

CELL = 28  # "10.00 [10.00, 10.00] 128/128"
ACROSS = 3  # such cells in a row
DETECTABLE = "Detectable: the smallest true difference that so many sessions would show in 80% of experiments."
VERDICT = {"written": "", "expected": ": expected score"}
SMALL = 1e9  # parameters below which a model shows that the path works, and no more

Cell = tuple[float, int]  # nats and tokens
Cells = Mapping[tuple[str, int], Mapping[Condition, Cell]]  # (session, turn) -> condition -> likelihood
Measure = Callable[[Cells], Values]


def run(recipe: Recipe) -> None:
    """Print the report of a finished evaluation and write it to ``<recipe>/report/table.md``.

    Raises UserError where the evaluation is not finished or belongs to another recipe.
    """
    report = build(recipe)
    path = recipe.folder("report") / "table.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, report.markdown())
    report.show()


def show(recipe: Recipe) -> None:
    """Print the report of a finished evaluation. Raises as ``run`` does."""
    build(recipe).show()


def build(recipe: Recipe) -> Report:
    """The report of a finished evaluation. Raises UserError where it is unfinished or of another recipe."""
    folder = require_unchanged(recipe, "eval")
    played = list(read(folder / "answers.jsonl", Played))
    judgments = list(read(folder / "judgments.jsonl", Judgment)) if recipe.eval.judge else []
    probed = folder / "likelihoods.jsonl"  # not there where no model is local
    likelihoods = list(read(probed, Likelihood)) if recipe.eval.probe and probed.exists() else []
    models = list(recipe.eval.models)
    numbers = _Numbers(recipe.eval.resamples, derive_seed(recipe.run.seed, "bootstrap"))
    judges = sorted({judgment.judge for judgment in judgments})
    sessions = len({one.dialogue.id for one in played})
    facts = [
        ("recipe", recipe.name),
        *(
            ("model" if len(models) == 1 else f"model {index}", _named(recipe, name))
            for index, name in enumerate(models, 1)
        ),
        ("judge", (", ".join(judges) + VERDICT[recipe.eval.judge.verdict]) if recipe.eval.judge and judges else "none"),
        ("benchmark", f"{recipe.eval.bench}, {sessions} sessions"),
        ("seed", str(recipe.run.seed)),
        ("intervals", f"95%, {recipe.eval.resamples} bootstrap draws of whole sessions"),
    ]
    tables: list[Table] = []
    if recipe.eval.judge:
        tables += [_scores(models, judgments, played, numbers), *_turns(models, judgments, numbers)]
    if recipe.eval.probe:
        tables += _context(models, likelihoods, numbers)
    return Report(
        title=f"Evaluation of {recipe.name}",
        facts=tuple(facts),
        warnings=tuple(_warnings(recipe, judges)),
        tables=tuple(tables),
    )


@dataclass(frozen=True)
class _Numbers:
    """How estimates are made and written in every table."""

    resamples: int
    seed: int

    def mean(self, values: Values) -> Estimate | None:
        return mean(values, self.resamples, self.seed)

    def difference(self, values: Values, baseline: Values) -> Estimate | None:
        return difference(values, baseline, self.resamples, self.seed)


def written(estimate: Estimate | None, form: str) -> str:
    """``mean [low, high]``, each in the format ``form``; what is missing is "-".

    >>> written(Estimate(5.125, 4.5, 5.75, 8, 64), ".2f")
    '5.12 [4.50, 5.75]'
    >>> written(Estimate(0.25, None, None, 1, 8), "+.1f"), written(None, ".1f")
    ('+0.2 [-, -]', '-')
    """
    if estimate is None:
        return "-"
    low, high = ("-" if end is None else format(end, form) for end in (estimate.low, estimate.high))
    return f"{estimate.mean:{form}} [{low}, {high}]"


def scores(judgments: Sequence[Judgment]) -> dict[str, dict[str, dict[int, float]]]:
    """Model -> session -> turn -> score, of the turns that have one."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for judgment in judgments:
        if judgment.score is not None:
            found[judgment.model][judgment.dialogue][judgment.turn] = judgment.score
    return {model: dict(sessions) for model, sessions in found.items()}


def _scores(models: Sequence[str], judgments: Sequence[Judgment], played: Sequence[Played], numbers: _Numbers) -> Table:
    found = scores(judgments)
    asked = Counter(judgment.model for judgment in judgments)
    rows = []
    for model in models:
        own = found.get(model, {})
        judged = f"{sum(map(len, own.values()))}/{asked[model]} judged"
        rows.append((model, written(numbers.mean(own), ".2f"), judged, _length(model, played)))
        for other in _baselines(model, [one for one in models if one in found]):
            against = numbers.difference(own, found[other])
            paired = f"{against.values if against else 0} in both"
            rows.append((f"  minus {other}", _against(against, ".2f"), paired, ""))
    missing = Counter(judgment.reason for judgment in judgments if judgment.score is None)
    return Table(
        "Judge score, 1 to 10",
        ("Model", "Score [95%]", "Turns", "Tokens/answer"),
        tuple(rows),
        (
            "Score: mean over the judged turns, each judged over the transcript up to it. An unjudged turn counts as "
            "missing, never as a low score." + _reasons(missing),
            "Minus: over the turns judged in both, paired. " + DETECTABLE,
        ),
    )


def _baselines(model: str, measured: Sequence[str]) -> list[str]:
    """What a model is compared with, of those measured: the first, and the one before it, which may be the same."""
    before = measured[: measured.index(model)] if model in measured else []
    return list(dict.fromkeys([*before[:1], *before[-1:]]))


def _against(difference: Estimate | None, form: str) -> str:
    """A difference, and below it the detectable effect where the spread tells one."""
    line = written(difference, f"+{form}")
    if difference is None or difference.detectable is None:
        return line
    return f"{line}\ndetectable {difference.detectable:{form}}"


def _reasons(missing: Counter[str | None]) -> str:
    listed = "; ".join(f"{count} x {(reason or '?')[:80]}" for reason, count in missing.most_common(3))
    return f" Missing: {listed}." if listed else ""


def _length(model: str, played: Sequence[Played]) -> str:
    own = [one for one in played if one.model == model]
    answers = sum(len(one.dialogue.answers) for one in own)
    counts = [one.tokens for one in own if one.tokens is not None]
    return f"{sum(counts) / answers:.0f}" if answers and len(counts) == len(own) else "-"


def _turns(models: Sequence[str], judgments: Sequence[Judgment], numbers: _Numbers) -> list[Table]:
    """Turns down, models across: as many models a table as fit in its width."""
    title, notes = "Judge score by turn", _turn_notes(models, judgments)
    blocks = [models[start : start + ACROSS] for start in range(0, len(models), ACROSS)]
    tables = []
    for number, block in enumerate(blocks, 1):
        rows = [(str(turn), *_turn(block, judgments, turn, numbers)) for turn in sorted({j.turn for j in judgments})]
        rows.append(("all", *_turn(block, judgments, None, numbers)))
        head = ("Turn", *("\n".join(textwrap.wrap(model, CELL)) for model in block))
        part = f", part {number} of {len(blocks)}" if len(blocks) > 1 else ""
        tables.append(Table(title + part, head, tuple(rows), notes if number == len(blocks) else ()))
    return tables


def _turn(models: Sequence[str], judgments: Sequence[Judgment], turn: int | None, numbers: _Numbers) -> list[str]:
    cells = []
    for model in models:
        own = [one for one in judgments if one.model == model and turn in (one.turn, None)]
        found = scores(own).get(model, {})
        cells.append(f"{written(numbers.mean(found), '.2f')} {sum(map(len, found.values()))}/{len(own)}")
    return cells


def _turn_notes(models: Sequence[str], judgments: Sequence[Judgment]) -> tuple[str, ...]:
    note = "Mean, its 95% interval over sessions, and judged turns of all turns asked."
    judged = {
        model: {(j.dialogue, j.turn) for j in judgments if j.model == model and j.score is not None} for model in models
    }
    asked = {(j.dialogue, j.turn) for j in judgments}
    if all(turns == asked for turns in judged.values()):
        return (note,)
    counts = ", ".join(f"{model} {len(turns)}/{len(asked)}" for model, turns in judged.items())
    same = len({frozenset(turns) for turns in judged.values()}) == 1
    effect = "every mean leaves them out" if same else "the models' means are over different turns"
    unanswered = sum((one.reason or "").startswith(NO_ANSWER) for one in judgments)
    late = (
        f" {unanswered} had no answer: hardly at random, as a full context ends a session early." if unanswered else ""
    )
    paired = "The differences are paired: over the same turns of both."
    return note, f"Turns are missing (judged: {counts}): {effect}.{late} {paired}"


def per_token(cells: Cells, condition: Condition) -> dict[str, dict[int, float]]:
    """NLL in nats per token under one condition: sum of nats by sum of tokens within a session, one value each.

    The value stands at turn 0: it belongs to the session, not to a turn.
    """
    nats: dict[str, float] = defaultdict(float)
    tokens: dict[str, int] = defaultdict(int)
    for (session, _), conditions in cells.items():
        if condition in conditions:
            nats[session] += conditions[condition][0]
            tokens[session] += conditions[condition][1]
    return {session: {0: nats[session] / tokens[session]} for session in nats}


def pmi(cells: Cells, without: Condition) -> dict[str, dict[int, float]]:
    """NLL under history ``without`` minus NLL under the true one, nats per token, by session; turns that have both."""
    both = {key: conditions for key, conditions in cells.items() if "true" in conditions and without in conditions}
    wrong, true = per_token(both, without), per_token(both, "true")
    return {session: {0: wrong[session][0] - true[session][0]} for session in true}


MEASURES: tuple[tuple[str, Measure], ...] = (
    ("NLL", lambda cells: per_token(cells, "true")),
    ("PMI-swap", lambda cells: pmi(cells, "swap")),
    ("PMI-none", lambda cells: pmi(cells, "none")),
)


def _context(models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: _Numbers) -> list[Table]:
    notes = (
        "NLL: how unlikely the session's own answer is under its true history, nats per token; lower is likelier.",
        "PMI-swap: NLL under another session's history minus NLL under the true one; higher = leans on its history.",
        "PMI-none: NLL without history minus NLL under the true one.",
        "Per token within a session (sum of nats by sum of tokens), then the mean over sessions. Minus: over the "
        "turns that both models have, paired. " + DETECTABLE,
    )
    dependent = [one for one in likelihoods if one.rule is not None]
    other = [one for one in likelihoods if one.rule is None]
    return [
        _context_table("Context use at context-dependent turns", models, dependent, numbers, ()),
        _context_table("Context use at other turns", models, other, numbers, notes),
    ]


def _context_table(
    title: str, models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: _Numbers, notes: tuple[str, ...]
) -> Table:
    by_model: dict[str, dict[tuple[str, int], dict[Condition, Cell]]] = {model: {} for model in models}
    for one in likelihoods:
        cells = by_model[one.model].setdefault((one.dialogue, one.turn), {})
        cells[one.condition] = (one.nll, one.tokens)
    rows = []
    measured = [model for model in models if by_model[model]]  # a server's likelihoods cannot be had
    for model in models:
        own = by_model[model]
        rows.append(
            (model, _sessions_turns(own), *(written(numbers.mean(measure(own)), ".3f") for _, measure in MEASURES))
        )
        for other in _baselines(model, measured):
            mine = {key: cells for key, cells in own.items() if key in by_model[other]}
            base = {key: cells for key, cells in by_model[other].items() if key in own}
            differences = (numbers.difference(measure(mine), measure(base)) for _, measure in MEASURES)
            rows.append((f"  minus {other}", _sessions_turns(mine), *(_against(one, ".3f") for one in differences)))
    head = ("Model", "Sessions,\nturns", *(f"{name} [95%]" for name, _ in MEASURES))
    return Table(title, head, tuple(rows), notes)


def _sessions_turns(cells: Cells) -> str:
    return f"{len({session for session, _ in cells})}, {len(cells)}" if cells else "-"


def _source(spec: ChatSpec, recipe: Recipe) -> str:
    match spec:
        case Server():
            return spec.model
        case Gguf() | Scripted():
            return Path(spec.path).name
        case Local():
            return Path(recipe.model.gguf_file or recipe.model.base).name


def _named(recipe: Recipe, name: str) -> str:
    spec = recipe.eval.models[name]
    adapter = f" + {spec.adapter}" if isinstance(spec, Local) and spec.adapter else ""
    return f"{name} = {_source(spec, recipe)}{adapter}"


def size(name: str) -> str | None:
    """The number of parameters that a model's name tells, as it tells it; None where it tells none.

    The largest, because a name may also tell its active parameters or its context.

    >>> size("SmolLM2-135M-Instruct.Q4_1.gguf"), size("Qwen2.5-7B-Instruct-1M"), size("gpt-4")
    ('135M', '7B', None)
    """
    found: list[str] = re.findall(r"(?<![\d.])\d+(?:\.\d+)?[MmBb](?![A-Za-z\d])", name)
    return max(found, key=parameters) if found else None


def parameters(size: str) -> float:
    """What ``size`` told, as a number."""
    return float(size[:-1]) * (1e9 if size[-1] in "Bb" else 1e6)


def _warnings(recipe: Recipe, judges: Sequence[str]) -> list[str]:
    sources = dict.fromkeys(_source(spec, recipe) for spec in recipe.eval.models.values())
    found = {
        "judge": {told for judge in judges if (told := size(judge.partition("@")[0]))},
        "model": {told for source in sources if (told := size(source))},
    }
    return [
        f"a {told} {role} proves the path, not the result"
        for role, sizes in found.items()
        for told in sorted(sizes)
        if parameters(told) < SMALL
    ]
