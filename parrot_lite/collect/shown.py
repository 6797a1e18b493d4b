"""What the writer of a negative is shown: the paper's three spoiled contexts (section 3.3) and the controls'.

The paper prompts ChatGPT for its three negatives and gives no prompts. Here they are structural, so that any model can
write them: what is wrong with an answer is what its writer was not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parrot_lite.types import Dialogue, Kind, derive_seed


@dataclass(frozen=True)
class Place:
    """One negative to write: at which turn of which session, what marked the turn, and which kind."""

    session: Dialogue
    turn: int
    rule: str
    kind: Kind

    @property
    def id(self) -> str:
        """What seeds derive from, and the key of a skipped negative."""
        return f"{self.session.id}/{self.turn}/{self.kind}"

    @property
    def query(self) -> str:
        """The query that the negative answers."""
        return self.session.queries[self.turn - 1]

    @property
    def chosen(self) -> str:
        """The session's own answer."""
        return self.session.answers[self.turn - 1]


@dataclass(frozen=True)
class Shown:
    """What a writer is shown, and what was done to the true history, in words."""

    context: Dialogue
    done: str


@dataclass(frozen=True)
class Skipped:
    """No negative here, for a reason that asking again would not change."""

    reason: str


class Contexts:
    """The paper's three ways to spoil a context, and the controls', over all sessions of the stage's data."""

    def __init__(self, sessions: Sequence[Dialogue], prompts: Mapping[Kind, str], seed: int) -> None:
        self._sessions, self._prompts, self._seed = sessions, prompts, seed
        self._index = {session.id: index for index, session in enumerate(sessions)}

    def show(self, place: Place) -> Shown | Skipped:
        """What the writer of this negative sees; for hallucination, what the guesser of the referent sees."""
        before = place.session.before(place.turn)
        match place.kind:
            case "neglect":
                return shown(place, [place.query], "history withheld")
            case "hallucination":
                # Under an id of its own, so that guess and answer are drawn apart.
                asked = _fill(self._prompts["hallucination"], place.query)
                return Shown(Dialogue(id=f"{place.id}/guess", source="negatives").say(asked), "referent asked for")
            case "misunderstanding":
                if place.turn > 2:
                    without_last = before.turns[: 2 * (place.turn - 2)]
                    texts = [turn.content for turn in without_last]
                    return shown(place, [*texts, place.query], "earlier exchanges shown, the last one withheld")
                if (drawn := self.exchange_elsewhere(place)) is None:
                    return Skipped("no other session")
                session, turn = drawn
                texts = [session.queries[turn - 1], session.answers[turn - 1], place.query]
                return shown(place, texts, f"an exchange of another session shown: {session.id} turn {turn}")
            case "degraded":
                asked = _fill(self._prompts["degraded"], place.query)
                texts = [*(turn.content for turn in before.turns[:-1]), asked]
                return shown(place, texts, "full history shown, a poor answer asked for")
            case "same-writer":
                return shown(place, [turn.content for turn in before.turns], "full history shown")
            case "random":
                raise ValueError("a random negative has no writer")

    def exchange_elsewhere(self, place: Place) -> tuple[Dialogue, int] | None:
        """An exchange of another session, drawn by seed; None where there is no other session with an answer."""
        own, others = self._index[place.session.id], len(self._sessions) - 1
        if others < 1:
            return None
        index = derive_seed(self._seed, "session", place.id) % others
        session = self._sessions[index + (index >= own)]
        return session, 1 + derive_seed(self._seed, "turn", place.id) % len(session.answers)


def _fill(prompt: str, query: str) -> str:
    return prompt.replace("{query}", query)  # not str.format: queries and prompts may hold braces


def shown(place: Place, texts: Sequence[str], done: str) -> Shown:
    """A context of these messages under the place's id, the user's first."""
    context = Dialogue(id=place.id, source="negatives")
    for text in texts:
        context = context.say(text)
    return Shown(context, done)
