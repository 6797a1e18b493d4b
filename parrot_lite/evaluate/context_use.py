"""Judge-free context use: how much likelier an answer is under its own history than under spoiled ones.

Everything is in nats a token. Higher context use = the answer leans more on its history.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

from parrot_lite.evaluate.estimates import DETECTABLE, Numbers, against, baselines, written
from parrot_lite.evaluate.records import AnswerBy, Likelihood, Phenomenon
from parrot_lite.evaluate.statistics import Estimate, Values
from parrot_lite.table import Table
from parrot_lite.types import Condition

Cell = tuple[float, int]  # nats and tokens
Cells = Mapping[tuple[str, int], Mapping[Condition, Cell]]  # (session, turn) -> condition -> likelihood
Measure = Callable[[Cells], Values]

OF: dict[AnswerBy, str] = {
    "session": "the session's answers",
    "same-writer": "the same writer's answers",
    "played": "the played answers",
}
CELL = 28
ACROSS = 3  # such cells in a row


def cells(likelihoods: Sequence[Likelihood], model: str, keep: Callable[[Likelihood], bool]) -> Cells:
    """The likelihoods of one model that ``keep`` wants: of one kind of answer, or turns have several of them."""
    found: dict[tuple[str, int], dict[Condition, Cell]] = defaultdict(dict)
    for one in likelihoods:
        if one.model == model and keep(one):
            found[one.dialogue, one.turn][one.condition] = one.nll, one.tokens
    return dict(found)


def per_token(cells: Cells, condition: Condition) -> dict[str, dict[int, float]]:
    """NLL in nats a token under one condition: sum of nats by sum of tokens within a session, one value each.

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
    """NLL under history ``without`` minus NLL under the true one, nats a token, by session; turns that have both.

    The pointwise mutual information of an answer and what the history loses, estimated by the model itself.
    """
    both = {key: conditions for key, conditions in cells.items() if "true" in conditions and without in conditions}
    wrong, true = per_token(both, without), per_token(both, "true")
    return {session: {0: wrong[session][0] - true[session][0]} for session in true}


SPOILED: dict[str, Condition] = {
    "PMI-swap": "swapped",
    "PMI-last": "shortened",
    "PMI-scramble": "scrambled",
    "PMI-none": "withheld",
}
MEASURES: dict[str, Measure] = {
    "NLL": lambda cells: per_token(cells, "true"),
    "PMI-swap": lambda cells: pmi(cells, "swapped"),
    "PMI-last": lambda cells: pmi(cells, "shortened"),
    "PMI-scramble": lambda cells: pmi(cells, "scrambled"),
    "PMI-none": lambda cells: pmi(cells, "withheld"),
}
MEANING = {
    "PMI-swap": "NLL under another session's history minus NLL under the true one. Close to: does the topic match.",
    "PMI-last": "NLL under the history without its last exchange minus NLL under the whole one, from turn 3 on: the "
    "topic stays.",
    "PMI-scramble": "NLL under the history's exchanges in another order minus NLL under the true order, from turn 3 "
    "on.",
    "PMI-none": "NLL without a history minus NLL under the true one.",
}
BY_TURN = ("PMI-swap", "PMI-last")  # the primary measures


def later(answer: AnswerBy, dependent: bool | None = None) -> Callable[[Likelihood], bool]:
    """Wants one kind of answer at turns with a history, context-dependent or not; None = either."""
    return lambda one: one.answer == answer and one.turn > 1 and dependent in (None, one.dependent)


def first(one: Likelihood) -> bool:
    """Wants the sessions' first answers, which have no history."""
    return one.answer == "session" and one.turn == 1


