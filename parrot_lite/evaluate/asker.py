"""The asker's own report: how close Parrot-Ask comes to the people whose part it plays.

On held-out sessions: is the next user turn likelier under it than under the base, does it end turns where people do
(both after UserLM, arXiv 2510.06552)? And on what it collected: can its queries be told from real ones?
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from parrot_lite.chat import describe
from parrot_lite.errors import UserError
from parrot_lite.evaluate import classifier
from parrot_lite.evaluate.estimates import INTERVALS, written
from parrot_lite.evaluate.records import UserTurn
from parrot_lite.evaluate.report import SMALL, parameters, size
from parrot_lite.evaluate.statistics import Estimate, Parts, ratio
from parrot_lite.progress import say
from parrot_lite.recipe import Recipe
from parrot_lite.store import finished, read, require_unchanged, write_atomically
from parrot_lite.table import Report, Table
from parrot_lite.types import Dialogue, derive_seed

Cells = Mapping[str, Mapping[tuple[str, int], UserTurn]]  # model -> (session, turn) -> what it made of it
FEWEST = 5  # sessions below which a turn has no row of its own


def run(recipe: Recipe) -> None:
    """Print the report, and write it as ``asker.md`` and ``asker.json`` to ``<recipe>/asker-report/``.

    Reports what there is: likelihoods once ``train-ask`` is finished, the classifier once ``collect`` is. Raises
    UserError where neither is, or where a stage was made with another recipe.
    """
    there = [stage for stage in ("train-ask", "collect") if finished(recipe, stage)]
    if not there:
        raise UserError("neither train-ask nor collect is finished", recipe.name, "Run: parrot train-ask first")
    seed, resamples = derive_seed(recipe.run.seed, "bootstrap"), recipe.eval.resamples
    tables: list[Table] = []
    found: dict[str, object] = {}
    if "train-ask" in there:
        from parrot_lite.evaluate import user_turns  # torch takes seconds to import

        cells = by_model(user_turns.score(recipe))
        summary = {name: estimates(cells, measure) for name, measure in MEASURES.items()}
        turns = {turn: estimates(_at(cells, turn), nll) for turn in _turns(cells)}
        tables += [_likelihood(cells, summary["nll"], turns), _ends(cells, summary)]
        found.update(user_turns=summary, nll_by_turn=turns)
    else:
        say("asker-report: train-ask is not finished, so there are no likelihoods")
    if "collect" in there:
        told = tell(recipe, resamples, seed)
        tables.append(_told(told))
        found["classifier"] = {name: one._asdict() for name, one in told.items()}
    else:
        say("asker-report: collect is not finished, so there is nothing to tell from real queries")
    report = _report(recipe, tables)
    folder = recipe.folder("asker-report")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "asker.md", report.markdown())
    data = json.dumps({**dict(report.facts), **found}, indent=1, ensure_ascii=False, default=asdict)
    write_atomically(folder / "asker.json", data + "\n")
    report.show()


def _report(recipe: Recipe, tables: Sequence[Table]) -> Report:
    base = Path(recipe.model.gguf_file or recipe.model.base).name
    told = size(base)
    small = told is not None and parameters(told) < SMALL
    return Report(
        title=f"The asker of {recipe.name}",
        facts=(
            ("base", base),
            ("asker of the collected sessions", describe(recipe.collect.asker)),
            ("seed", str(recipe.run.seed)),
            ("intervals", INTERVALS),
        ),
        warnings=(f"a {told} asker proves the path, not the result",) if small else (),
        tables=tuple(tables),
    )


def by_model(turns: Iterable[UserTurn]) -> dict[str, dict[tuple[str, int], UserTurn]]:
    """Each model's turns by session and number."""
    cells: dict[str, dict[tuple[str, int], UserTurn]] = {}
    for one in turns:
        cells.setdefault(one.model, {})[one.dialogue, one.turn] = one
    return cells


Measure = Callable[[Sequence[UserTurn]], tuple[float, int]]  # a session's turns -> a sum, and how many it is over


def nll(turns: Sequence[UserTurn]) -> tuple[float, int]:
    """Nats per token over a session's turns: one value a session."""
    return sum(one.nll for one in turns) / sum(one.tokens for one in turns), 1


MEASURES: dict[str, Measure] = {
    "nll": nll,
    "ended": lambda turns: (sum(one.ended for one in turns), len(turns)),
    "end probability": lambda turns: (sum(math.exp(one.end) for one in turns), len(turns)),
    "false alarms": lambda turns: (sum(one.alarms for one in turns), sum(one.inside for one in turns)),
}
ROWS = ("base", "asker", "asker minus base")


