"""What calls to speakers will take, before any is made: sums over the lengths of queries and answers.

A prompt holds everything that was said before it, so the prompt tokens of a session grow with the square of its turns.
Beside the counts of SmolLM2's tokenizer and template, prompts of measured sessions came out a seventh (200 of ShareGPT)
and a fifth (the 40 bundled ones) too small: the template adds a system prompt, and long answers stand in long sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean

from parrot_lite.context import dependence
from parrot_lite.errors import UserError
from parrot_lite.recipe import ChatSpec
from parrot_lite.store import read
from parrot_lite.types import Dialogue, How, Kind

MESSAGE = 4  # tokens that a chat template adds to a message, about
WORD = 4 / 3  # tokens of an English word, about
SAMPLE = 200  # sessions of a file that are looked at


@dataclass(frozen=True)
class Assumed:
    """What stands in for a measurement where there is none; the defaults are those of the command line.

    Its lengths are of the first 1,485 conversations of ShareGPT: 28 words a query, of which at most 96 count, and 203
    words an answer. Nobody has measured a verdict or a call.
    """

    query_tokens: float
    answer_tokens: float
    verdict_tokens: float
    call_seconds: float


@dataclass(frozen=True)
class Shape:
    """How many exchanges a session has, and which of its turns (from 1) lean on the history."""

    turns: int
    dependent: tuple[int, ...]


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a query and of an answer, and the shapes of sessions, each as frequent as the others."""

    query: float
    answer: float
    shapes: tuple[Shape, ...]
    measured: Path | None = None  # the file that was looked at; None where all is assumed

    def history(self, turn: int) -> float:
        """Tokens of everything before the query of exchange ``turn``."""
        return (turn - 1) * (self.query + self.answer + 2 * MESSAGE)

    def prompt(self, turn: int) -> float:
        """Tokens of everything before the answer of exchange ``turn``."""
        return self.history(turn) + self.query + MESSAGE

    def session(self, shape: Shape) -> float:
        """Tokens of a whole session."""
        return self.history(shape.turns + 1)


@dataclass(frozen=True)
class Calls:
    """Calls of one role of a stage with the tokens that they read and write, all of them together.

    ``rounds`` is how many times some of them have to wait for others.
    """

    role: str
    spec: ChatSpec
    number: float
    prompt: float
    generated: float
    rounds: int = 1


def shapes(turns: Iterable[int]) -> tuple[Shape, ...]:
    """Sessions of so many exchanges, of which every later query may lean on the history: an upper bound."""
    return tuple(Shape(count, tuple(range(2, count + 1))) for count in turns)


def measured(path: Path) -> Lengths | None:
    """The lengths in the first sessions of a file of dialogues; None where it holds none yet."""
    sessions: list[Dialogue] = []
    with suppress(UserError):  # of the half-written last line of a stage that is running
        sessions.extend(one.complete() for one in islice(read(path, Dialogue), SAMPLE) if one.answers)
    if not sessions:
        return None
    found = []
    for one in sessions:
        count = len(one.answers)
        found.append(Shape(count, tuple(t for t in range(2, count + 1) if dependence(one.queries[t - 1], t))))
    query = fmean(len(text.split()) for one in sessions for text in one.queries)
    answer = fmean(len(text.split()) for one in sessions for text in one.answers)
    return Lengths(query * WORD, answer * WORD, tuple(found), path)


def answers(role: str, spec: ChatSpec, lengths: Lengths, sessions: float, most: int) -> Calls:
    """Every answer of ``sessions`` sessions, each at most ``most`` tokens long."""
    number = fmean(shape.turns for shape in lengths.shapes)
    prompt = fmean(_sum(lengths.prompt, range(1, shape.turns + 1)) for shape in lengths.shapes)
    return Calls(role, spec, sessions * number, sessions * prompt, sessions * number * min(lengths.answer, most))


def queries(role: str, spec: ChatSpec, lengths: Lengths, sessions: float, most: int, told: float) -> Calls:
    """Every query but the first one, behind an instruction of ``told`` tokens."""
    number = fmean(shape.turns - 1 for shape in lengths.shapes)
    prompt = fmean(_sum(lengths.history, range(2, shape.turns + 1)) for shape in lengths.shapes) + number * told
    return Calls(role, spec, sessions * number, sessions * prompt, sessions * number * min(lengths.query, most))


def negatives(
    role: str,
    spec: ChatSpec,
    lengths: Lengths,
    sessions: float,
    wanted: Sequence[tuple[Kind, How]],
    chosen: bool,
    turns: int,
    most: int,
    told: float,
) -> Calls:
    """The negatives of the latest ``turns`` dependent turns of ``sessions`` sessions that have one, by one author.

    Each is at most ``most`` tokens long; an instruction has ``told`` tokens. With ``chosen`` a better answer is written
    for every turn as well.
    """
    answer, guess = min(lengths.answer, most), min(lengths.query, most)
    number = prompt = generated = 0.0
    for turn in (turn for shape in lengths.shapes for turn in shape.dependent[-turns:]):
        if chosen and wanted:
            number, prompt, generated = number + 1, prompt + lengths.prompt(turn), generated + answer
        for kind, how in wanted:
            if kind == "random":
                continue  # another session's answer
            prompted = how == "prompted" or kind == "degraded"
            if kind == "hallucination" and not prompted:  # the referent is guessed first
                number, prompt, generated = number + 1, prompt + told + lengths.prompt(1), generated + guess
            if kind in ("neglect", "hallucination"):
                seen = 1
            else:  # an irrelevant exchange alone; where it is asked for, and by controls, everything is seen
                seen = 2 if kind == "misunderstanding" and not prompted else turn
            number, generated = number + 1, generated + answer
            prompt += lengths.prompt(seen) + (told if prompted else 0)
    each = sessions / max(1, sum(bool(shape.dependent) for shape in lengths.shapes))
    guesses = any(kind == "hallucination" and how != "prompted" for kind, how in wanted)
    return Calls(role, spec, number * each, prompt * each, generated * each, 1 + chosen + guesses)


def comparisons(
    spec: ChatSpec, lengths: Lengths, sessions: float, ways: int, turns: int, verdict: float, told: float
) -> Calls:
    """A judge's two looks, one an order, at every negative beside its chosen answer; ``ways`` negatives a turn."""
    used = [turn for shape in lengths.shapes for turn in shape.dependent[-turns:]]
    each = 2 * ways * sessions / max(1, sum(bool(shape.dependent) for shape in lengths.shapes))
    prompt = sum(told + lengths.prompt(turn) + 2 * lengths.answer for turn in used)
    return Calls("judge", spec, each * len(used), each * prompt, each * len(used) * verdict)


def _sum(tokens: Callable[[int], float], turns: Iterable[int]) -> float:
    return sum(map(tokens, turns))
