"""The histories under which a query or its answer is looked at: the true one, and spoiled ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

from parrot_lite.types import Condition, Dialogue, Turn, derive_seed


def histories(true: Sequence[Turn], other: Sequence[Turn]) -> dict[Condition, tuple[Turn, ...]]:
    """The ``true`` history and those that need no drawing, by name. One exchange, shortened, is withheld."""
    return {"true": tuple(true), "swapped": tuple(other), "shortened": tuple(true[:-2]), "withheld": ()}


def scrambled(true: Sequence[Turn], seed: int) -> tuple[Turn, ...] | None:
    """The exchanges of a history in another order, each other one as likely; None where it has fewer than two."""
    exchanges = [true[start : start + 2] for start in range(0, len(true), 2)]
    order = list(range(len(exchanges)))
    if len(order) < 2:
        return None
    draw = random.Random(seed)
    while order == sorted(order):
        draw.shuffle(order)
    return tuple(turn for place in order for turn in exchanges[place])


def other_history(sessions: Sequence[Dialogue], session: str, turn: int, seed: int) -> tuple[Turn, ...]:
    """Another session's messages, to stand before the query of exchange ``turn`` in place of its own history.

    As many exchanges as there were where some session has them, so that length tells nothing. Which one depends on
    ``seed``, ``session`` and ``turn``. Raises ValueError where ``sessions`` hold no other answered one.
    """
    start = derive_seed(seed, session, turn) % max(1, len(sessions))
    rotated = (sessions[(start + i) % len(sessions)] for i in range(len(sessions)))
    longest: Dialogue | None = None
    for other in rotated:
        if other.id != session and len(other.answers) > (len(longest.answers) if longest else 0):
            longest = other
            if len(other.answers) >= turn - 1:
                break
    if longest is None:
        raise ValueError(f"no session but {session} has a history")
    return longest.complete().turns[: 2 * (turn - 1)]
