"""The report: judge scores and judge-free context use, each with its interval and its coverage.

Reads the finished eval folder only, so it prints again at any time what was measured then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from parrot_lite.evaluate import bench, context_use, entities, families, page, pairwise, repetition, scores
from parrot_lite.evaluate.bench import QUESTIONS
from parrot_lite.evaluate.card import kept as judge_card
from parrot_lite.evaluate.estimates import INTERVALS, Numbers
from parrot_lite.evaluate.page import Records
from parrot_lite.evaluate.records import (
    ANSWERS,
    CHOICES,
    COMPARISONS,
    JUDGMENTS,
    LEFT_OUT,
    LIKELIHOODS,
    Choice,
    Comparison,
    Likelihood,
    Played,
    Question,
)
from parrot_lite.progress import say
from parrot_lite.recipe import ChatSpec, Gguf, Judge, Local, Recipe, Scripted, Server
from parrot_lite.store import read, require_unchanged, write_atomically
from parrot_lite.table import Report, Table
from parrot_lite.types import Judgment, derive_seed

VERDICT = {"written": "", "expected": ": expected score", "json": ": in JSON"}
SMALL = 1e9  # parameters below which a model shows that the path works, and no more


def run(recipe: Recipe, brief: bool = False) -> None:
    """Print the report of a finished evaluation; write it to ``<recipe>/report/`` as ``table.md`` and ``report.html``.

    ``brief`` prints the main tables alone. Raises UserError where the evaluation is not finished or belongs to another
    recipe.
    """
    records, numbers = _records(recipe), _numbers(recipe)
    report = _report(recipe, records, numbers)
    folder = recipe.folder("report")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "table.md", report.markdown())
    write_atomically(folder / "report.html", page.render(page.view(records, report, numbers)))
    shown = report.brief if brief else report
    shown.show()
    if left := len(report.tables) - len(shown.tables):
        say(f"{left} more tables: {folder / 'table.md'}, or parrot report")
    say(f"the same with charts and all transcripts: {folder / 'report.html'}")


def build(recipe: Recipe) -> Report:
    """The report of a finished evaluation. Raises UserError where it is unfinished or of another recipe."""
    return _report(recipe, _records(recipe), _numbers(recipe))


def _numbers(recipe: Recipe) -> Numbers:
    return Numbers(recipe.eval.resamples, derive_seed(recipe.run.seed, "bootstrap"))


def _records(recipe: Recipe) -> Records:
    folder = require_unchanged(recipe, "eval")
    settings = recipe.eval
    asked = folder / QUESTIONS  # not there where an older version played
    probed = folder / LIKELIHOODS  # not there where no model is local
    chosen = folder / CHOICES
    pairs = settings.judge is not None and settings.judge.pairs
    return Records(
        models=tuple(settings.models),
        histories=settings.history,
        sources=tuple(_source(spec, recipe) for spec in settings.models.values()),
        played=tuple(read(folder / ANSWERS, Played)),
        questions=tuple(read(asked, Question)) if asked.exists() else (),
        judgments=tuple(read(folder / JUDGMENTS, Judgment)) if settings.judge else (),
        comparisons=tuple(read(folder / COMPARISONS, Comparison)) if pairs else (),
        likelihoods=tuple(read(probed, Likelihood)) if settings.probe and probed.exists() else (),
        choices=tuple(read(chosen, Choice)) if settings.probe and settings.probe.trees and chosen.exists() else (),
        card=judge_card(recipe) if settings.judge else None,
    )


def _report(recipe: Recipe, records: Records, numbers: Numbers) -> Report:
    models, played, judgments = records.models, records.played, records.judgments
    judges = sorted({judgment.judge for judgment in judgments})
    sessions = len({one.dialogue.id for one in played})
    facts = [
        ("recipe", recipe.name),
        *(
            ("model" if len(models) == 1 else f"model {index}", f"{name} = {source}")
            for index, (name, source) in enumerate(zip(models, records.sources, strict=True), 1)
        ),
        ("judge", _judge(judges, recipe.eval.judge, judgments)),
        ("benchmark", f"{recipe.eval.bench}, {sessions} sessions"),
        *([("history", ", ".join(recipe.eval.history))] if recipe.eval.history != ("own",) else []),
        *bench.scored_on(recipe),
        ("seed", str(recipe.run.seed)),
        ("intervals", INTERVALS),
        ("p values", numbers.tests),
    ]
    tables: list[Table] = []
    if recipe.eval.judge:
        tables.append(scores.overall(records.players, judgments, played, numbers))
        tables += scores.differences(models, recipe.eval.history, judgments, numbers, recipe.eval.effect)
        tables += scores.by_turn(records.players, judgments, numbers)
        tables += scores.by_category(records.players, judgments, numbers)
    if recipe.eval.judge and recipe.eval.judge.pairs:
        tables.append(pairwise.table(records.comparisons, numbers))
    tables += entities.tables(models, recipe.eval.history, played, records.questions, numbers)
    tables.append(repetition.table(records.players, played, numbers))
    if recipe.eval.probe:
        tables += context_use.tables(models, records.likelihoods, numbers, recipe.eval.probe, _left_out(recipe))
        if recipe.eval.probe.trees is None:
            facts.append(("forced choice", "none, eval.probe.trees names no negatives of held-out sessions"))
        elif records.choices:
            tables += context_use.choice_tables(models, records.choices, numbers)
    card = records.card
    if card is not None:
        tables.append(card.table())
    elif judges:
        facts.append(
            ("judge card", "none of this evaluation: parrot judge-check tells whether the judge can be trusted")
        )
    return Report(
        title=f"Evaluation of {recipe.name}",
        facts=tuple(facts),
        warnings=(
            *([card.red_line] if card and card.red_line else []),
            *_warnings(recipe, judges),
            *_relatives(recipe),
        ),
        tables=tuple(tables),
    )


def _judge(names: Sequence[str], spec: Judge | None, judgments: Sequence[Judgment]) -> str:
    if spec is None or not names:
        return "none"
    return ", ".join(names) + VERDICT[spec.verdict] + _covered(judgments)


def _covered(judgments: Sequence[Judgment]) -> str:
    """How much of a server's probability the expected scores come from; empty where all could be read.

    >>> verdict = {"model": "m", "dialogue": "d", "category": "c", "turn": 1, "judge": "j", "score": 5.0}
    >>> _covered([Judgment(**verdict, covered=0.98), Judgment(**verdict, covered=0.92)])
    ' (from 95.0% of its probability, at least 92.0%)'
    """
    found = [one.covered for one in judgments if one.covered is not None]
    return f" (from {sum(found) / len(found):.1%} of its probability, at least {min(found):.1%})" if found else ""


def _left_out(recipe: Recipe) -> dict[str, int]:
    """What the probe left out, by reason."""
    manifest = json.loads((recipe.folder("eval") / "manifest.json").read_text(encoding="utf-8"))
    counts = manifest.get("counts", {})
    return {name.removeprefix(LEFT_OUT): count for name, count in counts.items() if name.startswith(LEFT_OUT)}


def _base(spec: ChatSpec, recipe: Recipe) -> str:
    match spec:
        case Server():
            return spec.model
        case Gguf() | Scripted():
            return Path(spec.path).name
        case Local():
            return Path(recipe.model.gguf_file or recipe.model.base).name


def _source(spec: ChatSpec, recipe: Recipe) -> str:
    adapter = f" + {spec.adapter}" if isinstance(spec, Local) and spec.adapter else ""
    return f"{_base(spec, recipe)}{adapter}"


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


def _relatives(recipe: Recipe) -> list[str]:
    """Warnings of a judge that is a relative of what it judges, or of who wrote what that was trained on."""
    if recipe.eval.judge is None:
        return []
    models = recipe.eval.models
    wrote: dict[str, ChatSpec] = {}
    if any(isinstance(spec, Local) and spec.adapter for spec in models.values()):
        if "collect" in (*recipe.sft.data, *recipe.negatives.data):
            wrote["collect.answerer"] = recipe.collect.answerer
        wrote["negatives.writer"] = recipe.negatives.writer
    return families.warnings(
        _base(recipe.eval.judge.chat, recipe),
        {name: _base(spec, recipe) for name, spec in models.items()},
        {place: _base(spec, recipe) for place, spec in wrote.items()},
    )


def _warnings(recipe: Recipe, judges: Sequence[str]) -> list[str]:
    sources = dict.fromkeys(_base(spec, recipe) for spec in recipe.eval.models.values())
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
