"""What the writer of a negative is shown: the paper's three kinds (section 3.3), each in its ways, and the controls.

The paper prompts ChatGPT for its negatives and gives no prompts. ``prompted`` is that, with prompts of our own.
``structural`` needs no obedience, so that any model can write it: what is wrong with an answer is what its writer was
not shown. ``on-policy`` shows the same to the model that is to be trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from parrot_lite.collect.filters import STOP_WORDS, WORD
from parrot_lite.collect.prompts import Name, Prompt, prompt_of
from parrot_lite.types import Dialogue, How, Kind, derive_seed

Author = Literal["writer", "policy"]


@dataclass(frozen=True)
class Place:
    """One negative to write: at which turn of which session, what marked the turn, which kind, in which way."""

    session: Dialogue
    turn: int
    rule: str
    kind: Kind
    how: How = "structural"

    @property
    def id(self) -> str:
        """What seeds derive from, and the key of a skipped negative."""
        return place_id(self.session.id, self.turn, self.kind, self.how)

    @property
    def author(self) -> Author:
        """Who writes it."""
        return "policy" if self.how == "on-policy" else "writer"

    @property
    def query(self) -> str:
        """The query that the negative answers."""
        return self.session.queries[self.turn - 1]

    @property
    def answer(self) -> str:
        """The session's own answer."""
        return self.session.answers[self.turn - 1]


def place_id(session: str, turn: int, kind: Kind, how: How) -> str:
    """The name of a negative, in every file of the stage."""
    return f"{session}/{turn}/{kind}/{how}"


@dataclass(frozen=True)
class Shown:
    """What a writer is shown, what was done to the true history, in words, and the prompt that took part."""

    context: Dialogue
    done: str
    prompt: Prompt | None = None
    guess: bool = False  # the reply is the question to show next, not the answer


@dataclass(frozen=True)
class Skipped:
    """No negative here, for a reason that asking again would not change."""

    reason: str


class Contexts:
    """What to show for every kind and way, over all sessions of the stage's data."""

    def __init__(
        self, sessions: Sequence[Dialogue], prompts: Mapping[Name, Prompt], seed: int, borrow: bool = True
    ) -> None:
        self._sessions, self._prompts, self._seed, self._borrow = sessions, prompts, seed, borrow
        self._index = {session.id: index for index, session in enumerate(sessions)}

    def show(self, place: Place, chosen: str) -> Shown | Skipped:
        """What the writer of this negative sees, for hallucination what the guesser of the referent sees.

        ``chosen`` is the answer that the negative will be contrasted with.
        """
        history = [turn.content for turn in place.session.before(place.turn).turns[:-1]]
        name = prompt_of(place.kind, place.how)
        prompt = self._prompts[name] if name else None
        if place.kind == "degraded" and prompt:
            # At the chosen answer's length: else length is what tells the two apart.
            asked = prompt.fill(query=place.query, words=str(len(chosen.split())))
            return shown(place, [*history, asked], "full history shown, a poor answer asked for", prompt)
        if prompt:
            asked = prompt.fill(query=place.query)
            if place.how != "prompted":
                # Under an id of its own, so that guess and answer are drawn apart.
                context = Dialogue(id=f"{place.id}/guess", source="negatives").say(asked)
                return Shown(context, "referent asked for", prompt, guess=True)
            if place.kind == "misunderstanding":
                return shown(place, [*history, asked], "full history shown, misunderstanding asked for", prompt)
            wanted = "a guess" if place.kind == "hallucination" else "neglect"
            return shown(place, [asked], f"history withheld, {wanted} asked for", prompt)
        match place.kind:
            case "neglect":
                return shown(place, [place.query], "history withheld")
            case "misunderstanding":
                return self._misplaced(place)
            case "same-writer":
                return shown(place, [*history, place.query], "full history shown")
        raise ValueError(f"a {place.kind} negative has no writer")

    def exchange_elsewhere(self, place: Place) -> tuple[Dialogue, int] | None:
        """An exchange of another session, drawn by seed; None where there is no other session with an answer."""
        own, others = self._index[place.session.id], len(self._sessions) - 1
        if others < 1:
            return None
        index = derive_seed(self._seed, "session", place.id) % others
        session = self._sessions[index + (index >= own)]
        return session, 1 + derive_seed(self._seed, "turn", place.id) % len(session.answers)

    def _misplaced(self, place: Place) -> Shown | Skipped:
        """The session's own irrelevant exchange; where it has none, one of another session."""
        session, done = place.session, "an irrelevant exchange of the session shown"
        turn = irrelevant(session, place.turn)
        if turn is None:
            if not self._borrow:
                return Skipped("no irrelevant exchange in the session")
            if (drawn := self.exchange_elsewhere(place)) is None:
                return Skipped("no other session")
            (session, turn), done = drawn, "an exchange of another session shown"
        texts = [session.queries[turn - 1], session.answers[turn - 1], place.query]
        return shown(place, texts, f"{done}: {session.id} turn {turn}")


def irrelevant(session: Dialogue, turn: int) -> int | None:
    """The exchange before ``turn`` with the smallest share of its words in that turn's query and answer.

    Never the last one before it, which a query leans on most; so None at turn 2. Of equals, the earliest.
    """
    about = _words((session.queries[turn - 1], session.answers[turn - 1]))

    def share(earlier: int) -> float:
        words = _words((session.queries[earlier - 1], session.answers[earlier - 1]))
        return len(words & about) / max(1, len(words))

    return min(range(1, turn - 1), key=share, default=None)


def _words(texts: Iterable[str]) -> set[str]:
    """The words that say what a text is about."""
    return {word for text in texts for word in WORD.findall(text.casefold())} - STOP_WORDS


def shown(place: Place, texts: Sequence[str], done: str, prompt: Prompt | None = None) -> Shown:
    """A context of these messages under the place's id, the user's first."""
    context = Dialogue(id=place.id, source="negatives")
    for text in texts:
        context = context.say(text)
    return Shown(context, done, prompt)
