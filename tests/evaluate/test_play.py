"""Playing a benchmark: what a model is shown under each history, and what is kept of it."""

from __future__ import annotations

import doctest
import threading
from collections.abc import Callable, Sequence

import pytest
from pydantic import ValidationError

from parrot_lite.evaluate import records
from parrot_lite.evaluate.bench import playable
from parrot_lite.evaluate.judge import heard
from parrot_lite.evaluate.play import play
from parrot_lite.evaluate.prompts import load_prompts
from parrot_lite.evaluate.records import Played, Question, transcript
from parrot_lite.recipe import Decoding, History, Local, Scripted, Server
from parrot_lite.types import Dialogue, Reply, Role

ONE = Scripted(kind="scripted", path="none")


class Speaker:
    """Says what a function makes of a dialogue, and keeps what it was asked."""

    name = "speaker"

    def __init__(self, say: Callable[[Dialogue], Reply | str]) -> None:
        self.say = say
        self.calls: list[tuple[list[str], Decoding]] = []
        self.heard: list[Dialogue] = []

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        self.calls.append(([dialogue.id for dialogue in dialogues], decoding))
        self.heard += dialogues
        said = [self.say(dialogue) for dialogue in dialogues]
        return [one if isinstance(one, Reply) else Reply(text=one, stop="end", tokens=2, seconds=0.5) for one in said]

    def close(self) -> None: ...


def _question(id: str = "q", category: str = "math", turns: int = 3, references: Sequence[str | None] = ()) -> Question:
    return Question(
        id=id,
        category=category,
        queries=tuple(f"{id} asks {n}" for n in range(1, turns + 1)),
        references=(*references, *[None] * (turns - len(references))),
    )


def _echo(dialogue: Dialogue) -> str:
    return f"to {dialogue.queries[-1]} of {len(dialogue.queries)}"


def _said(dialogue: Dialogue) -> list[str]:
    return [turn.content for turn in dialogue.turns]


def test_doctests() -> None:
    assert doctest.testmod(records).failed == 0


def test_own_answers_and_fastchats_temperatures() -> None:
    questions = [_question(category, category, 2) for category in ("writing", "math", "stem", "coding", "gossip")]
    chat = Speaker(lambda dialogue: f"{dialogue.id} says {len(dialogue.turns)}")
    played = {one.category: one for one in play("m", chat, Local(kind="local", batch=2), questions, 32, 0)}
    assert played["math"].dialogue.answers == ("math says 1", "math says 3")
    assert (played["math"].model, played["math"].history, played["math"].fed) == ("m", "own", ())
    assert (played["math"].tokens, played["math"].seconds, played["math"].failed) == (4, 1.0, None)
    assert [(ids, decoding.temperature) for ids, decoding in chat.calls[::2]] == [
        (["writing", "gossip"], 0.7),
        (["math", "coding"], 0.0),
        (["stem"], 0.1),
    ]
    assert {(decoding.top_p, decoding.max_tokens) for _, decoding in chat.calls} == {(1.0, 32)}


def test_a_batch_is_filled_up_as_sessions_end() -> None:
    questions = [_question(id, "math", turns) for id, turns in (("a", 3), ("b", 1), ("c", 2), ("d", 1))]
    chat = Speaker(_echo)
    assert len(list(play("m", chat, Local(kind="local", batch=2), questions, 32, 0))) == 4
    assert [sorted(ids) for ids, _ in chat.calls] == [["a", "b"], ["a", "c"], ["a", "c"], ["d"]]


def test_one_session_ends_before_the_next_begins_where_nothing_is_gained_by_more() -> None:
    chat = Speaker(_echo)
    done = []
    for one in play("m", chat, ONE, [_question("a"), _question("b")], 32, 0):
        done.append((one.dialogue.id, len(chat.calls)))
    assert done == [("a", 3), ("b", 6)]


