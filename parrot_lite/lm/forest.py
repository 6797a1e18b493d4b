"""Rows of prompt and answer as one token tree: what several rows begin with is laid down once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from parrot_lite.lm.tree import Answer, Limb, TokenTree

Row = tuple[tuple[int, ...], tuple[int, ...]]  # the ids of a prompt, and of what is scored behind it
Shared = np.ndarray[tuple[int, int], np.dtype[np.int64]]


def forest(rows: Sequence[Row]) -> TokenTree:
    """One answer a row, in the order of ``rows``; the layout does not depend on that order.

    A branch forks from a trunk only, so some rows become trunks. Every other row hangs on the trunk with which it
    shares most, from where it leaves it, at the latest behind its prompt; one that a trunk begins with needs no branch.
    Trunks are taken one by one, always the row that saves most tokens, until none saves any (the greedy heuristic of
    facility location). Raises ValueError without rows, and where a prompt or an answer is empty.
    """
    if not rows or not all(prompt and answer for prompt, answer in rows):
        raise ValueError("a row has a prompt and an answer, and a forest has rows")
    unique = sorted(set(rows), key=_way)
    ids: array[int] = array("i")
    limbs: list[Limb] = []
    answers: dict[Row, Answer] = {}

    def lay(row: Row, root: int, fork: int) -> None:
        start = len(ids)
        ids.extend(_way(row)[0][fork:])
        limbs.append(Limb(root, root + fork, start, len(ids)))
        first = len(ids) - len(row[1])
        answers[row] = Answer(first, len(ids), first - 1 if first > start else root + fork - 1)

    for trunk, hung in _hung(_shared(unique)).items():
        root = len(ids)
        lay(unique[trunk], root, 0)
        for place, fork in hung:
            prompt, answer = row = unique[place]
            first, end = root + len(prompt), root + len(prompt) + len(answer)
            if fork > len(prompt):  # the trunk says it all
                answers[row] = Answer(first, end, first - 1)
            else:
                lay(row, root, fork)
    return TokenTree(ids, tuple(limbs), tuple(answers[row] for row in rows))


def forests(rows: Sequence[Row], tokens: int) -> Iterator[tuple[list[int], TokenTree]]:
    """Forests of at most ``tokens`` tokens that hold all rows between them, each with the places of its own.

    What is too large is halved between rows that begin alike. Raises ValueError where one row is too long by itself.
    """
    pending = [sorted(range(len(rows)), key=lambda place: _way(rows[place]))]
    while pending:
        places = pending.pop()
        tree = forest([rows[place] for place in places])
        if len(tree) <= tokens:
            yield places, tree
        elif len(places) == 1:
            raise ValueError(f"a row of {len(tree)} tokens where {tokens} are allowed")
        else:
            half = len(places) // 2
            pending += [places[half:], places[:half]]


def _way(row: Row) -> tuple[tuple[int, ...], int]:
    """All ids of a row, and what tells two rows of the same ids apart."""
    return row[0] + row[1], len(row[0])


def _shared(rows: Sequence[Row]) -> Shared:
    """(rows, trunks): how many ids of a row need not be laid down again behind that trunk. ``rows`` are sorted."""
    ways = [np.array(prompt + answer) for prompt, answer in rows]
    neighbours = [_common(one, other) for one, other in pairwise(ways)]
    common = np.diag([len(way) for way in ways])
    for place in range(len(rows)):
        # In sorted order two rows share what every pair of neighbours between them shares.
        common[place, place + 1 :] = common[place + 1 :, place] = np.minimum.accumulate(neighbours[place:])
    lengths, prompts = np.diag(common)[:, None], np.array([len(prompt) for prompt, _ in rows])[:, None]
    found: Shared = np.where(common == lengths, common, np.minimum(common, prompts))
    return found


def _common(one: np.ndarray[tuple[int], np.dtype[np.int64]], other: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length


def _hung(shared: Shared) -> dict[int, list[tuple[int, int]]]:
    """By trunk, the rows that hang on it and how many of its ids they use."""
    count = len(shared)
    used = np.zeros(count, dtype=np.int64)  # ids of the trunk that each row hangs on
    home = np.full(count, -1)
    while True:
        gains = np.maximum(shared - used[:, None], 0)
        gains[home == np.arange(count)] = 0  # trunks hang on nothing
        np.fill_diagonal(gains, 0)
        saved = gains.sum(axis=0) - used  # a row that becomes a trunk is laid down whole
        best = int(saved.argmax())
        if saved[best] <= 0:
            break
        moved = gains[:, best] > 0
        home[moved], used[moved] = best, shared[moved, best]
        home[best], used[best] = best, 0
    home[home < 0] = np.flatnonzero(home < 0)
    hung: dict[int, list[tuple[int, int]]] = {int(trunk): [] for trunk in np.unique(home)}
    for row, trunk in enumerate(home):
        if row != trunk:
            hung[int(trunk)].append((row, int(used[row])))
    return hung
