"""What the evaluation writes and reads: questions, played sessions, likelihoods. Verdicts are ``types.Judgment``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from parrot_lite.recipe import History
from parrot_lite.types import Condition, Dialogue, How, Kind, Lasting, Record, Text, missing_for_now

LEFT_OUT = "probe, left out: "  # how the counts of what the probe did not score begin
AnswerBy = Literal["session", "same-writer", "played"]
Phenomenon = Literal["anaphora", "ellipsis", "shift", "self-contained"]


class Label(Record):
    """How a query stands to what came before it. ``self-contained`` excludes anaphora and ellipsis."""

    kinds: tuple[Phenomenon, ...] = Field(min_length=1)
    leans_on: int | None = Field(default=None, ge=1)  # the exchange that says what it needs; None where self-contained
    entity: tuple[str, ...] = ()  # spellings, any of which shows that an answer resolved the reference

    @model_validator(mode="after")
    def _leans_unless_self_contained(self) -> Self:
        alone = "self-contained" in self.kinds
        if alone == bool({"anaphora", "ellipsis"} & set(self.kinds)):
            raise ValueError("a query is either self-contained or has anaphora or ellipsis")
        if alone != (self.leans_on is None):
            raise ValueError("'leans_on' is a turn where the query is not self-contained, and null where it is")
        if alone and self.entity:
            raise ValueError("a self-contained query has no reference that an entity would resolve")
        return self


class Question(Record):
    """One benchmark session: the user's messages, each with a reference answer and a label where there is one."""

    id: str
    category: str
    queries: tuple[str, ...] = Field(min_length=1)
    references: tuple[str | None, ...]  # as long as queries
    labels: tuple[Label | None, ...] = ()  # as long as queries, or empty where the benchmark has none

    @model_validator(mode="after")
    def _one_a_query(self) -> Self:
        if len(self.references) != len(self.queries):
            raise ValueError(f"{len(self.references)} references for {len(self.queries)} queries")
        if self.labels and len(self.labels) != len(self.queries):
            raise ValueError(f"{len(self.labels)} labels for {len(self.queries)} queries")
        for turn, label in enumerate(self.labels, 1):
            if label is not None and label.leans_on is not None and label.leans_on >= turn:
                raise ValueError(f"turn {turn} leans on turn {label.leans_on}, which does not come before it")
        return self


class Played(Record):
    """A benchmark session with the model's own answers, as far as it came; ``failed`` says why it ended early.

    ``history`` says over which earlier answers each was given: the model's own, the benchmark's, which are ``fed``, or
    over nothing but the query.
    """

    model: str  # the player's name, which tells the history
    category: str
    dialogue: Dialogue  # each query with the model's answer to it; ends with an answer
    history: History = "own"
    fed: tuple[Text, ...] = ()  # the benchmark's answers to the exchanges before each of the model's
    failed: str | None = None
    lasting: Lasting | None = None  # where it failed for good
    tokens: int | None = Field(default=None, ge=0)  # generated tokens; None where the speaker does not say
    seconds: float = 0.0

    @model_validator(mode="after")
    def _fed_where_it_is_a_reference(self) -> Self:
        if self.history != "reference" and self.fed:
            raise ValueError("only a reference history is fed")
        if self.history == "reference" and len(self.fed) < len(self.dialogue.answers) - 1:
            raise ValueError("a reference history has an answer to each exchange before the last")
        return self


def player(model: str, history: History) -> str:
    """What records and tables call a model that answers over this history.

    >>> [player("capo", history) for history in ("own", "reference", "hidden")]
    ['capo', 'capo (reference history)', 'capo (history hidden)']
    """
    return model + {"own": "", "reference": " (reference history)", "hidden": " (history hidden)"}[history]


def transcript(played: Played, turn: int) -> Dialogue:
    """The session up to the model's answer at exchange ``turn``, as a reader should see it.

    The answers before are the ones that the model saw; where it saw none they are those that it gave, so that a judge
    can tell whether an answer without history fits into the session. Raises IndexError where there is no such answer.
    """
    if not 1 <= turn <= len(played.dialogue.answers):
        raise IndexError(f"session {played.dialogue.id} has {len(played.dialogue.answers)} answers, no turn {turn}")
    before = played.fed if played.history == "reference" else played.dialogue.answers
    told = played.dialogue.model_copy(update={"turns": ()})
    for query, answer in zip(
        played.dialogue.queries[:turn], (*before[: turn - 1], played.dialogue.answers[turn - 1]), strict=True
    ):
        told = told.say(query).say(answer)
    return told


