"""Judge-free context use: how much likelier an answer is under its own history than under spoiled ones.

Everything is in nats a token. Higher context use = the answer leans more on its history.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import NamedTuple, get_args

from parrot_lite.evaluate.estimates import Numbers, across, baselines, contrast_table, share, written
from parrot_lite.evaluate.records import AnswerBy, Choice, Likelihood, Phenomenon
from parrot_lite.evaluate.statistics import Contrast, Values, corrected, paired
from parrot_lite.recipe import Probe
from parrot_lite.table import Table
from parrot_lite.types import Condition, Kind

Cell = tuple[float, int]  # nats and tokens
Cells = Mapping[tuple[str, int], Mapping[Condition, Cell]]  # (session, turn) -> condition -> likelihood
Measure = Callable[[Cells], Values]
Wants = Callable[[Likelihood], bool]


class Pair(NamedTuple):
    """Two models compared by a measure at one kind of turn."""

    measure: str
    kind: str  # dependent, self-contained or apart
    model: str
    base: str


UNIT = "Nats a token"
OF: dict[AnswerBy, str] = {
    "session": "of the session's answers",
    "same-writer": "of the same writer's answers",
    "played": "of the played answers",
}


def cells(likelihoods: Iterable[Likelihood], model: str, wants: Wants) -> Cells:
    """The likelihoods of one model, of one kind of answer: a turn of a session may have several."""
    found: dict[tuple[str, int], dict[Condition, Cell]] = defaultdict(dict)
    for one in likelihoods:
        if one.model == model and wants(one):
            found[one.dialogue, one.turn][one.condition] = one.nll, one.tokens
    return dict(found)


def later(answer: AnswerBy, dependent: bool | None = None) -> Wants:
    """Wants one kind of answer at turns with a history, context-dependent or self-contained ones; None = both."""
    return lambda one: one.answer == answer and one.turn > 1 and dependent in (None, one.dependent)


def first(one: Likelihood) -> bool:
    """Wants the sessions' first answers, which have no history."""
    return one.answer == "session" and one.turn == 1


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

    The pointwise mutual information of an answer and what the history loses, as the model itself estimates it.
    """
    both = having(cells, without)
    wrong, true = per_token(both, without), per_token(both, "true")
    return {session: {0: wrong[session][0] - true[session][0]} for session in true}


def having(cells: Cells, condition: Condition) -> Cells:
    """The turns that have this condition and the true one."""
    return {key: found for key, found in cells.items() if condition in found and "true" in found}


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
PRIMARY = ("PMI-swap", "PMI-last")
MEANING = (
    "PMI: NLL under a spoiled history minus NLL under the true one, nats a token, within a session the sum of nats by "
    "the sum of tokens; then the mean over sessions. Spoiled by swap: another session's history, close to whether the "
    "topic matches; last: without the last exchange, the topic stays; scramble: the exchanges in another order; none: "
    "no history. Last and scramble from turn 3 on, where they are no other one.",
    "Context-dependent: by the benchmark's label of a played turn, by rules else. Apart: by how much context-dependent "
    "turns exceed self-contained ones, over sessions that have both. Turns: of each.",
)


def tables(
    models: Sequence[str],
    likelihoods: Sequence[Likelihood],
    numbers: Numbers,
    settings: Probe,
    left_out: Mapping[str, int],
) -> list[Table]:
    """Context use by kind of turn, by turn and by the benchmark's labels, and what it may have cost.

    ``left_out`` counts what was not scored, by reason.
    """
    found: list[Table] = []
    for answer in OF:
        own = [one for one in likelihoods if one.answer == answer and one.turn > 1]
        if own:
            found += _context_use(answer, models, own, numbers, settings.effect)
    if found:
        missing = [f"Left out: {', '.join(f'{count} x {why}' for why, count in left_out.items())}."] if left_out else []
        whole = found[0]
        found[0] = replace(whole, notes=(*whole.notes, *MEANING, *missing))
    if likelihoods:
        found += _costs(models, likelihoods, numbers, settings)
    return found


def _context_use(
    answer: AnswerBy, models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers, effect: float
) -> list[Table]:
    conditions = {one.condition for one in likelihoods}
    shown = [name for name, spoiled in SPOILED.items() if spoiled in conditions]
    if not shown:  # the true history alone: the costs are all there is
        return []
    of = OF[answer]
    found = [_levels(f"Context use {of}", shown, models, likelihoods, numbers)]
    primary = _primary(conditions)
    others = [(name, "dependent") for name in shown if name not in PRIMARY]
    others += [(name, kind) for name in shown if name in PRIMARY for kind in ("self-contained", "apart")]
    title = f"Context use {of}, context-dependent turns: differences"
    found += [replace(table, main=True) for table in _differences(title, primary, models, likelihoods, numbers, effect)]
    if answer == "session":
        found += _differences(f"Context use {of}: other differences", others, models, likelihoods, numbers, effect)
    for name in (one for one in PRIMARY if one in shown):
        turns = _turns(likelihoods, SPOILED[name])
        found += _across(f"{name} {of} by turn", "Turn", turns, name, models, likelihoods, numbers)
        if labelled := _phenomena(likelihoods):
            found += _across(f"{name} {of} by phenomenon", "Label", labelled, name, models, likelihoods, numbers)
    return found


def primary(
    answer: AnswerBy, models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers
) -> dict[Pair, Contrast]:
    """The contrasts of the primary measures at context-dependent turns, corrected as one family."""
    own = [one for one in likelihoods if one.answer == answer and one.turn > 1]
    shown = _primary({one.condition for one in own})
    return {pair: one for pair, (one, _) in _compared(shown, models, own, numbers).items()}


def _primary(conditions: Set[Condition]) -> list[tuple[str, str]]:
    return [(name, "dependent") for name in PRIMARY if SPOILED[name] in conditions]


def _levels(
    title: str, shown: Sequence[str], models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers
) -> Table:
    """Each measure of each model at context-dependent turns, at self-contained ones, and how far they are apart."""
    rows: list[tuple[str, ...]] = []
    for name in shown:
        for model in models:
            parts = [having(cells(likelihoods, model, one), SPOILED[name]) for one in _kinds()]
            dependent, other = (MEASURES[name](part) for part in parts)
            estimates = (numbers.mean(dependent), numbers.mean(other), numbers.difference(dependent, other))
            written_ones = (written(one, form) for one, form in zip(estimates, (".3f", ".3f", "+.3f"), strict=True))
            turns = " + ".join(str(len(part)) for part in parts) if any(parts) else "-"
            rows.append((f"{name}: {model}", *written_ones, turns))
    head = ("Measure: model", "Context-dependent [95%]", "Self-contained [95%]", "Apart [95%]", "Turns")
    return Table(title, head, tuple(rows), main=True)


def _kinds() -> tuple[Wants, Wants]:
    """Context-dependent turns, and self-contained ones."""
    return (lambda one: one.dependent), (lambda one: not one.dependent)


def _differences(
    title: str,
    shown: Sequence[tuple[str, str]],
    models: Sequence[str],
    likelihoods: Sequence[Likelihood],
    numbers: Numbers,
    effect: float,
) -> list[Table]:
    """One family of contrasts as a table."""
    made = _compared(shown, models, likelihoods, numbers)
    rows = {
        f"{pair.measure}{'' if pair.kind == 'dependent' else f', {pair.kind}'}: {pair.model} minus {pair.base}": one
        for pair, one in made.items()
    }
    return [contrast_table(title, rows, UNIT, ".3f", effect)] if rows else []


def _compared(
    shown: Sequence[tuple[str, str]], models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers
) -> dict[Pair, tuple[Contrast, str]]:
    """One family of contrasts: measures at context-dependent or self-contained turns, or how far these are apart.

    Each with its turns in words.
    """
    measured = [model for model in models if any(one.model == model for one in likelihoods)]
    made: dict[Pair, Contrast] = {}
    coverage: dict[Pair, str] = {}
    for name, kind in shown:
        for model in measured:
            for base in baselines(model, measured):
                # Turn by turn the same for both models.
                shared = [_shared(likelihoods, model, base, wants, SPOILED[name]) for wants in _kinds()]
                values = [[MEASURES[name](one) for one in both] for both in shared]
                used = {"dependent": shared[:1], "self-contained": shared[1:]}.get(kind, shared)
                if kind == "apart":
                    (mine, theirs), (mine_alone, theirs_alone) = values
                    contrast = numbers.contrast(paired(mine, mine_alone), paired(theirs, theirs_alone))
                else:
                    contrast = numbers.contrast(*values[kind == "self-contained"])
                if contrast is not None:
                    pair = Pair(name, kind, model, base)
                    made[pair] = contrast
                    coverage[pair] = " + ".join(str(len(mine)) for mine, _ in used)
    return {pair: (one, coverage[pair]) for pair, one in corrected(made).items()}


def _shared(
    likelihoods: Sequence[Likelihood], model: str, base: str, wants: Wants, condition: Condition
) -> tuple[Cells, Cells]:
    """The turns that both models have under the condition and the true one."""
    mine, theirs = (having(cells(likelihoods, name, wants), condition) for name in (model, base))
    return {key: mine[key] for key in mine if key in theirs}, {key: theirs[key] for key in mine if key in theirs}


def _turns(likelihoods: Sequence[Likelihood], condition: Condition) -> dict[str, Wants]:
    """The turns that were scored under a condition, each by itself."""

    def at(turn: int) -> Wants:
        return lambda one: one.turn == turn

    return {str(turn): at(turn) for turn in sorted({one.turn for one in likelihoods if one.condition == condition})}


def _phenomena(likelihoods: Sequence[Likelihood]) -> dict[str, Wants]:
    """The benchmark's labels; a turn may have several."""

    def labelled(name: Phenomenon) -> Wants:
        return lambda one: name in one.phenomena

    present = {name for one in likelihoods for name in one.phenomena}
    return {name: labelled(name) for name in get_args(Phenomenon) if name in present}


