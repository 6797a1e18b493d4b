"""Repetition within an answer, counted by hand."""

from __future__ import annotations

import doctest

import pytest

from parrot_lite.evaluate import repetition
from parrot_lite.evaluate.estimates import Numbers
from parrot_lite.evaluate.records import Played
from parrot_lite.evaluate.repetition import loops, repeated, table
from parrot_lite.types import Dialogue


def test_doctests() -> None:
    assert doctest.testmod(repetition).failed == 0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("one two three", None),
        ("one two three four", 0.0),
        ("a a a a a a a", 0.75),  # four runs, one kind
        ("a b a b a b a b", 0.6),  # five runs, two kinds
        ("a b c d, a b c d", 0.0),  # a comma makes another word
    ],
)
def test_repeated(text: str, share: float | None) -> None:
    assert repeated(text) == (None if share is None else pytest.approx(share))


PROSE = "The oven was cold and nobody had told the baker why his dough would not rise that day"


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("", False),
        (PROSE, False),
        (f"{PROSE} " * 3, False),
        (f"{PROSE} " * 4, True),
        ("no " * 11, False),
        ("no " * 12, True),
        ("very, very, " * 6, True),
        (f"{PROSE} {'I am sorry. ' * 4}", True),
        (f"{PROSE} {'I am sorry. ' * 4}I am", True),  # cut off in the middle of a round
        (f"{'I am sorry. ' * 9}{PROSE}", False),  # it got out
        ("a b c d e f " * 3, False),
        (" ".join(f"line {number} of it," for number in range(40)), False),
        (" ".join(map(str, range(33))) + " " + " ".join(map(str, range(33))) * 1, False),
    ],
)
def test_loops(text: str, loop: bool) -> None:
    assert loops(text) == loop


def test_the_table_counts_by_answer() -> None:
    def played(model: str, id: str, *answers: str) -> Played:
        dialogue = Dialogue(id=id, source="bench")
        for answer in answers:
            dialogue = dialogue.say("q").say(answer)
        return Played(model=model, category="c", dialogue=dialogue)

    rows = table(
        ["m", "n", "none"],
        [played("m", "1", PROSE, "no " * 12), played("m", "2", "Yes.", PROSE), played("n", "1", PROSE)],
        Numbers(200, 0),
    ).rows
    # Of m's answers three are long enough for a share: 0, 8 of 9, 0; one of four loops.
    assert rows[0][:2] == ("m", "4")
    assert rows[0][2].startswith("29.6% [")
    assert rows[0][3] == "25.0% [0.0%, 100.0%]"
    assert rows[1] == ("n", "1", "0.0% [-, -]", "0.0% [-, -]")
    assert rows[2] == ("none", "0", "-", "-")
