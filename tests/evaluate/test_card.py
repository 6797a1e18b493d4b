"""A judge's card: what is asked of a judge, and what each kind of bad judge fails."""

from __future__ import annotations

import doctest
from collections.abc import Callable, Iterable

import pytest

from parrot_lite.evaluate import agreement
from parrot_lite.evaluate.agreement import LabelledAnswer, table
from parrot_lite.evaluate.card import ALTERATIONS, NULL, PADDING, Card, Item, altered, card, draw
from parrot_lite.evaluate.estimates import Numbers
from parrot_lite.evaluate.records import Played, Question
from parrot_lite.types import Dialogue, Judgment, Turn

NUMBERS = Numbers(500, 1)


def _session(id: str, turns: int = 3) -> tuple[Played, Question]:
    dialogue = Dialogue(id=id, source="bench")
    for turn in range(1, turns + 1):
        dialogue = dialogue.say(f"{id} query {turn}").say(f"{id} answer {turn}")
    queries = dialogue.queries
    question = Question(id=id, category="math", queries=queries, references=(None,) * turns)
    return Played(model="m", category="math", dialogue=dialogue), question


def _items(sessions: int, n: int, turns: int = 3) -> list[Item]:
    played, questions = zip(*(_session(str(at), turns) for at in range(sessions)), strict=True)
    return draw(played, questions, n, 0)


def test_doctests() -> None:
    assert doctest.testmod(agreement).failed == 0


def test_draws_one_turn_of_each_session_before_a_second() -> None:
    items = _items(4, 6)
    assert sorted(item.question.id for item in items[:4]) == ["0", "1", "2", "3"]
    assert len({(item.question.id, item.turn) for item in items}) == 6
    assert all(item.turn >= 2 for item in items)
    assert len(_items(4, 100)) == 8  # two later turns of each, and no more
    assert items == _items(4, 6)


def test_a_turn_that_repeats_the_one_before_is_not_drawn() -> None:
    played, question = _session("1", 2)
    same = Dialogue(id="1", source="bench").say("a").say("b").say("c").say("b")
    assert draw([played.model_copy(update={"dialogue": same})], [question], 5, 0) == []


def test_alterations_change_the_last_answer_alone() -> None:
    items = _items(3, 3)
    by_name = {name: altered(items, name) for name in ALTERATIONS}
    for name in ("null", "swapped", "stale", "padded"):
        for item, other in zip(items, by_name[name], strict=True):
            assert other.dialogue.turns[:-1] == item.dialogue.turns[:-1], name
    assert {item.answer for item in by_name["null"]} == {NULL}
    assert by_name["as it came"] == items
    for item, stale, padded, swapped in zip(
        items, by_name["stale"], by_name["padded"], by_name["swapped"], strict=True
    ):
        assert stale.answer == item.dialogue.answers[-2]
        assert padded.answer == f"{item.answer}\n\n{PADDING}"
        assert swapped.answer != item.answer
        assert swapped.answer in {other.answer for other in items if other.question.id != item.question.id}


def test_a_history_is_swapped_or_hidden_before_the_same_query_and_answer() -> None:
    items = _items(3, 6)
    for item, swapped, hidden in zip(
        items, altered(items, "history swapped"), altered(items, "history hidden"), strict=True
    ):
        assert swapped.dialogue.turns[-2:] == hidden.dialogue.turns == item.dialogue.turns[-2:]
        assert 2 <= swapped.turn <= item.turn
        (other,) = {turn.content.split()[0] for turn in swapped.dialogue.turns[:-2]}
        assert other != item.question.id
        assert swapped.question.queries == swapped.dialogue.queries
        assert len(swapped.question.references) == swapped.turn


def test_the_reference_of_a_turn_stays_with_it() -> None:
    played, question = _session("1")
    referenced = question.model_copy(update={"references": ("one", "two", "three")})
    (item,) = [one for one in draw([played], [referenced], 2, 0) if one.turn == 3]
    other = Dialogue(id="2", source="bench").say("a").say("b")
    assert item.behind(other).question.references == (None, "three")


def test_swapping_within_one_session_is_refused() -> None:
    with pytest.raises(ValueError, match="of one session"):
        altered(_items(1, 2), "swapped")


Score = Callable[[str, int, int], float | None]  # alteration, session, turn -> score


def _card(score: Score, sessions: int = 12) -> Card:
    names = [*ALTERATIONS, *(f"again {n}" for n in range(2, 6))]
    judgments = [
        Judgment(model=name, dialogue=str(s), category="math", turn=t, judge="j@p", score=score(name, s, t))
        for name in names
        for s in range(sessions)
        for t in (2, 3)
    ]
    lengths = {(str(s), t): 10 * s + t for s in range(sessions) for t in (2, 3)}
    return card("j@p", judgments, lengths, NUMBERS)


def _good(name: str, s: int, t: int) -> float:
    came = 5 + (s + t) % 3
    return {"null": 1.0, "swapped": 2.0, "stale": came - 2.0, "history swapped": came - 3.0}.get(name, float(came))


def _failed(found: Card) -> set[str]:
    return {one.what for one in found.findings if one.holds is False}


