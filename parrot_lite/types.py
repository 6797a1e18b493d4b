"""The records that stages hand to each other. Frozen; each keeps its own promises."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Role = Literal["user", "assistant"]
Lasting = Literal["context full", "empty reply", "content filter", "refused request", "off the choices"]
Kind = Literal["neglect", "hallucination", "misunderstanding", "same-writer", "degraded", "random", "other-turn"]
How = Literal["structural", "prompted", "on-policy"]  # the ways in which a negative is written
Condition = Literal["true", "swapped", "shortened", "scrambled", "withheld"]  # what history something is read under
NO_VERDICT = "no verdict"  # how the reason begins where a judge gave none ...
NO_ANSWER = "no answer"  # ... or had nothing to judge
KINDS: tuple[Kind, ...] = ("neglect", "hallucination", "misunderstanding")  # the paper's three; the others are controls


class Record(BaseModel):
    """A frozen record that refuses unknown fields; one JSON object a line on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _trimmed(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError("must be non-empty and without surrounding white space")
    return text


Text = Annotated[str, AfterValidator(_trimmed)]


class Turn(Record):
    """One message. Never empty, no white space around it: templates disagree on what they strip."""

    role: Role
    content: Text


class Dialogue(Record):
    """A session: roles alternate and the user opens. Turn numbers count exchanges, from 1, as the paper does."""

    id: str
    source: str
    turns: tuple[Turn, ...] = ()
    ended: str | None = None  # why collection stopped here; None where nobody stopped it
    given: Annotated[int, Field(ge=1)] | None = None  # exchanges it began with, logged before; None where none were

    @model_validator(mode="after")
    def _alternates(self) -> Self:
        for index, turn in enumerate(self.turns):
            expected = "assistant" if index % 2 else "user"
            if turn.role != expected:
                raise ValueError(f"message {index + 1} is the {turn.role}'s, expected the {expected}'s")
        return self

    @property
    def due(self) -> Role:
        """Who speaks next."""
        return "assistant" if len(self.turns) % 2 else "user"

    @property
    def queries(self) -> tuple[str, ...]:
        """The user's messages, first to last."""
        return tuple(turn.content for turn in self.turns[0::2])

    @property
    def answers(self) -> tuple[str, ...]:
        """The assistant's messages, first to last; one fewer than the queries while an answer is due."""
        return tuple(turn.content for turn in self.turns[1::2])

    def before(self, turn: int) -> Dialogue:
        """Everything before the answer of exchange ``turn`` (from 1): the history and that query.

        Raises IndexError where the session has no such query.
        """
        if not 1 <= turn <= len(self.queries):
            raise IndexError(f"dialogue {self.id} has {len(self.queries)} queries, no turn {turn}")
        return self.model_copy(update={"turns": self.turns[: 2 * turn - 1]})

    def complete(self) -> Dialogue:
        """The session without a last query that nobody answered."""
        return self.model_copy(update={"turns": self.turns[: len(self.turns) // 2 * 2]})

    def say(self, text: str) -> Dialogue:
        """The session with the next message, by whoever is due. Raises ValueError where ``text`` is blank."""
        turn = Turn(role=self.due, content=text.strip())
        return self.model_copy(update={"turns": (*self.turns, turn)})


class Instructed(Dialogue):
    """A dialogue whose next message is asked for under a system message, where the endpoint knows such."""

    system: str


class Reply(Record):
    """What came back from a speaker, or why nothing did. ``failed`` has no text, so none can enter a dialogue."""

    text: str | None
    stop: Literal["end", "length", "failed"]
    tokens: int | None = Field(default=None, ge=0)  # generated tokens; None where the speaker does not say
    prompt_tokens: int | None = Field(default=None, ge=0)  # None where the speaker does not say
    # Of the prompt's tokens, those that were evaluated, and those that no prompt or reply before had behind the same
    # beginning, which a cache without limit would have evaluated. None where the speaker does not say.
    prefilled: int | None = Field(default=None, ge=0)
    unique: int | None = Field(default=None, ge=0)
    seconds: float = 0.0
    reason: str | None = None
    weights: tuple[float, ...] | None = None  # where the reply was a choice: the probability of each text
    covered: float | None = None  # where weights had to be read off a server's likeliest tokens: what they add up to
    lasting: Lasting | None = None  # why the same call would fail again; None where asking again may help

    @model_validator(mode="after")
    def _failed_has_reason(self) -> Self:
        if self.stop == "failed" and (self.text is not None or not self.reason):
            raise ValueError("a failed reply has a reason and no text")
        if self.stop != "failed" and self.lasting:
            raise ValueError("only a failed reply can be failed for good")
        if self.stop != "failed" and self.text is None:
            raise ValueError("a reply without text must be 'failed'")
        return self

    @classmethod
    def failure(cls, reason: str, seconds: float = 0.0, lasting: Lasting | None = None) -> Reply:
        """A failed call; ``reason`` is one line for a person."""
        line = " ".join(reason.split())[:500] or "unknown"
        return cls(text=None, stop="failed", reason=line, seconds=seconds, lasting=lasting)


class Rejected(Record):
    """An input that was left out, and why: a counted rejection, never a silent one."""

    id: str
    source: str
    reason: str
    detail: str | None = None


class Negative(Record):
    """A rejected answer (paper section 3.3), with what was done to the context its writer saw."""

    kind: Kind
    text: Text
    how: How
    writer: str
    done: str  # in words, e.g. "history withheld"
    saw: tuple[Turn, ...]  # exactly the messages that the writer was shown, the query last
    prompt: str | None = None  # SHA-256 of the prompt file that took part; None where none did
    words: int | None = Field(default=None, ge=1)  # of the text, parted by white space
    chosen_words: int | None = Field(default=None, ge=1)  # of the answer that it is contrasted with
    shortened: bool = False  # max_tokens cut it, and it ends behind its last whole sentence
    worse: bool | None = None  # than that answer, given the true history; None = not checked, or no verdict


class Branch(Record):
    """A negative hung on exchange ``turn`` (from 1) of its session; ``rule`` is what marked the turn as dependent.

    It may bring a chosen answer of its own, e.g. by the writer of the negative, and, as a control, a context of its own
    that the pair is trained under.
    """

    turn: int = Field(ge=1)
    rule: str
    negative: Negative
    chosen: Text | None = None  # None = the session's answer
    context: tuple[Turn, ...] | None = None  # messages with the query last; None = the session up to its query

    @model_validator(mode="after")
    def _context_asks(self) -> Self:
        if self.context is not None and Dialogue(id="", source="", turns=self.context).due != "assistant":
            raise ValueError("the context of a branch ends with the user's query")
        return self


class SessionTree(Record):
    """A session as trunk with its chosen answers, and negatives as branches, each forking behind its query."""

    dialogue: Dialogue
    branches: tuple[Branch, ...]

    @model_validator(mode="after")
    def _forks_exist(self) -> Self:
        for branch in self.branches:
            if branch.turn > len(self.dialogue.answers):
                raise ValueError(f"a branch at turn {branch.turn} of {len(self.dialogue.answers)} answered turns")
            if branch.negative.text == self.chosen(branch):
                raise ValueError(f"the negative at turn {branch.turn} equals the chosen answer")
        return self

    def chosen(self, branch: Branch) -> str:
        """The answer that the branch's negative is contrasted with."""
        return self.dialogue.answers[branch.turn - 1] if branch.chosen is None else branch.chosen

    def context(self, branch: Branch) -> Dialogue:
        """What both answers of the branch's pair continue, the query last."""
        before = self.dialogue.before(branch.turn)
        return before if branch.context is None else before.model_copy(update={"turns": branch.context})

    @property
    def id(self) -> str:
        """The session's id."""
        return self.dialogue.id

    def at(self, turn: int) -> tuple[Branch, ...]:
        """The branches that fork at exchange ``turn``."""
        return tuple(branch for branch in self.branches if branch.turn == turn)


class Judgment(Record):
    """One verdict on one turn. ``score`` is None where there is none: never 0, never -1."""

    model: str  # who answered
    dialogue: str
    category: str
    turn: int = Field(ge=1)
    judge: str  # model@prompt
    score: float | None = Field(default=None, ge=1, le=10)
    text: str | None = None  # what the judge wrote
    covered: float | None = None  # of an expected score: the probability that could be read (see ``Reply``)
    reason: str | None = None  # why there is no score
    lasting: Lasting | None = None  # where the judge's call failed for good

    @property
    def again(self) -> bool:
        """Whether the verdict is missing for a reason that may be gone next time."""
        return self.score is None and missing_for_now(self.reason, self.lasting)


def missing_for_now(reason: str | None, lasting: Lasting | None) -> bool:
    """Whether what is missing for this reason may come when it is asked for again."""
    return reason is not None and not reason.startswith((NO_VERDICT, NO_ANSWER)) and not lasting


def derive_seed(seed: int, *key: object) -> int:
    """A 31-bit seed for one piece of work: the same for the same recipe seed and key, whatever ran before it."""
    text = "\x1f".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
