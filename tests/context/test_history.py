from itertools import permutations

import pytest

from parrot_lite.context import Asked, by_rules, other_history
from parrot_lite.context.histories import histories, scrambled
from tests.test_types import talk


def test_another_history_is_as_long_as_the_true_one_where_some_session_has_it():
    one, two, three = talk("A?", "a."), talk("B?", "b.", "C?", "c.", name="two"), talk("D?", name="three")
    sessions = [one.model_copy(update={"id": "one"}), two, three]
    for seed in range(9):
        assert other_history(sessions, "one", 3, seed) == two.turns  # the one with two exchanges
        assert other_history(sessions, "one", 2, seed) == two.turns[:2]
        assert other_history(sessions, "two", 3, seed) == one.turns  # nobody has two: the longest there is
        assert other_history(sessions, "two", 1, seed) == ()
    drawn = {other_history([*sessions, talk("E?", "e.", name="four")], "one", 2, seed) for seed in range(20)}
    assert drawn == {two.turns[:2], talk("E?", "e.").turns}
    with pytest.raises(ValueError, match="no session but one has a history"):
        other_history([sessions[0], three], "one", 2, 0)


def test_a_query_at_its_place():
    session = talk("A?", "a.", "Why is it?", "b.", name="one")
    asked = Asked.of(session, 2)
    assert (asked.id, asked.turn, asked.query, asked.answer) == ("one", 2, "Why is it?", "b.")
    assert asked.history == session.turns[:2]


def test_the_rules_as_a_detector():
    session = talk("Why is it?", "a.", "Why is it?", "b.", "Name a river in Peru.", "c.", name="one")
    said = by_rules([Asked.of(session, turn) for turn in (1, 2, 3)])
    assert [(one.turn, one.dependent, one.why) for one in said] == [
        (1, False, "no rule"),
        (2, True, "pronoun"),
        (3, False, "no rule"),
    ]


def test_the_spoiled_histories_by_hand():
    said, other = talk("A?", "a.", "B?", "b.").turns, talk("C?", "c.").turns
    assert histories(said, other) == {"true": said, "swapped": other, "shortened": said[:2], "withheld": ()}
    assert histories(other, said[:2])["shortened"] == ()


def test_a_scrambled_history_has_the_same_exchanges_in_any_other_order():
    one, two, three = talk("A?", "a.").turns, talk("B?", "b.").turns, talk("C?", "c.").turns
    assert scrambled((*one, *two), 0) == (*two, *one)
    others = {(*a, *b, *c) for a, b, c in permutations((one, two, three)) if (a, b, c) != (one, two, three)}
    assert {scrambled((*one, *two, *three), seed) for seed in range(60)} == others
    assert scrambled(one, 0) is None
    assert scrambled((), 0) is None
