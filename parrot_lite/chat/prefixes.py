"""What llama.cpp has evaluated, so that no beginning of a prompt is evaluated twice."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from parrot_lite.chat.gguf_model import GgufModel, State, Tokens

NOTHING: Tokens = np.empty(0, np.int32)


def common(a: Tokens, b: Tokens) -> int:
    """How many tokens two lists begin with in common."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Tokens behind each other: a prompt of ``asked`` tokens, as far as it is through, and what was written there."""

    tokens: Tokens
    asked: int = 0
    state: State | None = None  # of what was put aside; a sequence holds its own

    def goes_on(self, prompt: Tokens) -> bool:
        """Whether ``prompt`` is a later one of the same dialogue, so that nothing is lost if it takes over."""
        return common(self.tokens[: self.asked], prompt) == self.asked


class Prefixes:
    """What each sequence of a model holds.

    A prompt takes over from the dialogue that it goes on with, and from what was written there. One that only begins
    alike (the template's own beginning, a judge's instruction) starts from a copy. The sequence used least recently
    makes way: what it held is put aside, in ``capacity`` bytes of memory, and comes back from there.
    """

    def __init__(self, model: GgufModel, sequences: int, capacity: int) -> None:
        self._model, self._capacity = model, capacity
        self._held = [Evaluated(NOTHING) for _ in range(sequences)]
        self._used = [0] * sequences  # when, in prompts
        self._aside: list[Evaluated] = []

    @property
    def put_aside(self) -> int:
        """Bytes of memory that dialogues outside the sequences take."""
        return sum(len(one.state) for one in self._aside if one.state is not None)

    def tokens(self, sequence: int) -> Tokens:
        """What a sequence holds."""
        return self._held[sequence].tokens

    def known(self, prompt: Tokens) -> int:
        """How long a beginning of the prompt is evaluated somewhere, in tokens."""
        return max(common(one.tokens, prompt) for one in (*self._held, *self._aside))

    def enter(self, prompt: Tokens, busy: Collection[int]) -> int:
        """A sequence that is not ``busy`` and now holds what is known of the prompt, its last token left out.

        The logits behind that one are wanted, and nothing that is kept has logits.
        """
        idle = [sequence for sequence in range(len(self._held)) if sequence not in busy]
        sources = [*self._held, *self._aside]
        shared = [common(one.tokens, prompt) for one in sources]
        longest = max(shared)
        best = [at for at, length in enumerate(shared) if length == longest]
        own = [at for at in best if at in idle and sources[at].goes_on(prompt)]
        sequence = min(own or idle, key=self._used.__getitem__)
        if not own:
            # Where it went on before, else the shortest: it is the cheapest to copy.
            source = min(best, key=lambda at: (not sources[at].goes_on(prompt), len(sources[at].tokens)))
            if sources[source].state is not None and sources[source].goes_on(prompt):
                self._aside.remove(sources[source])
            self._put_aside(sequence)
            if source != sequence:
                self.cut(sequence, 0)
                if longest:
                    self._copy(sources[source], source, sequence)
        self._used[sequence] = 1 + max(self._used)
        self.cut(sequence, min(longest, len(prompt) - 1))
        self._held[sequence] = Evaluated(self.tokens(sequence), len(prompt))
        return sequence

    def grow(self, sequence: int, tokens: Tokens) -> None:
        """Note that ``tokens`` were evaluated behind what the sequence holds."""
        held = self._held[sequence]
        self._held[sequence] = Evaluated(np.concatenate([held.tokens, tokens]), held.asked)

    def cut(self, sequence: int, length: int) -> None:
        """Forget what a sequence holds behind ``length`` tokens. Recurrent models cannot: they forget all of it."""
        held = self._held[sequence]
        if length < len(held.tokens):
            if not self._model.cut(sequence, length):
                self._model.cut(sequence, 0)
                length = 0
            self._held[sequence] = Evaluated(held.tokens[:length], held.asked)

    def clear(self) -> None:
        """Forget everything."""
        self._model.clear()
        self._aside.clear()
        self._held = [Evaluated(NOTHING) for _ in self._held]

    def _copy(self, source: Evaluated, at: int, sequence: int) -> None:
        state = self._model.save(at) if source.state is None else source.state
        if state is not None and self._model.restore(sequence, state):
            self._held[sequence] = Evaluated(source.tokens)

    def _put_aside(self, sequence: int) -> None:
        held = self._held[sequence]
        if not len(held.tokens) or self._model.size(sequence) > self._capacity:
            return
        state = self._model.save(sequence)
        if state is not None:
            self._aside.append(Evaluated(held.tokens, held.asked, state))
        while self.put_aside > self._capacity:
            self._aside.pop(0)


class Trie:
    """Token lists by their beginnings, in 4 bytes a token."""

    def __init__(self) -> None:
        self._lists: list[bytes] = []  # sorted; none is the beginning of another

    def add(self, tokens: Tokens) -> int:
        """How many of the tokens are new: behind the longest beginning that any list before had."""
        written = tokens.astype(">u4").tobytes()  # bytes that sort as the tokens do
        at = bisect_left(self._lists, written)
        around = self._lists[max(0, at - 1) : at + 1]
        shared = max((common(np.frombuffer(other, ">u4"), tokens) for other in around), default=0)
        if at and written.startswith(self._lists[at - 1]):
            self._lists[at - 1] = written
        elif shared < len(tokens):
            self._lists.insert(at, written)
        return len(tokens) - shared