def _across(
    title: str,
    what: str,
    groups: Mapping[str, Wants],
    name: str,
    models: Sequence[str],
    likelihoods: Sequence[Likelihood],
    numbers: Numbers,
) -> list[Table]:
    """Groups of turns down, models across."""

    def cell(label: str, model: str) -> str:
        found = having(cells(likelihoods, model, groups[label]), SPOILED[name])
        return f"{written(numbers.mean(MEASURES[name](found)), '.3f')} {len(found)}"

    return across(title, what, models, list(groups), cell, (f"{UNIT}, its 95% interval over sessions, and turns.",))


def choice_tables(models: Sequence[str], choices: Sequence[Choice], numbers: Numbers) -> list[Table]:
    """The share of negatives that are less likely, a token, than the chosen answer; no table without any."""
    kinds = [kind for kind in get_args(Kind) if any(one.kind == kind for one in choices)]
    rows: dict[str, list[Choice]] = {kind: [one for one in choices if one.kind == kind] for kind in kinds}
    measured = [model for model in models if any(one.model == model for one in choices)]

    def cell(kind: str, model: str) -> str:
        values = chosen_likelier([one for one in rows[kind] if one.model == model])
        return f"{share(numbers.mean(values))} {sum(map(len, values.values()))}"

    note = (
        "Share of negatives less likely, by log-prob a token, than the chosen answer, and turns. A diagnostic, no "
        "result: it also rises in models that never saw a negative from a spoiled context, for it tells authors apart."
    )
    return across("Forced choice, chosen answer or negative", "Negative", measured, kinds, cell, (note,))


