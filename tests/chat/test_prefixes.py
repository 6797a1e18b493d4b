from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_lite.chat.gguf_model import GgufModel, State, Tokens
from parrot_lite.chat.prefixes import Prefixes, Trie, common

FEW = st.lists(st.integers(0, 2), min_size=1, max_size=9)


def tokens(numbers: list[int] | str) -> Tokens:
    return np.array([ord(one) if isinstance(one, str) else one for one in numbers], np.int32)


class Memory:
    """A model's sequences by the tokens that were evaluated there; a state is those tokens, 4 bytes each."""

    def __init__(self, sequences: int, recurrent: bool, refuses: bool) -> None:
        self.held: list[list[int]] = [[] for _ in range(sequences)]
        self.recurrent, self.refuses = recurrent, refuses
        self.evaluated = 0

    def evaluate(self, sequence: int, new: Tokens) -> None:
        self.held[sequence] += new.tolist()
        self.evaluated += len(new)

    def cut(self, sequence: int, length: int) -> bool:
        if self.recurrent and 0 < length < len(self.held[sequence]):
            return False
        del self.held[sequence][length:]
        return True

    def size(self, sequence: int) -> int:
        return 4 * len(self.held[sequence])

    def save(self, sequence: int) -> State:
        return np.frombuffer(np.array(self.held[sequence], np.int32).tobytes(), np.uint8)

    def restore(self, sequence: int, state: State) -> bool:
        self.held[sequence] = []
        if self.refuses:
            return False
        self.held[sequence] = np.frombuffer(state.tobytes(), np.int32).tolist()
        return True

    def clear(self) -> None:
        self.held = [[] for _ in self.held]


def opened(sequences: int, capacity: int, recurrent: bool = False, refuses: bool = False) -> tuple[Memory, Prefixes]:
    memory = Memory(sequences, recurrent, refuses)
    return memory, Prefixes(cast(GgufModel, cast(Any, memory)), sequences, capacity)


def ask(memory: Memory, prefixes: Prefixes, prompt: Tokens, reply: Tokens, busy: set[int]) -> int:
    """A prompt's way through: what is missing of it is evaluated, then a reply. How many tokens were known."""
    sequence = prefixes.enter(prompt, busy)
    assert sequence not in busy
    known = len(prefixes.tokens(sequence))
    assert memory.held[sequence] == prompt[:known].tolist()
    assert known < len(prompt)
    for new in (prompt[known:], reply):
        memory.evaluate(sequence, new)
        prefixes.grow(sequence, new)
    assert memory.held[sequence] == prefixes.tokens(sequence).tolist() == [*prompt.tolist(), *reply.tolist()]
    return known


@given(
    st.lists(st.tuples(FEW, FEW, st.sets(st.integers(0, 2), max_size=2)), max_size=12),
    st.integers(0, 150),
    st.booleans(),
    st.booleans(),
)
def test_a_sequence_holds_what_it_is_said_to_hold(
    asked: list[tuple[list[int], list[int], set[int]]], capacity: int, recurrent: bool, refuses: bool
) -> None:
    memory, prefixes = opened(3, capacity, recurrent, refuses)
    for prompt, reply, busy in asked:
        others = {sequence: list(memory.held[sequence]) for sequence in busy}
        ask(memory, prefixes, tokens(prompt), tokens(reply), busy)
        assert {sequence: memory.held[sequence] for sequence in busy} == others
        assert [prefixes.tokens(sequence).tolist() for sequence in range(3)] == memory.held
        assert prefixes.put_aside <= capacity


@given(st.lists(st.tuples(FEW, FEW), max_size=12), st.integers(1, 3))
def test_with_enough_memory_only_unique_tokens_are_evaluated(
    asked: list[tuple[list[int], list[int]]], sequences: int
) -> None:
    """As many as the trie counts, and the last token of a prompt that is known whole."""
    memory, prefixes = opened(sequences, 1 << 20)
    trie = Trie()
    for prompt, _ in asked:
        whole = tokens(prompt)
        known = ask(memory, prefixes, whole, tokens([]), set())
        assert len(prompt) - known == max(1, trie.add(whole))


