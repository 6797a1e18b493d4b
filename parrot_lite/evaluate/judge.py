"""A judge is a prompt file, a speaker and a pure parser: every turn is judged over the transcript up to it.

The prompt lays the transcript first and the instruction last, so that the prompts of one session's turns share their
beginning. A server with a prefix cache need not read that again. The GGUF speaker reads every prompt whole: it keeps
its state by dialogue and by message, and here every turn is a dialogue of its own with one message.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from parrot_lite.chat import Chat
from parrot_lite.errors import UserError
from parrot_lite.evaluate.records import Played, Question, transcript
from parrot_lite.recipe import Decoding, Judge
from parrot_lite.store import existing_file
from parrot_lite.types import Dialogue, Judgment, Reply, Turn

PROMPTS = Path(__file__).parents[1] / "data" / "prompts"
REPAIR = PROMPTS / "judge-repair.txt"
REFERENCED = frozenset({"math", "reasoning", "coding", "extraction"})  # where one answer is right
VERDICTS = tuple(f"[[{score}]]" for score in range(1, 11))
NO_VERDICT = "no verdict"
NO_ANSWER = "no answer"

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_KNOWN = {"transcript", "turn", "reference"}
_VERDICT = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")


def parse(text: str) -> float | None:
    """The last ``[[n]]`` of a judge's text; None where there is none, or where it lies outside 1 to 10.

    >>> parse("The answer claims [[10]] for itself. Rating: [[4]]")
    4.0
    >>> parse("Rating: [[7.5]]")
    7.5
    >>> parse("Rating: [[0]]") is None and parse("Rating: 7") is None
    True
    """
    found = _VERDICT.findall(text)
    if not found or not 1 <= float(found[-1]) <= 10:
        return None
    return float(found[-1])


def expected(weights: Sequence[float]) -> float:
    """The mean of 1 to 10 under the judge's probabilities of ``VERDICTS``, which add up to 1.

    >>> expected([0, 0, 0, 0.5, 0, 0.5, 0, 0, 0, 0])
    5.0
    """
    return sum(score * weight for score, weight in enumerate(weights, 1))


def neutralise(text: str) -> str:
    """``text`` without verdict delimiters, so that a judge who quotes it gives no verdict by that.

    >>> neutralise("[[10]] and [[[1, 2], [3, 4]]]")
    '[ [10] ] and [ [ [1, 2], [3, 4] ] ]'
    """
    return re.sub(r"\](?=\])", "] ", re.sub(r"\[(?=\[)", "[ ", text))


def fill(template: str, values: dict[str, str]) -> str:
    """The template with its ``{placeholders}`` replaced in one pass: braces in what is inserted stay as they are.

    >>> fill("{turn}: {transcript}", {"turn": "2", "transcript": "print({turn})"})
    '2: print({turn})'
    """
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


@dataclass(frozen=True)
class Prompt:
    """A prompt file. ``name`` stands behind the @ of the judge's name."""

    name: str
    text: str
    path: Path


def load_prompts(prompt: str) -> tuple[Prompt, Prompt]:
    """The prompt that a recipe names, and the one for turns with a reference answer.

    A name means ``data/prompts/judge-NAME.txt``, anything with a suffix a file. The second is ``...-reference.txt``
    beside the first, or the first itself where there is none. Raises UserError where a file is missing or its
    placeholders do not hold.
    """
    path = Path(prompt) if Path(prompt).suffix else PROMPTS / f"judge-{prompt}.txt"
    name = path.stem.removeprefix("judge-")
    beside = path.with_stem(f"{path.stem}-reference")
    plain = _prompt(name, existing_file(path))
    return plain, _prompt(f"{name}-reference", beside) if beside.exists() else plain


def _prompt(name: str, path: Path) -> Prompt:
    text = path.read_text(encoding="utf-8").strip()
    names = set(_PLACEHOLDER.findall(text))
    if names - _KNOWN or "transcript" not in names:
        wrong = ", ".join(sorted(f"{{{one}}}" for one in names - _KNOWN)) or "no {transcript}"
        raise UserError(f"the judge prompt has {wrong}", str(path), "Known: {transcript}, {turn}, {reference}")
    return Prompt(name, text, path)


def render(prompt: Prompt, dialogue: Dialogue, turn: int, reference: str | None) -> str:
    """What the judge reads for exchange ``turn`` (from 1) of a session."""
    exchanges = zip(dialogue.queries[:turn], dialogue.answers[:turn], strict=True)
    transcript = "\n\n".join(
        f"[Turn {number}]\nUser: {neutralise(query)}\n\nAssistant: {neutralise(answer)}"
        for number, (query, answer) in enumerate(exchanges, 1)
    )
    values = {"transcript": transcript, "turn": str(turn), "reference": neutralise(reference or "")}
    return fill(prompt.text, values)


