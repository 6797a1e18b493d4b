"""Words by which texts are compared."""

from __future__ import annotations

import doctest

import pytest

from parrot_lite import words


def test_doctests() -> None:
    assert doctest.testmod(words).failed == 0


def test_runs_of_a_short_text() -> None:
    assert list(words.runs(("a", "b"), 3)) == []
    assert list(words.runs(("a", "b"), 1)) == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("cut", "left"),
    [
        ("It rains. It snows.", "It rains. It snows."),
        ('He said "no." Then she', 'He said "no."'),
        ("One:\n1. Bread.\n2. Milk.\n3.", "One:\n1. Bread.\n2. Milk."),
        ("Things:\n\n- bread\n- mi", "Things:\n\n- bread"),
        ("Things:\n\n- bread\n- ", "Things:\n\n- bread"),
        ("It costs 3.50 or", ""),  # no end of a sentence
        ("1.", ""),
        ("no end in sight", ""),
        ("", ""),
    ],
)
def test_a_cut_text_ends_with_its_last_whole_sentence_or_line(cut: str, left: str) -> None:
    assert words.whole(cut) == left
