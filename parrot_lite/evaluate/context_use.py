"""Judge-free context use as tables: how much likelier an answer is under its own history than under another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from parrot_lite.evaluate.estimates import Numbers, baselines, contrast_table, written
from parrot_lite.evaluate.records import Condition, Likelihood
from parrot_lite.evaluate.statistics import Contrast, Values, corrected
from parrot_lite.table import Table

Cell = tuple[float, int]  # nats and tokens
Cells = Mapping[tuple[str, int], Mapping[Condition, Cell]]  # (session, turn) -> condition -> likelihood
Measure = Callable[[Cells], Values]


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


def tables(models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers, effect: float) -> list[Table]:
    """Context use at context-dependent turns and at others, with differences from the baselines."""
    notes = (
        "NLL: how unlikely the session's own answer is under its true history, nats per token; lower is likelier.",
        "PMI-swap: NLL under another session's history minus NLL under the true one; higher = leans on its history.",
        "PMI-none: NLL without history minus NLL under the true one.",
        "Per token within a session (sum of nats by sum of tokens), then the mean over sessions.",
    )
    found = []
    for where, dependent in (("context-dependent turns", True), ("other turns", False)):
        cells = _by_model(models, [one for one in likelihoods if (one.rule is not None) == dependent])
        found.append(_levels(f"Context use at {where}", cells, numbers, notes if dependent else ()))
        found += _differences(f"Context use at {where}: differences", cells, numbers, effect)
    return found


def _by_model(
    models: Sequence[str], likelihoods: Sequence[Likelihood]
) -> dict[str, dict[tuple[str, int], dict[Condition, Cell]]]:
    by_model: dict[str, dict[tuple[str, int], dict[Condition, Cell]]] = {model: {} for model in models}
    for one in likelihoods:
        by_model[one.model].setdefault((one.dialogue, one.turn), {})[one.condition] = (one.nll, one.tokens)
    return by_model


def _levels(title: str, by_model: Mapping[str, Cells], numbers: Numbers, notes: tuple[str, ...]) -> Table:
    rows = tuple(
        (model, _sessions_turns(own), *(written(numbers.mean(measure(own)), ".3f") for _, measure in MEASURES))
        for model, own in by_model.items()
    )
    return Table(title, ("Model", "Sessions,\nturns", *(f"{name} [95%]" for name, _ in MEASURES)), rows, notes)


def _differences(title: str, by_model: Mapping[str, Cells], numbers: Numbers, effect: float) -> list[Table]:
    measured = [model for model, cells in by_model.items() if cells]  # a server's likelihoods cannot be had
    made: dict[str, Contrast] = {}
    coverage: dict[str, str] = {}
    pairs = [(model, other) for model in measured for other in baselines(model, measured)]
    for name, measure in MEASURES:
        for model, other in pairs:
            mine = {key: cells for key, cells in by_model[model].items() if key in by_model[other]}
            base = {key: cells for key, cells in by_model[other].items() if key in by_model[model]}
            one = numbers.contrast(measure(mine), measure(base))
            if one is not None:
                label = f"{name}: {model} minus {other}"
                made[label], coverage[label] = one, _sessions_turns(mine)
    rows = {label: (one, coverage[label]) for label, one in corrected(made).items()}
    note = "Turns: sessions and turns that both models have."
    return [contrast_table(title, rows, "Nats a token", ".3f", effect, (note,))] if rows else []


def _sessions_turns(cells: Cells) -> str:
    return f"{len({session for session, _ in cells})}, {len(cells)}" if cells else "-"
