"""Playing a benchmark: each query is answered over the model's own earlier answers, or over another history.

Over its own answers a model's mistakes add up, as they do in use. The benchmark's answers as history isolate one turn;
no history at all is the control that shows what an answer owes to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from parrot_lite.chat import Chat, lanes
from parrot_lite.chat.calls import Calls, Line, Speaker
from parrot_lite.evaluate.records import Played, Question, player
from parrot_lite.recipe import ChatSpec, Decoding, Gguf, History, Local, Server
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
    history: History
    replies: dict[int, Reply] = field(default_factory=dict)  # by turn

    def begin(self) -> list[tuple[int, Dialogue]]:
        """What can be asked at once: where no answer enters a history, every turn."""
        last = 1 if self.history == "own" else len(self.question.queries)
        return [(turn, self._context(turn)) for turn in range(1, last + 1)]

    def hear(self, turn: int, reply: Reply) -> list[tuple[int, Dialogue]]:
        """Take an answer; what can be asked now. A failure never becomes a turn, so nothing follows it."""
        self.replies[turn] = reply
        if self.history != "own" or _failure(reply) is not None or turn == len(self.question.queries):
            return []
        return [(turn + 1, self._context(turn + 1))]

    @property
    def over(self) -> bool:
        """Whether nothing more will be heard."""
        if self.history == "own" and any(_failure(reply) is not None for reply in self.replies.values()):
            return True
        return len(self.replies) == len(self.question.queries)

    def _context(self, turn: int) -> Dialogue:
        # Turns that are asked side by side need ids of their own: speakers keep what they have read by it.
        name = self.question.id if self.history == "own" else f"{self.question.id}/{turn}"
        dialogue = Dialogue(id=name, source="bench")
        if self.history != "hidden":
            for earlier in range(1, turn):
                own = self.replies[earlier].text if self.history == "own" else self.question.references[earlier - 1]
                dialogue = dialogue.say(self.question.queries[earlier - 1]).say(own or "")
        return dialogue.say(self.question.queries[turn - 1])

    def record(self, model: str) -> Played:
        dialogue = Dialogue(id=self.question.id, source="bench")
        counts: list[int | None] = []
        failed: tuple[str, Lasting | None] | None = None
        for turn, query in enumerate(self.question.queries, 1):
            reply = self.replies[turn]
            if (failed := _failure(reply)) is not None:
                break
            dialogue = dialogue.say(query).say(reply.text or "")
            counts.append(reply.tokens)
        fed = self.question.references[:-1] if self.history == "reference" else ()
        return Played(
            model=player(model, self.history),
            category=self.question.category,
            dialogue=dialogue,
            history=self.history,
            fed=tuple(text for text in fed if text is not None),
            failed=failed[0] if failed else None,
            lasting=failed[1] if failed else None,
            tokens=None if None in counts else sum(count for count in counts if count is not None),
            seconds=sum(reply.seconds for reply in self.replies.values()),
        )


def _failure(reply: Reply) -> tuple[str, Lasting | None] | None:
    """Why a reply is no answer, and whether for good; None where it is one."""
    if reply.text is None:
        return reply.reason or "unknown", reply.lasting
    return None if reply.text.strip() else ("empty reply", "empty reply")


def play(
    model: str,
    chat: Chat,
    spec: ChatSpec,
    questions: Sequence[Question],
    max_tokens: int,
    seed: int,
    history: History = "own",
) -> Iterator[Played]:
    """Play the sessions and yield each as it ends; none waits for another, and few are open at a time.

    The temperature is by category as in FastChat, and top-p is 1 as there; sessions of one temperature come together.
    A session stops at the turns before its first failed reply, with ``failed`` set. Raises UserError for what no retry
    can mend.
    """
    heat = {question.id: TEMPERATURE.get(question.category, ELSEWHERE) for question in questions}
    speakers = {
        temperature: Speaker(
            chat, "assistant", Decoding(temperature=temperature, top_p=1.0, max_tokens=max_tokens), seed
        )
        for temperature in dict.fromkeys(heat.values())
    }
    if not speakers:
        return
    order = list(speakers)
    waiting = deque(sorted(questions, key=lambda question: order.index(heat[question.id])))
    asked: dict[str, tuple[_Session, int]] = {}  # by the id of what was asked
    with closing(Calls([Line(speakers.values(), *lanes(spec))])) as calls:

        def ask(session: _Session, due: Sequence[tuple[int, Dialogue]]) -> None:
            for turn, dialogue in due:
                asked[dialogue.id] = session, turn
                calls.ask(speakers[heat[session.question.id]], dialogue)

        open_heat = 0.0
        while waiting or len(calls):
            while waiting and len(calls) < in_flight(spec):
                next_heat = heat[waiting[0].id]
                if len(calls) and next_heat != open_heat and lanes(spec)[1] > 1:
                    break  # a batch has one temperature: two of them open at once would halve it
                open_heat = next_heat
                session = _Session(waiting.popleft(), history)
                ask(session, session.begin())
            for _, dialogue, reply in calls.answered():
                session, turn = asked.pop(dialogue.id)
                ask(session, session.hear(turn, reply))
                if session.over:
                    yield session.record(model)
