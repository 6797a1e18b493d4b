import doctest

import pytest

from parrot_lite.context import Asked, judge
from parrot_lite.types import Reply


def asked(query: str, turn: int = 2) -> Asked:
    return Asked("s", turn, query, (), None)


def verdict(reply: Reply, threshold: float = 0.5):
    (one,) = judge.judge([asked("Why?")], lambda questions: [reply], threshold)
    return one


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(judge).failed == 0


def test_the_judge_is_shown_the_message_and_no_history():
    seen = []

    def reply(questions):
        seen.extend(questions)
        return [Reply(text="No", stop="end") for _ in questions]

    judge.judge([asked("Why {query} it?"), asked("And then?", 3)], reply, 0.5)
    assert [one.due for one in seen] == ["assistant", "assistant"]
    texts = [one.turns[-1].content for one in seen]
    assert all(len(one.turns) == 1 for one in seen)
    assert texts[0].endswith("Message: Why {query} it?")  # braces of a message are its own
    assert texts[1].endswith("Message: And then?")
    assert len({one.id for one in seen}) == 2


@pytest.mark.parametrize(
    ("no", "threshold", "dependent"), [(0.7, 0.5, True), (0.5, 0.5, True), (0.49, 0.5, False), (0.7, 0.8, False)]
)
def test_a_weighed_choice_is_dependent_from_the_threshold_on(no, threshold, dependent):
    reply = Reply(text="no" if no > 0.5 else "yes", stop="end", weights=(1 - no, no))
    said = verdict(reply, threshold)
    assert (said.dependent, said.scores, said.why) == (dependent, {"no": no}, f"no {no:.2f}")


@pytest.mark.parametrize(
    ("text", "dependent"),
    [("no", True), ("Yes.", False), ("It does not. NO", True), ("I know nothing", None), ("yes... or no?", None)],
)
def test_a_written_verdict(text, dependent):
    said = verdict(Reply(text=text, stop="end"))
    assert said.dependent is dependent
    assert not said.again
    assert (said.why == judge.UNREAD) == (dependent is None)


def test_a_call_that_failed_is_no_verdict_and_says_whether_to_ask_again():
    passing, lasting = verdict(Reply.failure("timeout")), verdict(Reply.failure("too long", lasting="context full"))
    assert (passing.dependent, passing.why, passing.again) == (None, "no reply: timeout", True)
    assert (lasting.dependent, lasting.why, lasting.again) == (None, "no reply: too long", False)
