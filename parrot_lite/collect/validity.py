"""Whether a text may stand as a negative beside its chosen answer: pure rules, by the thresholds of [negatives]."""

from __future__ import annotations

from parrot_lite.collect import filters
from parrot_lite.recipe import Negatives

EQUAL = "equals the chosen answer"
REFUSAL = "refusal"
SHORT = "too short beside the chosen answer"
LONG = "too long beside the chosen answer"
CLOSE = "too close to the chosen answer"
NOT_WORSE = "not worse than the chosen answer"
OBJECTIONS = frozenset({EQUAL, REFUSAL, SHORT, LONG, CLOSE, NOT_WORSE})  # those to a text that was there to be checked


def words(text: str) -> int:
    """How many words, parted by white space."""
    return len(text.split())


def objection(text: str, chosen: str, settings: Negatives) -> str | None:
    """Why ``text`` is no negative for ``chosen``; None where it is one."""
    if text == chosen:
        return EQUAL
    if filters.refusal(text):
        return REFUSAL
    ratio = words(text) / words(chosen)
    if ratio < settings.min_length_ratio:
        return SHORT
    if ratio > settings.max_length_ratio:
        return LONG
    return CLOSE if filters.repeats(text, [chosen], settings.max_rouge) else None