@dataclass(frozen=True)
class _Case:
    """One turn to be judged: its verdict without a score, and what to ask."""

    verdict: Judgment
    ask: Dialogue

    def settle(self, score: float | None, text: str | None, reason: str | None) -> Judgment:
        return self.verdict.model_copy(update={"score": score, "text": text, "reason": reason})

    def unheard(self, reply: Reply, text: str | None) -> Judgment:
        return self.verdict.model_copy(update={"text": text, "reason": reply.reason, "lasting": reply.lasting})


def judge(
    played: Sequence[Played],
    questions: Sequence[Question],
    chat: Chat,
    prompts: tuple[Prompt, Prompt],
    spec: Judge,
    seed: int,
    width: int,
    skip: Container[object] = (),
) -> Iterator[list[Judgment]]:
    """One Judgment for every turn of every played session, in groups of ``width``, by session and then by turn.

    A turn without an answer gets its Judgment without a call. A text without a verdict is asked once more for the
    number alone. ``skip`` holds the (model, dialogue, turn) that are judged already. A call that failed gives a
    Judgment without a score whose reason is the call's; ``retry`` tells whether to make it again.
    """
    decoding = Decoding(
        temperature=0.0, top_p=1.0, max_tokens=spec.max_tokens, choices=VERDICTS if spec.verdict == "expected" else ()
    )
    cases: list[_Case] = []
    unanswered: list[Judgment] = []
    for question in questions:
        for session in (one for one in played if one.dialogue.id == question.id):
            for turn in range(1, len(question.queries) + 1):
                if (session.model, question.id, turn) in skip:
                    continue
                if turn > len(session.dialogue.answers):
                    unanswered.append(_no_answer(session, turn, f"{chat.name}@{prompts[0].name}"))
                else:
                    cases.append(_case(session, question, turn, chat.name, prompts))
    if unanswered:
        yield unanswered
    for start in range(0, len(cases), width):
        yield _ask(cases[start : start + width], chat, decoding, seed)


def retry(judgment: Judgment) -> bool:
    """Whether a verdict is missing for a reason that may be gone next time."""
    if judgment.score is not None or judgment.reason is None:
        return False
    return not (judgment.reason.startswith((NO_VERDICT, NO_ANSWER)) or judgment.lasting)


def _no_answer(session: Played, turn: int, judge: str) -> Judgment:
    return Judgment(
        model=session.model,
        dialogue=session.dialogue.id,
        category=session.category,
        turn=turn,
        judge=judge,
        reason=f"{NO_ANSWER}: {session.failed}",
    )


def _case(session: Played, question: Question, turn: int, name: str, prompts: tuple[Prompt, Prompt]) -> _Case:
    reference = question.references[turn - 1] if question.category in REFERENCED else None
    prompt = prompts[0] if reference is None else prompts[1]
    text = render(prompt, transcript(session, turn), turn, reference)
    return _Case(
        verdict=Judgment(
            model=session.model,
            dialogue=session.dialogue.id,
            category=session.category,
            turn=turn,
            judge=f"{name}@{prompt.name}",
        ),
        ask=Dialogue(
            id=f"{session.model}/{session.dialogue.id}/{turn}",
            source="judge",
            turns=(Turn(role="user", content=text.strip()),),
        ),
    )


def _ask(cases: Sequence[_Case], chat: Chat, decoding: Decoding, seed: int) -> list[Judgment]:
    settled: dict[int, Judgment] = {}
    again: dict[int, Dialogue] = {}
    repair = REPAIR.read_text(encoding="utf-8").strip()
    for index, reply in enumerate(chat.reply([case.ask for case in cases], "assistant", decoding, seed)):
        if reply.text is None:
            settled[index] = cases[index].unheard(reply, None)
        elif reply.weights is not None:
            settled[index] = cases[index].settle(expected(reply.weights), reply.text, None)
        elif (score := parse(reply.text)) is not None:
            settled[index] = cases[index].settle(score, reply.text, None)
        elif reply.text.strip():
            again[index] = cases[index].ask.say(reply.text).say(repair)
        else:
            settled[index] = cases[index].settle(None, None, f"{NO_VERDICT}: the judge wrote nothing")
    if again:
        replies = chat.reply(list(again.values()), "assistant", decoding, seed)
        for (index, dialogue), reply in zip(again.items(), replies, strict=True):
            first = dialogue.answers[0]
            if reply.text is None:
                settled[index] = cases[index].unheard(reply, first)
            else:
                score = parse(reply.text)
                text = f"{first}\n\n{reply.text}"
                settled[index] = cases[index].settle(score, text, None if score is not None else NO_VERDICT)
    return [settled[index] for index in range(len(cases))]