def chosen_likelier(choices: Sequence[Choice]) -> dict[str, dict[int, float]]:
    """The share of a turn's negatives that are less likely than its chosen answer, of one model and kind."""
    found: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for one in choices:
        found[one.dialogue][one.turn].append(one.chosen > one.negative)
    return {session: {turn: sum(won) / len(won) for turn, won in turns.items()} for session, turns in found.items()}


COSTS: dict[str, Wants] = {
    "Session's answers": later("session"),
    "First answers": first,
    "Same writer's answers": later("same-writer"),
}


def _costs(models: Sequence[str], likelihoods: Sequence[Likelihood], numbers: Numbers, settings: Probe) -> list[Table]:
    """What answers cost under the true history, and the first ones, which have none: levels, then differences."""
    shown = {name: wants for name, wants in COSTS.items() if any(map(wants, likelihoods))}
    nll = MEASURES["NLL"]
    own = {model: {name: cells(likelihoods, model, wants) for name, wants in shown.items()} for model in models}
    rows = tuple(
        (model, *(written(numbers.mean(nll(part)), ".3f") for part in own[model].values())) for model in models
    )
    note = (
        "NLL in nats a token, lower is likelier; session's and same writer's answers from turn 2 on. First answers, at "
        "turn 1, have no history: what a model loses there it paid with single-turn quality."
    )
    found = [Table("NLL under the true history", ("Model", *(f"{name} [95%]" for name in shown)), rows, (note,))]
    measured = [model for model in models if any(own[model].values())]
    made: dict[str, Contrast] = {}
    coverage: dict[str, str] = {}
    for name, wants in shown.items():
        for model in measured:
            for base in baselines(model, measured):
                mine, theirs = _shared(likelihoods, model, base, wants, "true")
                contrast = numbers.contrast(nll(mine), nll(theirs))
                if contrast is not None:
                    label = f"{name}: {model} minus {base}"
                    made[label], coverage[label] = contrast, str(len(mine))
    contrasts = corrected(made)
    if contrasts:
        table = {label: (one, coverage[label]) for label, one in contrasts.items()}
        title = "NLL under the true history: differences"
        notes = _guarded(contrasts, settings.guard)
        found.append(contrast_table(title, table, UNIT, ".3f", settings.effect, notes))
    return found


def _guarded(contrasts: Mapping[str, Contrast], guard: float) -> tuple[str, ...]:
    """Which models lost more than they may, and of which it cannot be said."""
    above = [label for label, one in contrasts.items() if one.difference.mean > guard]
    unclear = [
        label
        for label, one in contrasts.items()
        if label not in above and (one.difference.high is None or one.difference.high > guard)
    ]
    notes = (
        [f"{len(above)} of {len(contrasts)} are above the guard of {guard:+g}: {'; '.join(above)}."] if above else []
    )
    if unclear:
        notes.append(f"Below the guard of {guard:+g}, but not their intervals: {'; '.join(unclear)}.")
    return tuple(notes) or (f"All are below the guard of {guard:+g}, and so are their intervals.",)
