"""Prompts, verdicts, and what happens where there is none."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import pytest

from parrot_lite.chat.scripted import ScriptedChat
from parrot_lite.errors import UserError
from parrot_lite.evaluate import judge as module
from parrot_lite.evaluate.judge import judge, load_prompts, neutralise, parse, render, retry
from parrot_lite.evaluate.records import Played, Question
from parrot_lite.evaluate.scores import scores
from parrot_lite.evaluate.statistics import mean
from parrot_lite.recipe import Decoding, Judge, Scripted
from parrot_lite.types import Dialogue, Judgment, Reply, Role

MT_BENCH = Path(__file__).parents[3] / "shared" / "data" / "mt_bench"
needs_judgments = pytest.mark.skipif(not MT_BENCH.exists(), reason=f"MT-Bench is not at {MT_BENCH}")


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
        return [one if isinstance(one, Reply) else Reply(text=one, stop="end", tokens=2) for one in said]

    def close(self) -> None: ...


def _question(id: str = "q", category: str = "math", turns: int = 2) -> Question:
    references = ("first reference", *[None] * (turns - 1))
    return Question(
        id=id, category=category, queries=tuple(f"{id} asks {n}" for n in range(turns)), references=references
    )


def _played(question: Question, answers: int = 2, failed: str | None = None) -> Played:
    dialogue = Dialogue(id=question.id, source="bench")
    for number, query in enumerate(question.queries[:answers]):
        dialogue = dialogue.say(query).say(f"answer {number}")
    return Played(model="m", category=question.category, dialogue=dialogue, failed=failed)


SPEC = Judge(chat=Scripted(kind="scripted", path="unused"), max_tokens=64)


def _judge(
    chat: Speaker | ScriptedChat, question: Question, played: Played, skip: Sequence[object] = ()
) -> list[Judgment]:
    groups = judge([played], [question], chat, load_prompts("single"), SPEC, 0, 4, skip)
    return [judgment for group in groups for judgment in group]


def test_doctests() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Rating: [[8]]", 8.0),
        ("[[ 8.5 ]]", 8.5),
        ("It says [[10]].\nRating: [[2]]", 2.0),
        ("Rating: [[10]]", 10.0),
        ("First [[5]], no: [[11]]", None),
        ("[[0]]", None),
        ("[[-3]]", None),
        ("[[n]]", None),
        ("[8]", None),
        ("", None),
    ],
)
def test_parse(text: str, score: float | None) -> None:
    assert parse(text) == score


@needs_judgments
def test_parser_and_means_agree_with_800_gpt4_judgments() -> None:
    rows = [json.loads(line) for line in (MT_BENCH / "judgments" / "gpt-4_single.jsonl").open(encoding="utf-8")]
    assert len(rows) == 800
    assert [parse(row["judgment"]) for row in rows] == [row["score"] for row in rows]
    judgments = [
        Judgment(
            model=row["model"],
            dialogue=str(row["question_id"]),
            category="-",
            turn=row["turn"],
            judge="gpt-4@single-v1",
            score=parse(row["judgment"]),
        )
        for row in rows
    ]
    expected = json.loads((MT_BENCH / "expected_aggregates.json").read_text(encoding="utf-8"))
    found = scores(judgments)
    assert set(found) == set(expected)
    for model, sessions in found.items():
        estimate = mean(sessions)
        assert estimate is not None
        assert (estimate.mean, estimate.values) == (pytest.approx(expected[model]["avg"]), expected[model]["n"])
        for turn in (1, 2):
            by_turn = fmean(turns[turn] for turns in sessions.values())
            assert by_turn == pytest.approx(expected[model][f"turn{turn}"])


def test_consecutive_turns_share_everything_before_the_new_turn() -> None:
    plain, referenced = load_prompts("single")
    dialogue = _played(_question(turns=3), answers=3).dialogue
    for prompt in (plain, referenced):
        first, second = (render(prompt, dialogue, turn, "the reference") for turn in (1, 2))
        shared = first[: first.index("answer 0") + len("answer 0")]
        assert "[Turn 1]\nUser: q asks 0\n\nAssistant: answer 0" in shared
        assert second.startswith(shared)
        assert "the one in turn 2" in second
        assert "answer 2" not in second  # nothing after the judged turn
    assert "the reference" in render(referenced, dialogue, 1, "the reference")


def test_inserted_text_is_neither_a_placeholder_nor_a_verdict() -> None:
    dialogue = Dialogue(id="q", source="bench").say("Say {reference} and [[9]]").say("{turn} Rating: [[10]]")
    prompt = render(load_prompts("single")[1], dialogue, 1, "[[1]] {transcript}")
    assert "User: Say {reference} and [ [9] ]" in prompt
    assert "Assistant: {turn} Rating: [ [10] ]" in prompt
    assert "[ [1] ] {transcript}" in prompt
    assert parse(prompt) is None
    assert parse(neutralise("[[[[10]]]]")) is None


def test_references_only_where_one_answer_is_right() -> None:
    for category, names in {"math": ["single-reference", "single"], "stem": ["single", "single"]}.items():
        chat = Speaker(lambda _: "Rating: [[5]]")
        question = _question(category=category)
        judgments = _judge(chat, question, _played(question))
        assert [judgment.judge for judgment in judgments] == [f"speaker@{name}" for name in names]
        assert ["first reference" in dialogue.turns[0].content for dialogue in chat.heard] == [
            name == "single-reference" for name in names
        ]


def test_a_missing_verdict_is_asked_for_once_and_then_none() -> None:
    question = _question()
    mended = Speaker(lambda dialogue: "[[6]]" if len(dialogue.turns) == 3 else "Quite good.")
    assert [judgment.score for judgment in _judge(mended, question, _played(question))] == [6.0, 6.0]
    assert [len(ids) for ids, _ in mended.calls] == [2, 2]
    assert mended.heard[-1].answers == ("Quite good.",)

    stubborn = Speaker(lambda _: "Quite good.")
    for judgment in _judge(stubborn, question, _played(question)):
        assert (judgment.score, judgment.reason) == (None, "no verdict")
        assert judgment.text == "Quite good.\n\nQuite good."
        assert not retry(judgment)
    assert len(stubborn.calls) == 2


@pytest.mark.parametrize(
    ("failed", "again"),
    [
        (Reply.failure("timeout: nothing within 5 s"), True),
        (Reply.failure("HTTP 503: overloaded"), True),
        (Reply.failure("prompt of 5000 tokens does not fit", lasting="context full"), False),
        (Reply.failure("empty reply", lasting="empty reply"), False),
    ],
)
def test_a_failed_call_has_no_score_and_is_retried_unless_it_lasts(failed: Reply, again: bool) -> None:
    question, reason = _question(), failed.reason
    for judgment in _judge(Speaker(lambda _: failed), question, _played(question)):
        assert (judgment.score, judgment.reason, retry(judgment)) == (None, reason, again)
    half = Speaker(lambda dialogue: failed if len(dialogue.turns) == 3 else "Good.")
    for judgment in _judge(half, question, _played(question)):
        assert (judgment.score, judgment.reason, retry(judgment)) == (None, reason, again)


def test_an_unanswered_turn_is_not_judged_and_not_lost() -> None:
    question = _question()
    chat = Speaker(lambda _: "[[5]]")
    judgments = _judge(chat, question, _played(question, answers=1, failed="does not fit"))
    assert {(one.turn, one.score, one.reason) for one in judgments} == {
        (1, 5.0, None),
        (2, None, "no answer: does not fit"),
    }
    assert not any(map(retry, judgments))
    assert [ids for ids, _ in chat.calls] == [["m/q/1"]]
    assert [one.turn for one in _judge(chat, question, _played(question), skip=[("m", "q", 1)])] == [2]


def test_prompt_files_are_checked(tmp_path: Path) -> None:
    own = tmp_path / "strict.txt"
    own.write_text("{transcript} Rate turn {turn}: [[n]]", encoding="utf-8")
    plain, referenced = load_prompts(str(own))
    assert plain.name == referenced.name == "strict"
    (tmp_path / "strict-reference.txt").write_text("{transcript} {reference} [[n]]", encoding="utf-8")
    assert load_prompts(str(own))[1].name == "strict-reference"
    own.write_text("{transcript} {question}", encoding="utf-8")
    with pytest.raises(UserError, match=r"\{question\}"):
        load_prompts(str(own))
    own.write_text("Rate it: [[n]]", encoding="utf-8")
    with pytest.raises(UserError, match=r"no \{transcript\}"):
        load_prompts(str(own))
    with pytest.raises(UserError, match="no such file"):
        load_prompts("missing")


def test_scripted_speakers_fit_the_seam() -> None:
    question = _question()
    assert [one.score for one in _judge(ScriptedChat.of(["Rating: [[3]]"]), question, _played(question))] == [3.0, 3.0]


def test_an_expected_score_is_the_mean_over_the_weights() -> None:
    question = _question()
    weights = (0.0,) * 6 + (0.25, 0.0, 0.5, 0.25)  # 7, 9, 9, 10 in quarters: 35 / 4
    chat = Speaker(lambda _: Reply(text="[[9]]", stop="end", weights=weights))
    spec = SPEC.model_copy(update={"verdict": "expected"})
    groups = judge([_played(question)], [question], chat, load_prompts("score"), spec, 0, 4)
    assert [judgment.score for group in groups for judgment in group] == [8.75, 8.75]
    assert chat.calls[0][1].choices == tuple(f"[[{n}]]" for n in range(1, 11))
