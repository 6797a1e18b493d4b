"""Token trees: sequences that share their beginnings, laid down once.

A trunk is a sequence as usual. A branch hangs on it at its fork: its positions continue from there, and it sees the
trunk up to the fork and itself. One forward pass over the tree gives what a row for every branch would give.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Limb:
    """A run of tokens: [start, end) see [root, fork) whole and themselves causally. A trunk has nothing before it."""

    root: int
    fork: int
    start: int
    end: int

    @property
    def seen(self) -> int:
        """How many tokens it sees before its own."""
        return self.fork - self.root

    def shifted(self, by: int) -> Limb:
        """The same limb in a tree that lies ``by`` tokens later."""
        return Limb(self.root + by, self.fork + by, self.start + by, self.end + by)


@dataclass(frozen=True)
class Answer:
    """Tokens [start, end) are scored; the first is predicted at ``before``, each other one at the token before it."""

    start: int
    end: int
    before: int

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def predictors(self) -> list[int]:
        """Where the logits of each of its tokens are read."""
        return [self.before, *range(self.start, self.end - 1)]

    def shifted(self, by: int) -> Answer:
        """The same answer in a tree that lies ``by`` tokens later."""
        return Answer(self.start + by, self.end + by, self.before + by)


@dataclass(frozen=True)
class TokenTree:
    """Ids, the limbs that cover them in order, and the answers to score. Raises ValueError where these do not hold.

    A limb may only fork from one trunk, which lies before it. Ids are an array: thousands of trees are held at once,
    and a tuple takes 36 bytes a token instead of 4.
    """

    ids: array[int]
    limbs: tuple[Limb, ...]
    answers: tuple[Answer, ...]

    def __post_init__(self) -> None:
        end = 0
        trunks: dict[int, int] = {}
        for limb in self.limbs:
            if limb.start != end or limb.end <= limb.start:
                raise ValueError(f"{limb} does not begin where the tokens before it end, at {end}")
            if limb.root == limb.fork == limb.start:
                trunks[limb.start] = limb.end
            elif not limb.root < limb.fork <= trunks.get(limb.root, -1):
                raise ValueError(f"{limb} does not fork from a trunk before it")
            end = limb.end
        if end != len(self.ids):
            raise ValueError(f"the limbs cover {end} of {len(self.ids)} tokens")
        for answer in self.answers:
            homes = [limb for limb in self.limbs if limb.start <= answer.start < answer.end <= limb.end]
            if not homes:
                raise ValueError(f"{answer} does not lie within one limb")
            before = answer.start - 1 if answer.start > homes[0].start else homes[0].fork - 1
            if answer.before != before or before < homes[0].root:
                raise ValueError(f"{answer} is not predicted by the token that it follows")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def positions(self) -> list[int]:
        """Each token's distance from the beginning of its trunk, along the way it sees."""
        return [p for limb in self.limbs for p in range(limb.seen, limb.seen + limb.end - limb.start)]

    @property
    def context(self) -> int:
        """The tokens of the longest way through it: what a model's context must hold."""
        return max(limb.seen + limb.end - limb.start for limb in self.limbs)

    def way(self, answer: Answer) -> array[int]:
        """The ids of a row of its own: the whole context of ``answer``, then it."""
        (home,) = (limb for limb in self.limbs if limb.start < answer.end <= limb.end)
        return self.ids[home.root : home.fork] + self.ids[home.start : answer.end]


def joined(trees: Sequence[TokenTree]) -> TokenTree:
    """Several trees as one, one behind the other; none sees another. Answers keep their order."""
    ids: array[int] = array("i")
    limbs: list[Limb] = []
    answers: list[Answer] = []
    for tree in trees:
        limbs += (limb.shifted(len(ids)) for limb in tree.limbs)
        answers += (answer.shifted(len(ids)) for answer in tree.answers)
        ids += tree.ids
    return TokenTree(ids, tuple(limbs), tuple(answers))