def test_a_dialogue_goes_on_where_it_was_and_keeps_its_reply() -> None:
    memory, prefixes = opened(1, 0)
    assert ask(memory, prefixes, tokens("system: why?"), tokens("so."), set()) == 0
    assert ask(memory, prefixes, tokens("system: why?so. how?"), tokens("thus."), set()) == len("system: why?so.")
    # A reply that the template writes in other tokens is known up to where they part.
    assert ask(memory, prefixes, tokens("system: why?so. how?thu? no"), tokens("-"), set()) == len(
        "system: why?so. how?thu"
    )


def test_a_common_beginning_is_copied_and_its_owner_keeps_the_rest() -> None:
    memory, prefixes = opened(2, 0)
    ask(memory, prefixes, tokens("system: why?"), tokens("so."), set())
    assert ask(memory, prefixes, tokens("system: when?"), tokens("now."), {0}) == len("system: wh")
    assert memory.held[0] == tokens("system: why?so.").tolist()


def test_who_makes_way_comes_back_from_memory() -> None:
    memory, prefixes = opened(2, 1 << 20)
    for name in "abc":
        ask(memory, prefixes, tokens(f"{name}: long ago"), tokens("!"), set())
    assert prefixes.put_aside == 4 * len("a: long ago!")  # the one used least recently
    assert ask(memory, prefixes, tokens("a: long ago! and?"), tokens("!"), set()) == len("a: long ago!")
    assert ask(memory, prefixes, tokens("b: long ago! and?"), tokens("!"), set()) == len("b: long ago!")


def test_the_one_used_least_recently_makes_way() -> None:
    memory, prefixes = opened(2, 0)
    for name in "abac":
        ask(memory, prefixes, tokens(f"{name}: long ago"), tokens("!"), set())
    assert {bytes(held).decode() for held in memory.held} == {"a: long ago!", "c: long ago!"}


def test_without_memory_who_makes_way_is_evaluated_again() -> None:
    memory, prefixes = opened(2, 0)
    for name in "abc":
        ask(memory, prefixes, tokens(f"{name}: long ago"), tokens("!"), set())
    assert prefixes.put_aside == 0
    assert ask(memory, prefixes, tokens("a: long ago! and?"), tokens("!"), set()) == 0


def test_clear_forgets_everything() -> None:
    memory, prefixes = opened(1, 1 << 20)
    for name in "ab":
        ask(memory, prefixes, tokens(f"{name}: long ago"), tokens("!"), set())
    prefixes.clear()
    assert (prefixes.put_aside, memory.held) == (0, [[]])
    assert [prefixes.known(tokens(f"{name}: long ago")) for name in "ab"] == [0, 0]


@given(st.lists(FEW, max_size=20))
def test_the_trie_counts_as_a_tree_of_nodes_does(lists: list[list[int]]) -> None:
    trie = Trie()
    nodes: set[tuple[int, ...]] = set()
    for one in lists:
        beginnings = {tuple(one[:end]) for end in range(1, len(one) + 1)}
        assert trie.add(tokens(one)) == len(beginnings - nodes)
        nodes |= beginnings


def test_tokens_sort_as_numbers_not_as_texts() -> None:
    trie = Trie()
    assert [trie.add(tokens(one)) for one in ([256, 1], [1, 2], [1, 256], [256, 1, 3], [1])] == [2, 2, 1, 1, 0]


@pytest.mark.parametrize(
    ("a", "b", "length"), [("", "", 0), ("", "a", 0), ("ab", "ac", 1), ("ab", "abc", 2), ("b", "a", 0)]
)
def test_common_beginnings(a: str, b: str, length: int) -> None:
    assert common(tokens(a), tokens(b)) == common(tokens(b), tokens(a)) == length
