"""Playing a benchmark: each query is answered over the model's own earlier answers, never over a gold history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from parrot_lite.chat import Chat
from parrot_lite.evaluate.records import Played, Question
from parrot_lite.recipe import ChatSpec, Decoding, Gguf, Local, Server
from parrot_lite.types import Dialogue, Lasting, Reply

# FastChat's temperature_config (fastchat/llm_judge/common.py).
TEMPERATURE = {
    "writing": 0.7,
    "roleplay": 0.7,
    "stem": 0.1,
    "humanities": 0.1,
    "math": 0.0,
    "reasoning": 0.0,
    "coding": 0.0,
    "extraction": 0.0,
}
ELSEWHERE = 0.7


def in_flight(spec: ChatSpec) -> int:
    """How many dialogues a speaker works on together.

    One where nothing is gained by more: each finished session is then safe on disk before the next one starts.
    """
    match spec:
        case Server():
            return spec.concurrency
        case Gguf():
            return spec.parallel
        case Local():
            return spec.batch
        case _:
            return 1


@dataclass
class _Session:
    question: Question
    dialogue: Dialogue
    replies: list[Reply] = field(default_factory=list)
    failed: str | None = None
    lasting: Lasting | None = None

    def hear(self, reply: Reply) -> None:
        """Take the answer into the dialogue, or the reason why there is none: a failure never becomes a turn."""
        self.replies.append(reply)
        if reply.text is None:
            self.failed, self.lasting = reply.reason, reply.lasting
        elif not reply.text.strip():
            self.failed = self.lasting = "empty reply"
        else:
            self.dialogue = self.dialogue.say(reply.text)

    def record(self, model: str) -> Played:
        counts = [reply.tokens for reply in self.replies if reply.text is not None]
        return Played(
            model=model,
            category=self.question.category,
            dialogue=self.dialogue.complete(),
            failed=self.failed,
            lasting=self.lasting,
            tokens=None if None in counts else sum(count for count in counts if count is not None),
            seconds=sum(reply.seconds for reply in self.replies),
        )


def play(
    model: str, chat: Chat, questions: Sequence[Question], max_tokens: int, seed: int, width: int
) -> Iterator[list[Played]]:
    """Play the sessions, ``width`` of them in lockstep; yields each such group when it is through.

    A group shares one temperature, by category as in FastChat, and top-p is 1 as there. A session whose reply fails
    stops at the turns that it has, with ``failed`` set.
    """
    by_temperature: dict[float, list[Question]] = {}
    for question in questions:
        by_temperature.setdefault(TEMPERATURE.get(question.category, ELSEWHERE), []).append(question)
    for temperature, group in by_temperature.items():
        decoding = Decoding(temperature=temperature, top_p=1.0, max_tokens=max_tokens)
        for start in range(0, len(group), width):
            yield _lockstep(model, chat, group[start : start + width], decoding, seed)


def _lockstep(model: str, chat: Chat, questions: Sequence[Question], decoding: Decoding, seed: int) -> list[Played]:
    sessions = [_Session(question, Dialogue(id=question.id, source="bench")) for question in questions]
    for turn in range(max(len(question.queries) for question in questions)):
        live = [session for session in sessions if session.failed is None and turn < len(session.question.queries)]
        if not live:
            break
        for session in live:
            session.dialogue = session.dialogue.say(session.question.queries[turn])
        replies = chat.reply([session.dialogue for session in live], "assistant", decoding, seed)
        for session, reply in zip(live, replies, strict=True):
            session.hear(reply)
    return [session.record(model) for session in sessions]