def estimates(cells: Cells, measure: Measure) -> dict[str, Estimate | None]:
    """A measure for the base, the asker, and their difference, which is paired by session."""
    parts = {model: _parts(turns.values(), measure) for model, turns in cells.items()}
    base, asker = parts["base"], parts["asker"]
    apart = {session: (asker[session][0] - total, count) for session, (total, count) in base.items()}
    return {name: ratio(each) for name, each in zip(ROWS, (base, asker, apart), strict=True)}


def _parts(turns: Iterable[UserTurn], measure: Measure) -> Parts:
    by_session: dict[str, list[UserTurn]] = {}
    for one in turns:
        by_session.setdefault(one.dialogue, []).append(one)
    return {session: measure(own) for session, own in by_session.items()}


def _at(cells: Cells, turn: int) -> Cells:
    return {model: {key: one for key, one in own.items() if key[1] == turn} for model, own in cells.items()}


def _turns(cells: Cells) -> list[int]:
    sessions = Counter(turn for _, turn in cells["base"])
    return sorted(turn for turn, times in sessions.items() if times >= FEWEST)


def _likelihood(
    cells: Cells, found: Mapping[str, Estimate | None], turns: Mapping[int, Mapping[str, Estimate | None]]
) -> Table:
    rows = []
    for label, row in (*((str(turn), row) for turn, row in turns.items()), ("all", found)):
        base = row[ROWS[0]]
        numbers = (written(row[name], "+.3f" if name == ROWS[2] else ".3f") for name in ROWS)
        rows.append((label, str(base.sessions if base else 0), *numbers))
    return Table(
        "NLL of held-out user turns after the first",
        ("Turn", "Sessions", *(f"{name} [95%]" for name in ROWS)),
        tuple(rows),
        (
            f"{len(cells['base'])} turns that the asker did not train on. Nats per token of what the user said and of "
            "the end-of-turn mark, within a session, then the mean over sessions; lower is likelier.",
            f"Minus: paired by session. A turn has a row where {FEWEST} sessions or more have it.",
        ),
    )


def _ends(cells: Cells, found: Mapping[str, Mapping[str, Estimate | None]]) -> Table:
    forms = {"ended": ".1%", "end probability": ".3f", "false alarms": ".2%"}
    inside = sum(one.inside for one in cells["base"].values())
    return Table(
        "Where those turns end",
        ("Model", "Ends [95%]", "P(end) [95%]", "False alarms [95%]"),
        tuple(
            (name, *(written(found[key][name], f"+{form}" if name == ROWS[2] else form) for key, form in forms.items()))
            for name in ROWS
        ),
        (
            "Ends: turns at whose end the end-of-turn mark was the likeliest token. P(end): its probability there.",
            f"False alarms: of the {inside:,} tokens inside turns, those where the mark was the likeliest.",
        ),
    )


class Told(NamedTuple):
    """The classifier's area, and what it was trained and tried on; None where there was too little of it."""

    area: Estimate | None
    queries: int  # of either side
    words: tuple[float, float]  # a query, real and other


def tell(recipe: Recipe, resamples: int, seed: int) -> dict[str, Told]:
    """Real held-out queries against the collected ones and, as a control, against other real ones."""
    logs = require_unchanged(recipe, "logs")
    collected = require_unchanged(recipe, "collect") / "dialogues.jsonl"
    real = classifier.later_queries(read(logs / "heldout.jsonl", Dialogue))
    others = {"collected": collected, "other real ones (control)": logs / "train.jsonl"}
    found: dict[str, Told] = {}
    for name, file in others.items():
        one, other = classifier.matched(real, classifier.later_queries(read(file, Dialogue)), seed)
        area = classifier.auc(one, other, resamples, seed)
        found[name] = Told(area, len(one), (_words(one), _words(other)))
    return found


def _words(queries: Sequence[classifier.Query]) -> float:
    return sum(len(query.text.split()) for query in queries) / max(1, len(queries))


def _told(found: Mapping[str, Told]) -> Table:
    return Table(
        "Real or generated",
        ("Real queries against", "AUC [95%]", "Queries", "Words, real", "Words, other"),
        tuple(
            (name, written(one.area, ".3f"), f"2 x {one.queries}", *(f"{words:.1f}" for words in one.words))
            for name, one in found.items()
        ),
        (
            f"TF-IDF of words and pairs of words, logistic regression, {classifier.FOLDS}-fold cross-validation with "
            "whole sessions in a fold. 0.5: cannot be told apart; 1: always.",
            "Queries after the first, as many of each at every turn. The interval draws sessions and holds the trained "
            f"classifiers fixed; - where a side has fewer than {classifier.FOLDS} sessions.",
            "Other topics tell as well as other ways of asking: seeds from the logs (collect.seeds) keep topics alike.",
        ),
    )
