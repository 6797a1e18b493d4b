"""Did the answer name what its query only points to? Measured on the answers themselves, without a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parrot_lite.evaluate.estimates import Numbers, contrast_table, pairs, share
from parrot_lite.evaluate.records import Label, Played, Question, player
from parrot_lite.evaluate.spellings import named
from parrot_lite.evaluate.statistics import corrected
from parrot_lite.recipe import History
from parrot_lite.table import Table

NEAR, FAR = 2, 4  # turns back, at most and at least
EFFECT = 10.0  # percentage points that a next evaluation might want to show
NOTES = (
    "Of the turns whose label has an entity, the share whose answer has one of its spellings: a thing that an earlier "
    "query names, this one only points to, and a right answer must name. Near: it was said one or two turns before; "
    "far: four or more. Turns without an answer are left out.",
    "It shows that the reference was resolved, not that the answer is right. A model can name a thing by chance, or "
    "because its earlier answers keep repeating it: compare with the history hidden, where only chance is left.",
)

Named = dict[str, dict[int, float]]  # session -> turn -> 1.0 where the entity is named, else 0.0


def resolved(played: Sequence[Played], questions: Sequence[Question], keep: Callable[[int], bool]) -> Named:
    """Whether each answer to a query with an entity names it, where ``keep`` takes how many turns back it leans."""
    labels = {question.id: question.labels for question in questions}
    found: Named = {}
    for one in played:
        pairs = zip(one.dialogue.answers, labels.get(one.dialogue.id, ()), strict=False)
        turns = {
            turn: float(named(answer, label.entity))
            for turn, (answer, label) in enumerate(pairs, 1)
            if label is not None and label.entity and keep(_back(label, turn))
        }
        if turns:
            found[one.dialogue.id] = turns
    return found


def _back(label: Label, turn: int) -> int:
    return turn - (label.leans_on or turn)


DISTANCES: tuple[tuple[str, Callable[[int], bool]], ...] = (
    ("Named [95%]", lambda back: True),
    (f"Near (1-{NEAR})", lambda back: back <= NEAR),
    (f"Far ({FAR}+)", lambda back: back >= FAR),
)


def tables(
    models: Sequence[str],
    histories: Sequence[History],
    played: Sequence[Played],
    questions: Sequence[Question],
    numbers: Numbers,
) -> list[Table]:
    """One row a player, and one a difference between players; none where no query has an entity."""
    if not any(label is not None and label.entity for question in questions for label in question.labels):
        return []
    by_player: dict[str, list[Played]] = {}
    for one in played:
        by_player.setdefault(one.model, []).append(one)
    names = [name for history in histories for model in models if (name := player(model, history)) in by_player]
    rows = [_row(name, by_player[name], questions, numbers) for name in names]
    head = ("Model", "Named/turns", *(name for name, _ in DISTANCES))
    shares = Table("Entity named where it had to be resolved", head, tuple(rows), NOTES)

    found = {name: _percent(resolved(by_player[name], questions, lambda back: True)) for name in names}
    made = {(one, other): numbers.contrast(found[one], found[other]) for one, other in pairs(models, histories, names)}
    tested = corrected({pair: contrast for pair, contrast in made.items() if contrast is not None})
    differences = {
        f"{one} minus {other}": (contrast, str(contrast.difference.values)) for (one, other), contrast in tested.items()
    }
    if not differences:
        return [shares]
    return [shares, contrast_table("Entity named: differences", differences, "% points", ".0f", EFFECT)]


def _percent(found: Named) -> Named:
    return {session: {turn: 100 * value for turn, value in turns.items()} for session, turns in found.items()}


def _row(name: str, played: Sequence[Played], questions: Sequence[Question], numbers: Numbers) -> tuple[str, ...]:
    found = [resolved(played, questions, keep) for _, keep in DISTANCES]
    values = [value for turns in found[0].values() for value in turns.values()]
    cells = (share(numbers.mean(one)) for one in found)
    return name, f"{sum(values):.0f}/{len(values)}", *cells
