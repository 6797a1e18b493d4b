"""A judge is a prompt file, a speaker and a pure parser: every turn is judged over the transcript up to it.

The GGUF speaker reads every prompt whole: it keeps its state by dialogue and by message, and here every turn is a
dialogue of its own with one message.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from parrot_lite.chat import Chat
from parrot_lite.errors import UserError
from parrot_lite.evaluate.bench import answered
from parrot_lite.evaluate.prompts import Ask, Form, Heard, OwnPrompts, Prompts, load_prompts
from parrot_lite.evaluate.records import Played, Question, transcript
from parrot_lite.evaluate.verdicts import (
    REPAIR,
    REPAIR_JSON,
    REPAIR_PAIR,
    VERDICTS,
    Call,
    Rating,
    as_they_come,
    dialogue,
    expected,
    hear,
    parse_rating,
)
from parrot_lite.recipe import Decoding, Judge, Server
from parrot_lite.store import existing_file
from parrot_lite.types import NO_ANSWER, Judgment, Reply

PROMPT = {"expected": "score", "json": "json"}


def heard(session: Played, question: Question, turn: int) -> Heard:
    """A played session up to exchange ``turn`` (from 1)."""
    told = transcript(session, turn)
    return Heard(
        category=question.category,
        queries=told.queries,
        answers=told.answers,
        references=question.references[:turn],
    )


def inputs(spec: Judge) -> dict[str, Path]:
    """The files that decide what a judge reads, by name. Raises UserError where one is missing or does not hold."""
    files = {f"prompt: {name}": path for prompts in _prompts(spec) for name, path in prompts.files.items()}
    files["prompt: repair"] = REPAIR_JSON if spec.verdict == "json" else REPAIR
    if spec.pairs and spec.verdict != "json":
        files["prompt: repair of pairs"] = REPAIR_PAIR
    if spec.references is not None:
        files["references"] = existing_file(Path(spec.references))
    return files


def _prompts(spec: Judge) -> list[Prompts]:
    return [load_prompts(spec.prompt), *([load_prompts(spec.pair_prompt, pair=True)] if spec.pairs else [])]


def check(spec: Judge, questions: Sequence[Question]) -> None:
    """Raises UserError where the prompts cannot show the benchmark's sessions or do not ask for such verdicts."""
    longest = max(len(question.queries) for question in questions)
    for prompts in _prompts(spec):
        where = ", ".join(dict.fromkeys(map(str, prompts.files.values())))
        if prompts.most_turns is not None and longest > prompts.most_turns:
            what = f"these prompts know {prompts.most_turns} turns, the benchmark has sessions of {longest}"
            raise UserError(what, where, "Take prompts of this kit")
        if spec.verdict != "written" and not (isinstance(prompts, OwnPrompts) and prompts.plain.form == Form()):
            fix = f"Set eval.judge.verdict = 'written', or another prompt, e.g. {PROMPT[spec.verdict]}"
            raise UserError(f"verdict = '{spec.verdict}' does not go with a prompt of another form", where, fix)


def with_references(questions: Sequence[Question], spec: Judge) -> list[Question]:
    """The questions as a judge is shown them: with the references of ``spec.references``, where set, and no others.

    Raises UserError where that file does not hold.
    """
    if spec.references is None:
        return list(questions)
    bare = [one.model_copy(update={"references": (None,) * len(one.queries)}) for one in questions]
    return answered(bare, Path(spec.references))


@dataclass(frozen=True)
class _Case:
    """One turn to be judged: its verdict without a score, and what to ask."""

    verdict: Judgment
    call: Call[float]


def judge(
    played: Sequence[Played],
    questions: Sequence[Question],
    chat: Chat,
    prompts: Prompts,
    spec: Judge,
    seed: int,
    lanes: tuple[int, int],
    skip: Container[object] = (),
) -> Generator[list[Judgment]]:
    """One Judgment for every turn of every played session, in groups, each as soon as it is there.

    ``lanes`` says how many groups are asked for at once, and how large they are. A turn without an answer gets its
    Judgment without a call. A text without a verdict is asked once more for the number alone. ``skip`` holds the
    (model, dialogue, turn) that are judged already. A call that failed gives a Judgment without a score whose reason is
    the call's; ``again`` tells whether to make it again.
    """
    cases: list[_Case] = []
    unanswered: list[Judgment] = []
    for question in questions:
        for session in (one for one in played if one.dialogue.id == question.id):
            for turn in range(1, len(question.queries) + 1):
                if (session.model, question.id, turn) in skip:
                    continue
                if turn > len(session.dialogue.answers):
                    verdict = _judgment(session, turn, f"{chat.name}@{prompts.name}")
                    unanswered.append(verdict.model_copy(update={"reason": f"{NO_ANSWER}: {session.failed}"}))
                else:
                    cases.append(_case(session, turn, prompts.single(heard(session, question, turn)), chat.name, spec))
    if unanswered:
        yield unanswered
    yield from as_they_come(partial(_ask, chat=chat, decoding=decoding(spec), seed=seed), cases, lanes, chat)


def decoding(spec: Judge) -> Decoding:
    """How a judge replies about a single answer."""
    return Decoding(
        temperature=0.0,
        top_p=1.0,
        max_tokens=spec.max_tokens,
        choices=VERDICTS if spec.verdict == "expected" else (),
        json_schema=Rating.model_json_schema() if spec.verdict == "json" else None,
    )


def _judgment(session: Played, turn: int, judge: str) -> Judgment:
    return Judgment(
        model=session.model, dialogue=session.dialogue.id, category=session.category, turn=turn, judge=judge
    )


def _case(session: Played, turn: int, ask: Ask, name: str, spec: Judge) -> _Case:
    def read(reply: Reply) -> float | None:
        if reply.weights is not None:
            return expected(reply.weights)
        text = reply.text or ""
        return parse_rating(text) if spec.verdict == "json" else ask.form.score(text)

    repair = REPAIR_JSON if spec.verdict == "json" else REPAIR
    told = ask.form.repair or repair.read_text(encoding="utf-8").strip()
    asked = dialogue(f"{session.model}/{session.dialogue.id}/{turn}", ask, isinstance(spec.chat, Server))
    return _Case(_judgment(session, turn, f"{name}@{ask.name}"), Call(asked, read, told))


def _ask(cases: Sequence[_Case], chat: Chat, decoding: Decoding, seed: int) -> list[Judgment]:
    found = hear([case.call for case in cases], chat, decoding, seed)
    return [
        case.verdict.model_copy(
            update={
                "score": one.value,
                "text": one.text,
                "covered": one.covered,
                "reason": one.reason,
                "lasting": one.lasting,
            }
        )
        for case, one in zip(cases, found, strict=True)
    ]
