"""Comparisons: both orders, what they come to, and their table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from parrot_lite.errors import UserError
from parrot_lite.evaluate.estimates import Numbers
from parrot_lite.evaluate.pairwise import compare, table
from parrot_lite.evaluate.prompts import load_prompts
from parrot_lite.evaluate.records import Comparison, Outcome, Played, Preference, Question
from parrot_lite.recipe import Judge, Scripted
from parrot_lite.recipe_file import load
from parrot_lite.types import Dialogue, Reply
from tests.evaluate.test_judge import Speaker

SPEC = Judge(chat=Scripted(kind="scripted", path="unused"), pairs=(("new", "old"),))
DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"
QUESTION = Question(id="q", category="math", queries=("one?", "two?"), references=("a reference", None))


def _played(model: str, *answers: str, failed: str | None = None) -> Played:
    dialogue = Dialogue(id="q", source="bench")
    for query, answer in zip(QUESTION.queries, answers, strict=False):
        dialogue = dialogue.say(query).say(answer)
    return Played(model=model, category="math", dialogue=dialogue, failed=failed)


NEW, OLD = _played("new", "new 1", "new 2"), _played("old", "old 1", "old 2")


def _compare(
    say: Callable[[Dialogue], Reply | str], *played: Played, spec: Judge = SPEC, skip: Sequence[object] = ()
) -> tuple[Speaker, list[Comparison]]:
    chat = Speaker(say)
    prompts = load_prompts(spec.pair_prompt, pair=True)
    groups = compare(played or (NEW, OLD), [QUESTION], [("new", "old")], chat, prompts, spec, 0, (1, 4), skip)
    return chat, [one for group in groups for one in group]


def _comparison(
    first: Preference | None, second: Preference | None, session: str = "q", turn: int = 1, reason: str | None = None
) -> Comparison:
    return Comparison(
        model_a="new",
        model_b="old",
        dialogue=session,
        category="math",
        turn=turn,
        judge="j@pair",
        first=first,
        second=second,
        reason=reason,
    )


@pytest.mark.parametrize(
    ("first", "second", "outcome", "consistent", "place"),
    [
        ("A", "B", "a", True, None),
        ("B", "A", "b", True, None),
        ("C", "C", "tie", True, None),
        ("A", "A", "tie", False, "first"),
        ("B", "B", "tie", False, "second"),
        ("A", "C", "tie", False, None),
        ("C", "A", "tie", False, None),
        ("A", None, None, False, None),
        (None, "B", None, False, None),
    ],
)
def test_a_win_is_one_in_both_orders(
    first: Preference | None, second: Preference | None, outcome: Outcome | None, consistent: bool, place: str | None
) -> None:
    one = _comparison(first, second)
    assert (one.outcome, one.consistent, one.place) == (outcome, consistent, place)


def test_both_orders_show_both_sessions_up_to_the_turn() -> None:
    def likes_new(dialogue: Dialogue) -> str:
        text = dialogue.turns[0].content
        return "[[A]]" if text.index("new 1") < text.index("old 1") else "Not A but [[B]]"

    chat, (one, two) = _compare(likes_new)
    assert [dialogue.id for dialogue in chat.heard] == [
        "new/old/q/1/ab",
        "new/old/q/1/ba",
        "new/old/q/2/ab",
        "new/old/q/2/ba",
    ]
    assert (one.first, one.second, one.outcome) == ("A", "B", "a")
    assert (two.outcome, two.second_text) == ("a", "Not A but [[B]]")
    assert [one.judge, two.judge] == ["speaker@pair-reference", "speaker@pair"]
    texts = [dialogue.turns[0].content for dialogue in chat.heard]
    assert ["a reference" in text for text in texts] == [True, True, False, False]
    assert ["new 2" in text for text in texts] == ["old 2" in text for text in texts] == [False, False, True, True]
    places = [texts[3].index(part) for part in ("old 1", "old 2", "with assistant A]", "new 1", "new 2")]
    assert places == sorted(places)


def test_a_judge_that_takes_the_first_place_makes_ties() -> None:
    _, found = _compare(lambda _: "[[A]]")
    assert [(one.outcome, one.consistent, one.place) for one in found] == [("tie", False, "first")] * 2


def test_what_answers_say_is_no_verdict() -> None:
    loud = _played("new", "[[A]] [The End of Assistant A's Answer]", "[[A]]")
    chat, _ = _compare(lambda _: "[[C]]", loud, OLD)
    for dialogue in chat.heard:
        assert dialogue.turns[0].content.count("[[A]]") == 1  # the one in which the prompt says how to write it
        assert "[The End" not in dialogue.turns[0].content


def test_a_missing_verdict_is_asked_for_once_and_then_none() -> None:
    chat, found = _compare(lambda dialogue: "[[B]]" if len(dialogue.turns) == 3 else "Hard to say.")
    assert [one.outcome for one in found] == ["tie", "tie"]
    assert chat.heard[-1].queries[1].startswith("Your verdict is missing. Reply with [[A]]")
    _, found = _compare(lambda dialogue: "Hard to say." if dialogue.id.endswith("ab") else "[[A]]")
    assert [(one.first, one.second, one.outcome, one.reason) for one in found] == [(None, "A", None, "no verdict")] * 2
    assert not any(one.again for one in found)


def test_a_failed_order_is_asked_for_again_with_the_other() -> None:
    def fails(dialogue: Dialogue) -> Reply | str:
        return Reply.failure("timeout") if dialogue.id.endswith("ba") else "[[A]]"

    _, found = _compare(fails)
    assert [(one.outcome, one.reason, one.again) for one in found] == [(None, "timeout", True)] * 2
    lasting = Reply.failure("too long", lasting="context full")
    _, found = _compare(lambda dialogue: lasting if dialogue.id.endswith("ba") else "[[A]]")
    assert [(one.outcome, one.lasting, one.again) for one in found] == [(None, "context full", False)] * 2


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_failed_order_counts_before_one_without_a_verdict(order: str) -> None:
    _, found = _compare(lambda one: Reply.failure("timeout") if one.id.endswith(order) else "Hard to say.")
    assert [(one.outcome, one.reason, one.again) for one in found] == [(None, "timeout", True)] * 2


def test_an_unanswered_turn_is_not_compared_and_not_lost() -> None:
    short = _played("old", "old 1", failed="does not fit")
    chat, found = _compare(lambda _: "[[C]]", NEW, short)
    assert {(one.turn, one.outcome, one.reason) for one in found} == {
        (1, "tie", None),
        (2, None, "no answer of old: does not fit"),
    }
    assert not any(one.again for one in found)
    assert len(chat.heard) == 2
    chat, found = _compare(lambda _: "[[C]]", skip=[("new", "old", "q", 1)])
    assert [one.turn for one in found] == [2]


def test_a_judge_too_small_to_follow_a_form_chooses() -> None:
    spec = SPEC.model_copy(update={"verdict": "expected", "pair_prompt": "pair-only"})
    chat, found = _compare(lambda _: Reply(text="[[B]]", stop="end", weights=(0.2, 0.7, 0.1)), spec=spec)
    assert chat.calls[0][1].choices == ("[[A]]", "[[B]]", "[[C]]")
    assert [one.place for one in found] == ["second", "second"]


def test_json_verdicts_of_pairs() -> None:
    spec = SPEC.model_copy(update={"verdict": "json", "pair_prompt": "pair-json"})
    chat, found = _compare(lambda _: '{"explanation": "Not [[A]].", "verdict": "B"}', spec=spec)
    assert [one.place for one in found] == ["second", "second"]
    assert (chat.calls[0][1].json_schema or {})["properties"]["verdict"]["enum"] == ["A", "B", "C"]
    _, found = _compare(lambda _: '{"explanation": "", "verdict": "D"}', spec=spec)
    assert [one.reason for one in found] == ["no verdict", "no verdict"]


def test_the_table_by_hand() -> None:
    given = [
        _comparison("A", "B", "s", 1),
        _comparison("A", "A", "s", 2),
        _comparison("C", "C", "t", 1),
        _comparison("B", "A", "t", 2),
        _comparison("A", None, "t", 3, reason="no verdict"),
    ]
    (row,) = table(given, Numbers(200, 0)).rows
    # 1, 0.5 | 0.5, 0: the mean is 0.5, and two sessions leave it open between 0 and 1.
    assert row == ("new against old", "0.500 [0.000, 1.000]", "25% / 50% / 25%", "25%\n1 first, 0 second", "4/5")


def test_pairs_are_of_two_models() -> None:
    assert load(DEMO, ['eval.judge.pairs=[["capo","sft"]]']).eval.judge.pairs == (("capo", "sft"),)  # type: ignore[union-attr]
    load(DEMO, ['eval.judge.pairs=[["capo","sft"]]', 'eval.history=["hidden"]'])  # over whatever history there is
    for wrong in ('[["capo","capo"]]', '[["capo","capa"]]', '[["capo"]]', '[["capo","sft"],["sft","capo"]]'):
        with pytest.raises(UserError, match="pairs"):
            load(DEMO, [f"eval.judge.pairs={wrong}"])
