"""Which queries lean on the history, and what an answer is worth under another one."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_lite.context.rules import dependence
from parrot_lite.types import Dialogue, Turn, derive_seed

__all__ = ["dependence", "other_history"]


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