def test_a_judge_that_does_as_it_must_is_fit() -> None:
    found = _card(_good)
    assert found.unfit == ()
    assert found.red_line is None
    assert (found.items, found.sessions) == (24, 12)
    rows = {row[0]: row for row in found.table().rows}
    assert rows["gives a verdict"][1:] == ("264/264", "at least 95%", "yes")
    # (5 + 6 + 7) / 3 - 1 = 5, in every third of the turns one less or more.
    assert rows["punishes an answer that says nothing"][1].startswith("drop +5.00 [")
    assert rows["punishes an answer that says nothing"][1].endswith("lower in 100%")
    assert rows["punishes the answer of the turn before, given again"][1].startswith("drop +2.00 [+2.00, +2.00]")
    assert rows["is not won by padding"][1] == "gain +0.00 [+0.00, +0.00]"
    assert rows["the same verdict 5 times"][1] == "SD 0.00, not the same in 0/24"


def test_a_judge_that_always_says_the_same_is_not() -> None:
    found = _card(lambda name, s, t: 7.0)
    assert _failed(found) == {
        "punishes an answer that says nothing",
        "punishes an answer from another session",
        "punishes the answer of the turn before, given again",
        "punishes the same answer behind another session's history",
    }
    assert found.red_line is not None
    assert found.red_line.startswith(
        "j@p is not fit for this comparison. Its card says NO to: punishes an answer that says nothing;"
    )
    rows = {row[0]: row for row in found.table().rows}
    assert rows["punishes an answer from another session"][1].endswith("lower in 50%")  # ties count as half


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({"padded": 1.0}, "is not won by padding"),
        ({"stale": 2.0}, "punishes the answer of the turn before, given again"),
        ({"swapped": 4.0}, "punishes an answer from another session"),
        ({"history swapped": 3.0}, "punishes the same answer behind another session's history"),
    ],
)
def test_one_weakness_is_one_finding(change: dict[str, float], fails: str) -> None:
    found = _card(lambda name, s, t: min(10.0, _good(name, s, t) + change.get(name, 0.0) * (1 + s % 2)))
    assert _failed(found) == {fails}


def test_repeats_and_a_hidden_history_by_hand() -> None:
    """A judge that says 7 or 5 in turn: each repeat is 2 away from the verdict before, a hidden history 3."""

    def wavers(name: str, s: int, t: int) -> float:
        if name.startswith("again"):
            return 7.0 if name in ("again 3", "again 5") else 5.0
        return {"as it came": 7.0, "history hidden": 4.0}.get(name, 1.0)

    rows = {row[0]: row for row in _card(wavers).table().rows}
    # Two of the four repeats are 2 away, one on average; the history's 3 is 2 more.
    assert rows["history hidden"][1] == "moves a score by 2.00 [2.00, 2.00] more than a repeat"
    # 7, 5, 7, 5, 7 about 6.2: (3 x 0.64 + 2 x 1.44) / 4 = 1.2
    assert rows["the same verdict 5 times"][1] == "SD 1.10, not the same in 24/24"


def test_missing_verdicts_are_counted_and_not_scored() -> None:
    found = _card(lambda name, s, t: None if s < 6 else _good(name, s, t))
    rows = {row[0]: row for row in found.table().rows}
    assert rows["gives a verdict"][1:] == ("132/264", "at least 95%", "NO")
    assert _failed(found) == {"gives a verdict"}
    silent = _card(lambda name, s, t: None)
    assert {one.holds for one in silent.findings[1:]} == {None}


def _labelled(id: str, score: float) -> LabelledAnswer:
    turns = (Turn(role="user", content="q"), Turn(role="assistant", content=f"a {score}"))
    return LabelledAnswer(id=id, category="math", turns=turns, score=score)


def _rows(pairs: Iterable[tuple[str, float, float | None]]) -> dict[str, str]:
    listed = list(pairs)
    found = table("j", [_labelled(id, label) for id, label, _ in listed], [score for *_, score in listed])
    return dict(found.rows)  # type: ignore[arg-type]


def test_agreement_by_hand() -> None:
    rows = _rows([("1", 2, 3), ("1", 4, 5), ("1", 4, 9), ("2", 6, 4), ("2", 8, 4), ("3", 1, None)])
    assert rows["answers with both"] == "5/6"
    # Query 1: (2,4) twice in order, (4,4) is no pair. Query 2: a tie. (1 + 1 + 0.5) / 3.
    assert rows["same order of two answers to one query"].startswith("0.83 [")
    assert rows["judge minus label"].startswith("+0.20 [")  # (1 + 1 + 5 - 2 - 4) / 5
    assert rows["distance from the label"] == "2.60"


def test_answers_to_two_queries_of_one_session_are_no_pair() -> None:
    early = _labelled("1", 2)
    more = (Turn(role="user", content="q2"), Turn(role="assistant", content="a2"))
    later = early.model_copy(update={"turns": (*early.turns, *more), "score": 8.0})
    assert dict(table("j", [early, later], [9.0, 1.0]).rows)["same order of two answers to one query"] == "-"


def test_a_label_belongs_to_an_answer() -> None:
    with pytest.raises(ValueError, match="must end with the answer"):
        LabelledAnswer(id="1", category="math", turns=(Turn(role="user", content="q"),), score=3)
