"""Words by which texts are compared."""

from __future__ import annotations

import doctest

from parrot_lite import words


def test_doctests() -> None:
    assert doctest.testmod(words).failed == 0


def test_runs_of_a_short_text() -> None:
    assert list(words.runs(("a", "b"), 3)) == []
    assert list(words.runs(("a", "b"), 1)) == [("a",), ("b",)]
