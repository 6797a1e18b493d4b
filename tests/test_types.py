"""The records keep their own promises: worked by hand, or said as an invariance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parrot_lite import types
from parrot_lite.types import (
    KINDS,
    Branch,
    Dialogue,
    Instructed,
    Judgment,
    Negative,
    Rejected,
    Reply,
    SessionTree,
    Turn,
    derive_seed,
)

TALK = ("Where is Peru?", "In South America.", "Is it large?", "Yes, rather.", "And its capital?")


def talk(*messages, name="peru", ended=None):
    session = Dialogue(id=name, source="test", ended=ended)
    for message in messages:
        session = session.say(message)
    return session


def negative(text="No idea.", kind="neglect"):
    saw = (Turn(role="user", content="Is it large?"),)
    return Negative(kind=kind, text=text, how="structural", writer="w", done="history withheld", saw=saw)


def branch(turn=2, text="No idea.", **fields):
    return Branch(turn=turn, rule="pronoun", negative=negative(text), **fields)


VERDICT = {"model": "m", "dialogue": "peru", "category": "travel", "turn": 2, "judge": "j@single"}

RECORDS = [
    Turn(role="user", content='Where?\n\tThere: \u2028 "é" 🦜'),
    talk(*TALK),
    talk(*TALK[:4], ended="target"),
    Dialogue(id="empty", source="test"),
    Instructed(id="judged", source="judge", turns=talk(*TALK[:1]).turns, system="Be fair.\n\n"),
    Reply(text="Yes.", stop="end", tokens=2, seconds=0.5),
    Reply(text="", stop="length"),
    Reply.failure("timeout", 3.0),
    Rejected(id="peru", source="test", reason="too short"),
    Rejected(id="peru", source="test", reason="too short", detail="1 exchange"),
    negative(),
    negative().model_copy(update={"prompt": "a" * 64, "words": 2, "chosen_words": 3, "worse": False}),
    branch(),
    branch(chosen="Quite.", context=talk(*TALK[:3]).turns),
    SessionTree(dialogue=talk(*TALK), branches=(branch(1), branch(2), branch(2, "Who knows?"))),
    Judgment(**VERDICT, score=7.5, text="Fits. Rating: [[7.5]]"),
    Judgment(**VERDICT, reason="no verdict"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
class TestEveryRecord:
    def test_json_round_trip(self, record):
        line = record.model_dump_json()
        assert "\n" not in line
        assert type(record).model_validate_json(line) == record

    def test_unknown_field_is_refused(self, record):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            type(record).model_validate({**dict(record), "extra": 1})

    def test_frozen(self, record):
        name = next(iter(type(record).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(record, name, getattr(record, name))


@pytest.mark.parametrize("record", [record for record in RECORDS if not isinstance(record, Reply)])
def test_files_leave_off_the_fields_that_are_none(record):  # replies are not written to files
    assert type(record).model_validate_json(record.model_dump_json(exclude_none=True)) == record


def test_every_record_type_is_among_the_examples():
    kinds = {k for k in vars(types).values() if isinstance(k, type) and issubclass(k, types.Record)} - {types.Record}
    assert {type(record) for record in RECORDS} == kinds


@pytest.mark.parametrize("content", ["", " ", "\n", " Hello", "Hello ", "Hello\n", "\u00a0Hello"])
def test_turn_is_neither_empty_nor_padded(content):
    with pytest.raises(ValidationError, match="non-empty and without surrounding white space"):
        Turn(role="user", content=content)


@pytest.mark.parametrize("bad", [{"role": "system", "content": "x"}, {"role": "user", "content": 3}, {"role": "user"}])
def test_turn_is_strict(bad):
    with pytest.raises(ValidationError):
        Turn.model_validate(bad)


@given(st.lists(st.sampled_from(["user", "assistant"]), max_size=6))
def test_a_dialogue_is_exactly_an_alternation_that_the_user_opens(roles):
    alternates = all(role == ("user", "assistant")[index % 2] for index, role in enumerate(roles))
    turns = tuple(Turn(role=role, content="x") for role in roles)
    if alternates:
        assert Dialogue(id="d", source="test", turns=turns).turns == turns
    else:
        with pytest.raises(ValidationError, match=r"message \d is the (user|assistant)'s, expected the"):
            Dialogue(id="d", source="test", turns=turns)


def test_the_refusal_names_the_first_message_out_of_turn():
    turns = tuple(Turn(role=role, content="x") for role in ("user", "assistant", "assistant", "user"))
    with pytest.raises(ValidationError, match="message 3 is the assistant's, expected the user's"):
        Dialogue(id="d", source="test", turns=turns)


def test_due_queries_and_answers_by_hand():
    assert talk().due == "user"
    assert talk().queries == talk().answers == ()
    for length in range(1, 6):
        session = talk(*TALK[:length])
        assert session.due == {1: "assistant", 0: "user"}[length % 2]
        assert session.queries == (TALK[0], TALK[2], TALK[4])[: (length + 1) // 2]
        assert session.answers == (TALK[1], TALK[3])[: length // 2]


def test_say_adds_one_stripped_message_and_leaves_the_session_as_it_was():
    before = talk("Where is Peru?", ended="x")
    after = before.say("  In South America.\n")
    assert after.turns[-1] == Turn(role="assistant", content="In South America.")
    assert after.turns[:-1] == before.turns
    assert len(before.turns) == 1
    assert (after.id, after.source, after.ended) == (before.id, before.source, before.ended)


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_say_refuses_blank_text(text):
    with pytest.raises(ValueError, match="non-empty"):
        talk("Where is Peru?").say(text)


def test_before_by_hand():
    session = talk(*TALK)
    assert [turn.content for turn in session.before(1).turns] == list(TALK[:1])
    assert [turn.content for turn in session.before(2).turns] == list(TALK[:3])
    assert [turn.content for turn in session.before(3).turns] == list(TALK)  # the third answer is still due
    assert (session.before(2).id, session.before(2).source) == (session.id, session.source)
    assert {session.before(turn).due for turn in (1, 2, 3)} == {"assistant"}
    assert session.before(2).say(session.answers[1]).turns == session.turns[:4]


@pytest.mark.parametrize("turn", [-1, 0, 4])
def test_before_refuses_a_turn_that_is_not_there(turn):
    with pytest.raises(IndexError, match=rf"dialogue peru has 3 queries, no turn {turn}"):
        talk(*TALK).before(turn)
    with pytest.raises(IndexError):
        talk().before(1)


def test_complete_leaves_off_an_unanswered_query_and_nothing_else():
    for length in range(6):
        session = talk(*TALK[:length], ended="target")
        complete = session.complete()
        assert complete.turns == session.turns[: length - length % 2]
        assert complete.due == "user"
        assert complete.complete() == complete
        assert complete.ended == "target"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": None, "stop": "failed"}, "a failed reply has a reason and no text"),
        ({"text": None, "stop": "failed", "reason": ""}, "a failed reply has a reason and no text"),
        ({"text": "x", "stop": "failed", "reason": "timeout"}, "a failed reply has a reason and no text"),
        ({"text": None, "stop": "end"}, "a reply without text must be 'failed'"),
        ({"text": None, "stop": "length", "reason": "timeout"}, "a reply without text must be 'failed'"),
        ({"text": "x", "stop": "error"}, "stop"),
        ({"text": "x", "stop": "end", "tokens": -1}, "tokens"),
    ],
)
def test_reply_refuses(fields, message):
    with pytest.raises(ValidationError, match=message):
        Reply(**fields)


def test_failure_puts_its_reason_on_one_line_of_bounded_length():
    failed = Reply.failure("  Connection\n  refused\tby peer ", 1.5)
    assert (failed.stop, failed.text, failed.reason, failed.seconds) == (
        "failed",
        None,
        "Connection refused by peer",
        1.5,
    )
    assert Reply.failure(" \n").reason == "unknown"
    assert Reply.failure("x" * 1000).reason == "x" * 500


def test_negative_kinds_are_the_papers_three_and_the_named_controls():
    assert KINDS == ("neglect", "hallucination", "misunderstanding")
    for kind in (*KINDS, "same-writer", "degraded", "random"):
        assert negative(kind=kind).kind == kind
    with pytest.raises(ValidationError):
        negative(kind="other")
    with pytest.raises(ValidationError, match="non-empty and without surrounding"):
        negative(text="")
    with pytest.raises(ValidationError, match="non-empty and without surrounding"):
        negative(text=" padded")


def test_a_tree_forks_only_at_answered_turns():
    session = talk(*TALK)  # three queries, two answers
    with pytest.raises(ValidationError, match="a branch at turn 3 of 2 answered turns"):
        SessionTree(dialogue=session, branches=(branch(1), branch(3)))
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        branch(0)


def test_a_negative_differs_from_the_chosen_answer_of_its_own_turn():
    session = talk(*TALK)
    with pytest.raises(ValidationError, match="the negative at turn 2 equals the chosen answer"):
        SessionTree(dialogue=session, branches=(branch(2, "Yes, rather."),))
    # The answer of another turn is a fine negative.
    assert SessionTree(dialogue=session, branches=(branch(1, "Yes, rather."),)).id == "peru"


def test_a_branch_may_bring_its_own_chosen_answer_and_context():
    session = talk(*TALK)
    alone = talk("Is it large?").turns
    usual, own = branch(2), branch(2, "Yes, rather.", chosen="Quite.", context=alone)
    tree = SessionTree(dialogue=session, branches=(usual, own))  # the session's answer is then a fine negative
    assert tree.chosen(usual) == "Yes, rather."
    assert tree.chosen(own) == "Quite."
    assert tree.context(usual) == session.before(2)
    assert tree.context(own).turns == alone
    with pytest.raises(ValidationError, match="the negative at turn 2 equals the chosen answer"):
        SessionTree(dialogue=session, branches=(branch(2, "Quite.", chosen="Quite."),))
    for turns in ((), session.turns[:2]):
        with pytest.raises(ValidationError, match="ends with the user's query"):
            branch(2, context=turns)
    with pytest.raises(ValidationError, match="expected the user's"):
        branch(2, context=session.turns[1:3])


def test_branches_at_a_turn_keep_their_order():
    first, second, third = branch(2, "a"), branch(1, "b"), branch(2, "c")
    tree = SessionTree(dialogue=talk(*TALK), branches=(first, second, third))
    assert tree.at(1) == (second,)
    assert tree.at(2) == (first, third)
    assert tree.at(3) == ()


@pytest.mark.parametrize("score", [0, -1, 0.99, 10.01, 11, float("nan"), float("inf"), "7"])
def test_a_score_lies_between_1_and_10(score):
    with pytest.raises(ValidationError, match="score"):
        Judgment(**VERDICT, score=score)


def test_no_verdict_is_none():
    assert Judgment(**VERDICT).score is None
    assert [Judgment(**VERDICT, score=score).score for score in (1, 10)] == [1.0, 10.0]
    with pytest.raises(ValidationError, match="turn"):
        Judgment(**{**VERDICT, "turn": 0})


def test_derived_seeds_are_what_they_always_were():
    # The first four bytes of the SHA-256 of "0" and of "7\x1fcollect\x1ftarget\x1f3", halved.
    assert derive_seed(0) == 0x5FECEB66 >> 1
    assert derive_seed(7, "collect", "target", 3) == 0xA46DCAE7 >> 1


def test_derived_seeds_depend_on_their_key_alone():
    keys = [(seed, name, turn) for seed in (0, 1) for name in ("a", "b") for turn in range(20)]
    forwards = {key: derive_seed(*key) for key in keys}
    backwards = {key: derive_seed(*key) for key in reversed(keys)}
    assert forwards == backwards
    assert len(set(forwards.values())) == len(keys)
    assert all(0 <= value < 2**31 for value in forwards.values())


def test_parts_of_a_key_do_not_run_together():
    assert derive_seed(1, "23") != derive_seed(12, "3")
    assert derive_seed(0, "a", "bc") != derive_seed(0, "ab", "c")
    assert derive_seed(0, "a") != derive_seed(0, "a", "")