def tables(
    models: Sequence[str],
    likelihoods: Sequence[Likelihood],
    numbers: Numbers,
    guard: float,
    left_out: Mapping[str, int],
) -> list[Table]:
    """Context use by kind of turn, by turn and by the benchmark's labels, and what it may have cost.

    ``left_out`` counts answers that were not scored, by reason.
    """
    found: list[Table] = []
    for answer, of in OF.items():
        own = [one for one in likelihoods if one.answer == answer]
        conditions = {one.condition for one in own}
        shown = [name for name, spoiled in SPOILED.items() if spoiled in conditions]
        found += [_by_dependence(name, answer, models, own, numbers) for name in shown]
        for name in BY_TURN:
            if name in shown:
                groups = _turns(own, SPOILED[name])
                found += _across(f"{name} of {of} by turn", "Turn", groups, name, models, own, numbers)
        if answer == "played":
            for name in shown:
                groups = _phenomena(own)
                found += _across(f"{name} of {of} by phenomenon", "Label", groups, name, models, own, numbers)
    if found:
        found[-1] = _noted(found[-1], _notes(left_out))
        found.append(_guards(models, likelihoods, numbers, guard))
    return found


def _notes(left_out: Mapping[str, int]) -> list[str]:
    notes = [
        "All in nats a token: within a session the sum of nats by the sum of tokens, then the mean over sessions.",
        "Context-dependent: by the benchmark's label, by rules at a held-out session's turns. Difference: over the "
        "sessions that have both kinds.",
        "Minus: over the turns that both models have, paired. " + DETECTABLE,
    ]
    if left_out:
        notes.append("Left out: " + ", ".join(f"{count} x {reason}" for reason, count in left_out.items()) + ".")
    return notes


def _noted(table: Table, notes: Sequence[str]) -> Table:
    return Table(table.title, table.head, table.rows, (*table.notes, *notes))


def _by_dependence(
    name: str, answer: AnswerBy, models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers
) -> Table:
    """Dependent turns, self-contained ones, and how much more the dependent ones use their history."""
    measure = MEASURES[name]
    wants = [later(answer, dependent) for dependent in (True, False)]
    own = {model: [_having(cells(likelihoods, model, want), SPOILED[name]) for want in wants] for model in models}
    measured = [model for model in models if any(own[model])]  # a server's likelihoods cannot be had
    rows: list[tuple[str, ...]] = []
    for model in models:
        dependent, other = (measure(part) for part in own[model])
        apart = numbers.difference(dependent, other)
        estimates = (numbers.mean(dependent), numbers.mean(other), apart)
        forms = (".3f", ".3f", "+.3f")
        rows.append((model, _turns_of(own[model]), *map(written, estimates, forms)))
        for base in baselines(model, measured):
            mine, theirs = zip(*(_both(*pair) for pair in zip(own[model], own[base], strict=True)), strict=True)
            values = [(measure(a), measure(b)) for a, b in zip(mine, theirs, strict=True)]
            more = (_less(*both) for both in zip(*values, strict=True))
            compared = [*(numbers.difference(a, b) for a, b in values), numbers.difference(*more)]
            rows.append((f"  minus {base}", _turns_of(mine), *(against(one, ".3f") for one in compared)))
    head = ("Model", "Turns", *(f"{kind} [95%]" for kind in ("Context-dependent", "Self-contained", "Difference")))
    note = f"{name}: {MEANING[name]} Turns: context-dependent + self-contained."
    return Table(f"{name} of {OF[answer]}", head, tuple(rows), (note,))


def _less(one: Values, other: Values) -> Values:
    """The one minus the other, where both have a value."""
    return {
        session: {turn: value - other[session][turn] for turn, value in turns.items() if turn in other[session]}
        for session, turns in one.items()
        if session in other
    }


def _having(cells: Cells, condition: Condition) -> Cells:
    """The turns that have this condition and the true one."""
    return {key: found for key, found in cells.items() if condition in found and "true" in found}


def _both(one: Cells, other: Cells) -> tuple[Cells, Cells]:
    """The turns that both have."""
    keys = one.keys() & other.keys()
    return {key: one[key] for key in one if key in keys}, {key: other[key] for key in other if key in keys}


