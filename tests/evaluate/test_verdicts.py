"""Verdicts come as they are there, and nothing goes on when it is to end."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from parrot_lite.errors import UserError
from parrot_lite.evaluate.verdicts import as_they_come
from tests.evaluate.test_judge import Speaker


class Stoppable(Speaker):
    stopped = False

    def stop(self) -> None:
        self.stopped = True


def _chat() -> Stoppable:
    return Stoppable(lambda _: "[[1]]")


def test_what_is_through_first_comes_first() -> None:
    last = threading.Event()

    def work(group: Sequence[int]) -> list[int]:
        if 0 in group:
            assert last.wait(30)  # in lockstep it would wait in vain
        if 5 in group:
            last.set()
        return list(group)

    chat = _chat()
    found = list(as_they_come(work, range(6), (2, 1), chat))
    assert sorted(one for group in found for one in group) == list(range(6))
    assert found[-1] == [0]
    assert not chat.stopped  # it may be asked more


def test_groups_are_as_wide_as_the_lanes() -> None:
    for calls in (1, 3):
        found = list(as_they_come(list, range(7), (calls, 3), _chat()))
        assert sorted(found) == [[0, 1, 2], [3, 4, 5], [6]]


def test_one_lane_works_in_this_thread() -> None:
    found = as_they_come(lambda _: threading.current_thread(), range(3), (1, 1), _chat())
    assert set(found) == {threading.current_thread()}


def test_a_refusal_ends_the_work() -> None:
    begun = []

    def work(group: Sequence[int]) -> list[int]:
        begun.append(group[0])
        if group[0] == 0:
            raise UserError("the server refuses the key", "here")
        assert ended.wait(30)
        return list(group)

    ended, chat = threading.Event(), _chat()
    chat.stop = ended.set  # type: ignore[method-assign]
    with pytest.raises(UserError, match="refuses the key"):
        list(as_they_come(work, range(100), (2, 1), chat))
    assert len(begun) <= 4  # those that were begun before


def test_a_reader_that_has_enough_ends_the_work() -> None:
    begun, chat, closing = [], _chat(), threading.Event()

    def work(group: Sequence[int]) -> None:
        begun.append(group[0])
        if group[0]:
            assert closing.wait(30)

    chat.stop = closing.set  # type: ignore[method-assign]
    going = as_they_come(work, range(100), (2, 1), chat)
    next(going)
    going.close()
    assert len(begun) <= 5
