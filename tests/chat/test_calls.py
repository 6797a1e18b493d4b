"""Calls that go on at the same time: who waits for whom, and who does not."""

import threading

from parrot_lite.chat.calls import Calls, Line, Speaker
from parrot_lite.recipe import Decoding
from parrot_lite.types import Dialogue, Reply
from tests.collect.speakers import FunctionChat, said


def speaker(chat):
    return Speaker(chat, "assistant", Decoding(), 0)


def dialogue(name):
    return Dialogue(id=name, source="test").say("What?")


def drain(calls):
    """Names in the order in which they come back."""
    names = []
    while answered := calls.answered():
        names += [session.id for _, session, _ in answered]
    return names


def test_nobody_waits_for_a_slow_neighbour():
    slow = threading.Event()

    def answer(session):
        if session.id == "slow":
            assert slow.wait(20)
        return said("Yes.")

    one = speaker(FunctionChat(answer))
    calls = Calls([Line([one], calls=2, width=1)])
    calls.ask(one, dialogue("slow"))
    for turn in range(5):
        calls.ask(one, dialogue(f"quick {turn}"))
        [(_, session, _)] = calls.answered()
        assert session.id == f"quick {turn}"
    slow.set()
    assert drain(calls) == ["slow"]
    calls.close()


def test_no_more_calls_at_once_than_the_line_has():
    lock, running, most = threading.Lock(), [0], [0]
    everybody = threading.Barrier(3)

    def answer(_):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        everybody.wait(20)
        with lock:
            running[0] -= 1
        return said("Yes.")

    one = speaker(FunctionChat(answer))
    calls = Calls([Line([one], calls=3, width=1)])
    for number in range(12):
        calls.ask(one, dialogue(str(number)))
    assert len(calls) == 12
    assert sorted(drain(calls), key=int) == [str(number) for number in range(12)]
    assert most[0] == 3
    calls.close()


def test_a_batch_is_full_or_all_that_can_come():
    answering, asking = FunctionChat(lambda _: said("Yes.")), FunctionChat(lambda _: said("Why?"))
    answerer, asker = speaker(answering), speaker(asking)
    calls = Calls([Line([answerer], calls=1, width=1), Line([asker], calls=1, width=4)])
    for number in range(10):
        calls.ask(answerer, dialogue(str(number)))
    while answered := calls.answered():
        for who, session, _ in answered:
            if who is answerer:
                calls.ask(asker, session)
    assert answering.batches == [1] * 10
    assert sorted(asking.batches) == [2, 4, 4]
    calls.close()


def test_enough_in_hand_is_twice_what_can_be_in_calls():
    one, other = speaker(FunctionChat(said)), speaker(FunctionChat(said))
    calls = Calls([Line([one], calls=3, width=1), Line([other], calls=1, width=4)])
    assert calls.enough == 14
    calls.close()


def test_speakers_of_one_chat_share_its_calls_and_no_batch():
    chat = FunctionChat(lambda _: said("Yes."))
    one, other = speaker(chat), speaker(chat)
    calls = Calls([Line([one, other], calls=1, width=3)])
    for number in range(2):
        calls.ask(one, dialogue(f"a{number}"))
    for number in range(4):
        calls.ask(other, dialogue(f"b{number}"))
    drain(calls)
    assert chat.batches == [3, 2, 1]
    assert [{session.id[0] for session in chat.shown[:3]}, {session.id[0] for session in chat.shown[3:5]}] == [
        {"b"},
        {"a"},
    ]
    calls.close()


def test_what_waits_can_be_dropped_and_what_runs_comes_back():
    go = threading.Event()

    def answer(_):
        assert go.wait(20)
        return Reply.failure("no")

    one = speaker(FunctionChat(answer))
    calls = Calls([Line([one], calls=1, width=1)])
    calls.ask(one, dialogue("runs"))
    threading.Timer(0.01, go.set).start()
    calls.ask(one, dialogue("also"))
    assert [session.id for _, session, _ in calls.answered()] == ["runs"]  # the first in comes first
    calls.drop()
    assert (len(calls), calls.answered()) == (0, [])
    calls.close()
