"""Asking for a verdict: one call, a second one where the first gave none, and None where that gives none either."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from parrot_lite.chat import Chat
from parrot_lite.evaluate.prompts import PROMPTS, Ask, Form, spoken
from parrot_lite.evaluate.records import Preference
from parrot_lite.recipe import Decoding
from parrot_lite.types import NO_VERDICT, Dialogue, Instructed, Lasting, Reply, Turn

V = TypeVar("V")
T = TypeVar("T")
R = TypeVar("R")

VERDICTS = tuple(f"[[{score}]]" for score in range(1, 11))
PREFERENCES = ("[[A]]", "[[B]]", "[[C]]")
REPAIR = PROMPTS / "judge-repair.txt"
REPAIR_PAIR = PROMPTS / "judge-repair-pair.txt"
REPAIR_JSON = PROMPTS / "judge-repair-json.txt"

_PREFERENCE = re.compile(r"\[\[\s*([ABC])\s*\]\]")


class _Object(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Rating(_Object):
    """The object that a judge writes of an answer where ``verdict = "json"``."""

    explanation: str
    score: Literal[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]  # no range: not every server takes one in a schema


class Choice(_Object):
    """The object that a judge writes of a pair where ``verdict = "json"``."""

    explanation: str
    verdict: Preference


def parse(text: str) -> float | None:
    """The last ``[[n]]`` of a judge's text; None where there is none, or where it lies outside 1 to 10.

    >>> parse("Rating: [[7.5]]")
    7.5
    >>> parse("Rating: [[0]]") is None and parse("Rating: 7") is None
    True
    """
    return Form().score(text)


def parse_rating(text: str) -> float | None:
    """The score of a JSON object; None where the text is no such object.

    >>> parse_rating('{"explanation": "Quite [[10]].", "score": 4}')
    4.0
    >>> parse_rating('{"score": 4}') is None
    True
    """
    try:
        return float(Rating.model_validate_json(_braced(text)).score)
    except ValidationError:
        return None


def parse_preference(text: str) -> Preference | None:
    """The last ``[[A]]``, ``[[B]]`` or ``[[C]]`` of a judge's text.

    >>> parse_preference("[[A]] would be hasty: [[C]]")
    'C'
    """
    found = _PREFERENCE.findall(spoken(text))
    return found[-1] if found else None


def parse_choice(text: str) -> Preference | None:
    """The verdict of a JSON object; None where the text is no such object."""
    try:
        return Choice.model_validate_json(_braced(text)).verdict
    except ValidationError:
        return None


def _braced(text: str) -> str:
    """From the first brace to the last: judges that nothing constrains like to put a fence around."""
    said = spoken(text)
    return said[said.find("{") : said.rfind("}") + 1]


def expected(weights: Sequence[float]) -> float:
    """The mean of 1 to 10 under the judge's probabilities of ``VERDICTS``, which add up to 1.

    >>> expected([0, 0, 0, 0.5, 0, 0.5, 0, 0, 0, 0])
    5.0
    """
    return sum(score * weight for score, weight in enumerate(weights, 1))


@dataclass(frozen=True)
class Call(Generic[V]):
    """What a judge is asked, how its reply is read, and what it is told where that finds nothing."""

    ask: Dialogue
    read: Callable[[Reply], V | None]
    repair: str


@dataclass(frozen=True)
class Verdict(Generic[V]):
    """What a judge said: a value, or the reason why there is none."""

    value: V | None
    text: str | None = None
    reason: str | None = None
    lasting: Lasting | None = None
    covered: float | None = None


def dialogue(name: str, ask: Ask, system: bool) -> Dialogue:
    """The dialogue by which a judge is asked; ``system`` tells whether its chat knows system messages.

    Where it does not, what the system message would say stands above the message.
    """
    text = ask.text
    if ask.system is not None and not system:
        text = f"{ask.system}\n\n{text}"
    turns = (Turn(role="user", content=text.strip()),)
    if ask.system is not None and system:
        return Instructed(id=name, source="judge", turns=turns, system=ask.system)
    return Dialogue(id=name, source="judge", turns=turns)


def hear(calls: Sequence[Call[V]], chat: Chat, decoding: Decoding, seed: int) -> list[Verdict[V]]:
    """One verdict a call, in order. A reply that cannot be read is followed by one call more, for a repaired one."""
    settled: dict[int, Verdict[V]] = {}
    again: dict[int, Dialogue] = {}
    for index, reply in enumerate(chat.reply([call.ask for call in calls], "assistant", decoding, seed)):
        if reply.text is None:
            settled[index] = Verdict(None, None, reply.reason, reply.lasting)
        elif (value := calls[index].read(reply)) is not None:
            settled[index] = Verdict(value, reply.text, covered=reply.covered)
        elif reply.text.strip():
            again[index] = calls[index].ask.say(reply.text).say(calls[index].repair)
        else:
            settled[index] = Verdict(None, None, f"{NO_VERDICT}: the judge wrote nothing")
    if again:
        replies = chat.reply(list(again.values()), "assistant", decoding, seed)
        for (index, asked), reply in zip(again.items(), replies, strict=True):
            first = asked.answers[0]
            if reply.text is None:
                settled[index] = Verdict(None, first, reply.reason, reply.lasting)
            else:
                value, text = calls[index].read(reply), f"{first}\n\n{reply.text}"
                settled[index] = Verdict(value, text, NO_VERDICT if value is None else None)
    return [settled[index] for index in range(len(calls))]


def as_they_come(
    work: Callable[[Sequence[T]], R], items: Sequence[T], lanes: tuple[int, int], chat: Chat
) -> Generator[R]:
    """What ``work`` makes of groups of the items by asking ``chat``, whichever is through first.

    ``lanes`` says how many groups are worked on at once, each in a thread of its own, and how large they are. Where the
    generator is closed or ``work`` raises, no further group is begun; those begun are waited for.
    """
    calls, width = lanes
    groups = [items[start : start + width] for start in range(0, len(items), width)]
    if calls == 1:  # in this thread, so that Ctrl-C ends a call that takes hours
        yield from map(work, groups)
        return
    pool = ThreadPoolExecutor(calls)
    try:
        for done in as_completed([pool.submit(work, group) for group in groups]):
            yield done.result()
    except BaseException:  # a generator that is closed raises GeneratorExit
        getattr(chat, "stop", lambda: None)()  # or calls in flight go through all their retries
        raise
    finally:
        pool.shutdown(cancel_futures=True)
