"""Whether an answer names what its query points to: matching by hand, and the table's shares."""

from __future__ import annotations

import pytest

from parrot_lite.evaluate.entities import resolved, tables
from parrot_lite.evaluate.estimates import Numbers
from parrot_lite.evaluate.records import Label, Played, Question, player
from parrot_lite.evaluate.spellings import named
from parrot_lite.recipe import History
from parrot_lite.types import Dialogue

NUMBERS = Numbers(200, 0)


@pytest.mark.parametrize(
    ("text", "spelling", "found"),
    [
        ("Dear ODILE,", "Odile", True),
        ("_Odile_ bakes", "Odile", True),  # Markdown's emphasis is no letter
        ("Odile's tart", "Odile", True),
        ("Odiles", "Odile", False),
        ("O’Brien’s", "O'Brien", True),
        ("the customs\n  house", "customs house", True),
        ("custom house", "customs house", False),
        ("Señor Peña", "Peña", True),
        ("Sen\u0303or Pen\u0303a", "Peña", True),  # composed otherwise
        ("It is 1,200.", "1200", True),
        ("It is 1200.", "1,200", True),
        ("It is 1\u202f200 EUR", "1200", True),
        ("It is 11,200.", "1200", False),
        ("It is 1,2000", "1200", False),
        ("690.2 euros", "690.20", True),
        ("690.25 euros", "690.2", False),
        ("5 euros", "5.00", True),
        ("version 5.0.1", "5", False),
        ("12.5 m", "12", False),
        ("3.12", "12", False),
        ("12, then 13", "12", True),
        ("at 14:30.", "14:30", True),
        ("28kg", "28 kg", True),
        ("28 kg", "28 kg", True),
        ("128 kg", "28 kg", False),
        ("parcel 88–K", "88-K", True),
        ("C++ it is", "C++", True),
        ("", "x", False),
    ],
)
def test_named(text: str, spelling: str, found: bool) -> None:
    assert named(text, [spelling]) == found
    assert named(text, ["zebra", spelling]) == found


def _labels(*leans: int | None) -> tuple[Label, ...]:
    return tuple(
        Label(kinds=("self-contained",)) if on is None else Label(kinds=("anaphora",), leans_on=on, entity=("Odile",))
        for on in leans
    )


QUESTIONS = [
    Question(id=id, category="c", queries=("q",) * 6, references=(None,) * 6, labels=_labels(None, 1, None, 1, 1, 4))
    for id in ("1", "2")
]  # entities at turns 2 (1 back), 4 (3 back), 5 (4 back) and 6 (2 back)


def _played(id: str, answers: str, model: str = "m", history: History = "own") -> Played:
    """One answer a letter: o names her, x does not."""
    dialogue = Dialogue(id=id, source="bench")
    for letter in answers:
        dialogue = dialogue.say("q").say("Ask Odile." if letter == "o" else "Ask her.")
    fed = ("r",) * 5 if history == "reference" else ()
    return Played(model=player(model, history), category="c", dialogue=dialogue, history=history, fed=fed)


def test_turns_with_an_entity_and_an_answer_count() -> None:
    played = [_played("1", "oxoxox"), _played("2", "xoxo"), _played("3", "oooooo")]  # the third has no question
    assert resolved(played, QUESTIONS, lambda back: True) == {
        "1": {2: 0.0, 4: 0.0, 5: 1.0, 6: 0.0},
        "2": {2: 1.0, 4: 1.0},
    }
    assert resolved(played, QUESTIONS, lambda back: back >= 4) == {"1": {5: 1.0}}


def test_the_table_sets_the_own_history_against_the_others() -> None:
    played = [
        _played("1", "xoxoxo"),
        _played("2", "xxxxox"),
        _played("1", "xoxxxx", history="hidden"),
        _played("2", "xxxxxx", history="hidden"),
        _played("1", "xoxoxo", history="reference"),
        _played("1", "xxxxxx", "other"),
    ]
    table, differences = tables(["m", "other", "unplayed"], ["own", "reference", "hidden"], played, QUESTIONS, NUMBERS)
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["m", "other", "m (reference history)", "m (history hidden)"]
    counts_and_means = {name: [cell.split()[0] for cell in cells] for name, cells in rows.items()}
    assert counts_and_means == {  # all, near (turns 2 and 6), far (turn 5)
        "m": ["4/8", "50%", "50%", "50%"],
        "other": ["0/4", "0%", "0%", "0%"],
        "m (reference history)": ["3/4", "75%", "100%", "0%"],
        "m (history hidden)": ["1/8", "12%", "25%", "0%"],
    }
    assert {row[0]: row[1].split()[0] for row in differences.rows} == {
        "other minus m": "-75",  # in session 1, which both played
        "m minus m (reference history)": "+0",
        "m minus m (history hidden)": "+38",
    }


def test_no_differences_where_one_player_is_alone() -> None:
    (table,) = tables(["m"], ["own"], [_played("1", "oooo")], QUESTIONS, NUMBERS)
    assert [row[:2] for row in table.rows] == [("m", "2/2")]


def test_no_table_where_no_query_has_an_entity() -> None:
    bare = [question.model_copy(update={"labels": ()}) for question in QUESTIONS]
    assert tables(["m"], ["own"], [_played("1", "xo")], bare, NUMBERS) == []