def test_a_slow_session_holds_no_other() -> None:
    last = threading.Event()

    def say(dialogue: Dialogue) -> str:
        if dialogue.id == "slow":
            assert last.wait(20)
        if dialogue.id == "4" and len(dialogue.turns) == 5:
            last.set()
        return "Yes."

    server = Server(kind="server", base_url="http://nowhere/v1", model="m", concurrency=2)
    questions = [_question("slow"), *(_question(str(number)) for number in range(5))]
    ended = [one.dialogue.id for one in play("m", Speaker(say), server, questions, 32, 0)]
    assert sorted(ended) == ["0", "1", "2", "3", "4", "slow"]
    assert ended[:4] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_failed_reply_stops_that_session_alone(blank: str) -> None:
    def say(dialogue: Dialogue) -> Reply | str:
        if len(dialogue.turns) < 3 or dialogue.id == "c":
            return "fine"
        return Reply.failure("timeout") if dialogue.id == "a" else blank

    questions = [_question(id, "math", turns) for id, turns in (("a", 4), ("b", 4), ("c", 3))]
    played = {one.dialogue.id: one for one in play("m", Speaker(say), Local(kind="local", batch=3), questions, 32, 0)}
    assert {id: (one.failed, one.lasting, len(one.dialogue.turns)) for id, one in played.items()} == {
        "a": ("timeout", None, 2),
        "b": ("empty reply", "empty reply", 2),
        "c": (None, None, 6),
    }


def test_the_reference_history_is_fed_whatever_the_model_answers() -> None:
    question = _question(references=["R1", "R2"])
    chat = Speaker(_echo)
    (played,) = play("m", chat, ONE, [question], 32, 0, "reference")
    assert [_said(dialogue) for dialogue in chat.heard] == [
        ["q asks 1"],
        ["q asks 1", "R1", "q asks 2"],
        ["q asks 1", "R1", "q asks 2", "R2", "q asks 3"],
    ]
    assert len({dialogue.id for dialogue in chat.heard}) == 3
    assert (played.model, played.history, played.fed) == ("m (reference history)", "reference", ("R1", "R2"))
    assert played.dialogue.id == "q"
    assert played.dialogue.answers == ("to q asks 1 of 1", "to q asks 2 of 2", "to q asks 3 of 3")
    assert _said(transcript(played, 1)) == ["q asks 1", "to q asks 1 of 1"]
    assert _said(transcript(played, 3)) == ["q asks 1", "R1", "q asks 2", "R2", "q asks 3", "to q asks 3 of 3"]
    shown = load_prompts("single").single(heard(played, question, 2)).text
    assert "R1" in shown
    assert "to q asks 2 of 2" in shown
    assert "to q asks 1" not in shown


def test_a_hidden_history_shows_the_query_alone() -> None:
    chat = Speaker(_echo)
    (played,) = play("m", chat, Local(kind="local", batch=3), [_question()], 32, 0, "hidden")
    assert [_said(dialogue) for dialogue in chat.heard] == [["q asks 1"], ["q asks 2"], ["q asks 3"]]
    assert [len(ids) for ids, _ in chat.calls] == [3]  # turns that need no answer go together
    assert (played.model, played.history) == ("m (history hidden)", "hidden")
    assert _said(transcript(played, 2)) == ["q asks 1", "to q asks 1 of 1", "q asks 2", "to q asks 2 of 1"]
    assert transcript(played, 3) == played.dialogue


def test_without_history_too_a_session_ends_before_its_first_failure() -> None:
    chat = Speaker(lambda dialogue: Reply.failure("no") if "2" in dialogue.queries[-1] else "ok")
    (played,) = play("m", chat, ONE, [_question()], 9, 0, "hidden")
    assert (played.failed, played.dialogue.answers, played.tokens) == ("no", ("ok",), 2)
    with pytest.raises(IndexError, match="no turn 2"):
        transcript(played, 2)


@pytest.mark.parametrize(("history", "count"), [("own", 3), ("hidden", 3), ("reference", 2)])
def test_a_reference_history_needs_an_answer_to_each_turn_but_the_last(history: History, count: int) -> None:
    questions = [_question(references=references) for references in (["a", "b"], ["a", None, "c"], ["a", "b", "c"])]
    assert len(playable(questions, history)) == count


def test_a_record_says_which_history_it_has() -> None:
    dialogue = Dialogue(id="q", source="bench").say("a").say("b").say("c").say("d")
    with pytest.raises(ValidationError, match="only a reference history is fed"):
        Played(model="m", category="c", dialogue=dialogue, fed=("x",))
    with pytest.raises(ValidationError, match="before the last"):
        Played(model="m", category="c", dialogue=dialogue, history="reference")
    own = Played(model="m", category="c", dialogue=dialogue)
    assert Played.model_validate_json(own.model_dump_json(exclude={"history", "fed"})) == own  # as written before