Outcome = Literal["a", "tie", "b"]
Preference = Literal["A", "B", "C"]  # the answer shown first, the one shown second, a tie


class Comparison(Record):
    """Two models' answers to exchange ``turn``, compared by a judge in both orders.

    ``first`` is what it said of ``model_a`` before ``model_b``, ``second`` of ``model_b`` before ``model_a``, each in
    its words: A is the answer that was shown first. None = no verdict.
    """

    model_a: str
    model_b: str
    dialogue: str
    category: str
    turn: int = Field(ge=1)
    judge: str  # model@prompt
    first: Preference | None = None
    second: Preference | None = None
    first_text: str | None = None  # what the judge wrote
    second_text: str | None = None
    reason: str | None = None  # why a verdict is missing
    lasting: Lasting | None = None  # where its call failed for good

    @property
    def outcome(self) -> Outcome | None:
        """Who wins: in both orders, else it is a tie; None without both verdicts."""
        if self.first is None or self.second is None:
            return None
        wins: dict[tuple[Preference, Preference], Outcome] = {("A", "B"): "a", ("B", "A"): "b"}
        return wins.get((self.first, self.second), "tie")

    @property
    def consistent(self) -> bool:
        """Whether both orders say the same."""
        return (self.first, self.second) in (("A", "B"), ("B", "A"), ("C", "C"))

    @property
    def place(self) -> Literal["first", "second"] | None:
        """The place whose answer the judge took in both orders; None where it took none by its place."""
        places: dict[tuple[object, object], Literal["first", "second"]] = {("A", "A"): "first", ("B", "B"): "second"}
        return places.get((self.first, self.second))

    @property
    def again(self) -> bool:
        """Whether a verdict is missing for a reason that may be gone next time."""
        return self.outcome is None and missing_for_now(self.reason, self.lasting)


class Written(Record):
    """An answer that one fixed model wrote to exchange ``turn`` under the true history; ``reason`` says why not."""

    dialogue: str
    turn: int = Field(ge=1)
    text: Text | None = None
    ended: bool = True  # False where the limit of tokens cut it
    reason: str | None = None

    @model_validator(mode="after")
    def _text_or_reason(self) -> Self:
        if (self.text is None) != (self.reason is not None):
            raise ValueError("an answer has a text, or a reason why it has none")
        return self


class Likelihood(Record):
    """How likely an answer to exchange ``turn`` is to a model, under one kind of history."""

    model: str
    dialogue: str
    turn: int = Field(ge=1)
    # The held-out session's own; what one fixed model wrote to the same; what one model had played on the benchmark.
    answer: AnswerBy = "session"
    rule: str | None = None  # what marked the turn as context-dependent; None = another turn
    phenomena: tuple[Phenomenon, ...] = ()  # the benchmark's label, which outweighs the rule
    condition: Condition
    nll: float  # nats, summed over the answer's tokens
    tokens: int = Field(ge=1)

    @property
    def dependent(self) -> bool:
        """Whether the query leans on its history: by its label, or by the rules where it has none."""
        return bool({"anaphora", "ellipsis"} & set(self.phenomena)) if self.phenomena else self.rule is not None


class Choice(Record):
    """How likely the chosen answer of a held-out session and one negative are to a model, under the true history."""

    model: str
    dialogue: str
    turn: int = Field(ge=1)
    kind: Kind
    how: How
    chosen: float  # log-prob in nats, the mean over the answer's tokens
    negative: float


class UserTurn(Record):
    """A real user turn under a model that would play the user. Log-probs in nats."""

    model: str  # base or asker
    dialogue: str
    turn: int = Field(ge=2)
    nll: float  # summed over content and end-of-turn mark
    tokens: int = Field(ge=1)
    end: float  # log-prob of the mark where the user ended
    ended: bool  # whether the mark was likeliest there
    inside: int = Field(ge=1)  # tokens before the mark
    alarms: int = Field(ge=0)  # of these, where the mark was likeliest
