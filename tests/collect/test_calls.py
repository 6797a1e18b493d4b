"""When a stage gives up on its speakers."""

import pytest

from parrot_lite.chat.meter import SPENT
from parrot_lite.collect.calls import GIVE_UP, Failures
from parrot_lite.errors import UserError


def test_a_dead_asker_is_seen_behind_a_living_answerer():
    failures = Failures()
    for _ in range(GIVE_UP - 1):
        failures.failed("connection: refused", "user")
        failures.went_through("assistant")
    assert not failures.hopeless
    failures.failed("connection: refused", "user")
    assert failures.hopeless


def test_one_call_in_twenty_that_fails_is_no_reason_to_give_up():
    failures = Failures()
    for number in range(100 * GIVE_UP):
        if number % 20:
            failures.went_through("user")
        else:
            failures.failed("timeout", "user")
    assert not failures.hopeless


def test_a_spent_budget_is_known_behind_a_detectors_own_words(tmp_path):
    failures = Failures()
    failures.failed(f"no reply: {SPENT}: 3 of 3 calls (budget.calls)")
    assert failures.hopeless
    with pytest.raises(UserError, match=r"the budget is spent: 3 of 3 calls .*Raise that key"):
        failures.refuse("negatives", tmp_path, 9)