def _turns_of(parts: Sequence[Cells]) -> str:
    return " + ".join(str(len(part)) for part in parts) if any(parts) else "-"


Groups = Mapping[str, Callable[[Likelihood], bool]]


def _turns(likelihoods: Sequence[Likelihood], condition: Condition) -> Groups:
    """Turns that were scored under a condition, each by itself."""

    def at(turn: int) -> Callable[[Likelihood], bool]:
        return lambda one: one.turn == turn

    return {str(turn): at(turn) for turn in sorted({one.turn for one in likelihoods if one.condition == condition})}


def _phenomena(likelihoods: Sequence[Likelihood]) -> Groups:
    """The benchmark's labels; a turn may have several."""

    def labelled(name: Phenomenon) -> Callable[[Likelihood], bool]:
        return lambda one: name in one.phenomena

    present = {name for one in likelihoods for name in one.phenomena}
    return {name: labelled(name) for name in get_args(Phenomenon) if name in present}


def _across(
    title: str,
    corner: str,
    groups: Groups,
    name: str,
    models: Sequence[str],
    likelihoods: Sequence[Likelihood],
    numbers: Numbers,
) -> list[Table]:
    """Groups of turns down, models across: as many models a table as fit in its width."""

    def cell(model: str, wants: Callable[[Likelihood], bool]) -> str:
        found = _having(cells(likelihoods, model, wants), SPOILED[name])
        return f"{written(numbers.mean(MEASURES[name](found)), '.3f')} {len(found)}"

    blocks = [models[start : start + ACROSS] for start in range(0, len(models), ACROSS)]
    tables = []
    for number, block in enumerate(blocks, 1):
        rows = [(label, *(cell(model, wants) for model in block)) for label, wants in groups.items()]
        head = (corner, *("\n".join(textwrap.wrap(model, CELL)) for model in block))
        part = f", part {number} of {len(blocks)}" if len(blocks) > 1 else ""
        notes = ("Mean, its 95% interval over sessions, and turns.",) if number == len(blocks) else ()
        tables.append(Table(title + part, head, tuple(rows), notes))
    return tables


GUARDS: dict[str, Callable[[Likelihood], bool]] = {
    "Session's answers": later("session"),
    "First answers": first,
    "Same writer's answers": later("same-writer"),
}


def _guards(models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers, guard: float) -> Table:
    """What answers cost under the true history, and the first ones, which have none."""
    shown = {name: wants for name, wants in GUARDS.items() if any(map(wants, likelihoods))}
    own = {model: [cells(likelihoods, model, wants) for wants in shown.values()] for model in models}
    measured = [model for model in models if any(own[model])]
    nll = MEASURES["NLL"]
    rows: list[tuple[str, ...]] = []
    for model in models:
        rows.append((model, *(written(numbers.mean(nll(part)), ".3f") for part in own[model])))
        for base in baselines(model, measured):
            pairs = [_both(*pair) for pair in zip(own[model], own[base], strict=True)]
            compared = [numbers.difference(nll(mine), nll(theirs)) for mine, theirs in pairs]
            rows.append((f"  minus {base}", *(against(one, ".3f") + _guarded(one, guard) for one in compared)))
    notes = (
        "NLL in nats a token; lower is likelier. First answers: turn 1, which has no history: what a model lost there, "
        "context use did not need. Session's and same writer's answers: under the true history.",
        f"A rise of more than eval.probe.guard = {guard:g} is 'above' it, and 'not below' where only its interval is.",
    )
    return Table("NLL under the true history", ("Model", *(f"{name} [95%]" for name in shown)), tuple(rows), notes)


def _guarded(difference: Estimate | None, guard: float) -> str:
    if difference is None:
        return ""
    if difference.mean > guard:
        return f"\nabove {guard:+g}"
    below = difference.high is not None and difference.high <= guard
    return f"\n{'below' if below else 'not below'} {guard:+g}"
