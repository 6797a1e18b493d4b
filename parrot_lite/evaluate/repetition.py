"""How much an answer repeats itself: training on a loss over negatives can drive a model into loops."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_lite.evaluate.estimates import Numbers, share
from parrot_lite.evaluate.records import Played
from parrot_lite.table import Table
from parrot_lite.words import runs

GRAM = 4  # words; what is shorter recurs in good prose
PERIODS = range(1, 33)  # words that a loop may go round in
TIMES = 4  # that it must have gone round
LEAST = 12  # words that it must take up; "no no no no" is emphasis


def repeated(text: str) -> float | None:
    """The share of runs of four words that the text has had before (1 - distinct-4); None where it has no such run.

    Words are parted by white space, as they stand: a table's or a program's punctuation tells its lines apart.

    >>> repeated("a a a a a"), repeated("too short")
    (0.5, None)
    """
    grams = list(runs(text.split(), GRAM))
    return 1 - len(set(grams)) / len(grams) if grams else None


def loops(text: str) -> bool:
    """Whether the text ends in at least four rounds of the same words, of 32 at most, the last one perhaps cut off.

    >>> loops("So " + "I am sorry. " * 4), loops("I am sorry. I am sorry.")
    (True, False)
    """
    said = text.split()
    for period in PERIODS:
        least = max(TIMES * period, LEAST)
        if len(said) >= least and said[-least:-period] == said[period - least :]:
            return True
    return False


def table(players: Sequence[str], played: Sequence[Played], numbers: Numbers) -> Table:
    """One row a player: the mean share of repeated runs in an answer, and the share of answers that end in a loop."""
    rows = []
    for player in players:
        mine = {one.dialogue.id: dict(enumerate(one.dialogue.answers, 1)) for one in played if one.model == player}
        shares = {
            session: {turn: part for turn, text in answers.items() if (part := repeated(text)) is not None}
            for session, answers in mine.items()
        }
        ends = {
            session: {turn: float(loops(text)) for turn, text in answers.items()} for session, answers in mine.items()
        }
        count = sum(map(len, mine.values()))
        cells = share(numbers.mean(shares), ".1%"), share(numbers.mean(ends), ".1%")
        rows.append((player, str(count), *cells))
    return Table(
        "Repetition in answers",
        ("Model", "Answers", "Repeated 4-grams [95%]", "Ends in a loop [95%]"),
        tuple(rows),
        (
            "Repeated 4-grams: of an answer's runs of four words, the share that it has had before; tables and code "
            "repeat some. Ends in a loop: its last words are four rounds or more of the same up to 32 words.",
        ),
    )
