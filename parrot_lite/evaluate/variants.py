"""What the probe scores: fixed answers, each under the true history and under spoiled ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from parrot_lite.context import dependence
from parrot_lite.context.histories import histories, other_history, scrambled
from parrot_lite.evaluate.records import AnswerBy, Phenomenon, Played, Question, Written
from parrot_lite.recipe import Probe
from parrot_lite.types import Condition, Dialogue, Turn, derive_seed


@dataclass(frozen=True)
class Query:
    """A query that is answered, at exchange ``turn`` (from 1), and what marks it as context-dependent or not."""

    turn: int
    rule: str | None = None
    phenomena: tuple[Phenomenon, ...] = ()


@dataclass(frozen=True)
class Variant:
    """An answer to a query of a session under one history: ``context`` ends with the query."""

    dialogue: str
    query: Query
    answer: AnswerBy
    condition: Condition
    context: Dialogue
    text: str
    ended: bool = True  # False where the answer was cut before its end

    @property
    def key(self) -> tuple[str, int, AnswerBy, Condition]:
        """What tells it from every other one."""
        return self.dialogue, self.query.turn, self.answer, self.condition


def scored_turns(session: Dialogue, settings: Probe) -> list[int]:
    """The turns of a held-out session that have a history and are scored: the latest ones."""
    return list(range(2, len(session.answers) + 1))[-settings.turns_per_session :]


def of_logs(
    sessions: Sequence[Dialogue], written: Mapping[tuple[str, int], Written], settings: Probe, seed: int
) -> Iterator[list[Variant]]:
    """The variants of each held-out session. Its first answer, which has no history, has one variant."""
    for session in sessions:
        found: list[Variant] = []
        if session.answers:
            first = Query(1, dependence(session.queries[0], 1))
            found.append(Variant(session.id, first, "session", "true", session.before(1), session.answers[0]))
        turns = scored_turns(session, settings)
        other = other_history(sessions, session.id, turns[-1], seed) if turns else ()
        for turn in turns:
            query = Query(turn, dependence(session.queries[turn - 1], turn))
            for condition, context in contexts(session, turn, other, settings.conditions, seed).items():
                if "session" in settings.answers:
                    own = session.answers[turn - 1]
                    found.append(Variant(session.id, query, "session", condition, context, own))
                wrote = written.get((session.id, turn))
                if wrote is not None and wrote.text is not None:
                    found.append(Variant(session.id, query, "same-writer", condition, context, wrote.text, wrote.ended))
        yield found


def of_bench(
    played: Sequence[Played], questions: Sequence[Question], settings: Probe, seed: int
) -> Iterator[list[Variant]]:
    """The variants of each benchmark session that one model played, at its labelled turns from the second on."""
    labels = {question.id: question.labels for question in questions}
    sessions = [one.dialogue for one in played]
    for session in sessions:
        queries = [
            Query(turn, phenomena=label.kinds)
            for turn, label in enumerate(labels[session.id][: len(session.answers)], 1)
            if turn > 1 and label is not None
        ]
        other = other_history(sessions, session.id, queries[-1].turn, seed) if queries else ()
        yield [
            Variant(session.id, query, "played", condition, context, session.answers[query.turn - 1])
            for query in queries
            for condition, context in contexts(session, query.turn, other, settings.conditions, seed).items()
        ]


def contexts(
    session: Dialogue, turn: int, other: Sequence[Turn], conditions: Sequence[Condition], seed: int
) -> dict[Condition, Dialogue]:
    """What stands before the answer of exchange ``turn``, by history. ``other`` is swapped in as far as it goes.

    Another session's history is the same at all turns of a session, so that its tokens are shared. At turn 2 there is
    no shortened history, which would be none, and no scrambled one.
    """
    before = session.before(turn)
    true, query = before.turns[:-1], before.turns[-1]
    found: dict[Condition, Sequence[Turn] | None] = dict(histories(true, other[: len(true)]))
    found["shortened"] = found["shortened"] or None
    found["scrambled"] = scrambled(true, derive_seed(seed, "scrambled", session.id, turn))
    shown = {name: history for name in conditions if (history := found[name]) is not None}
    return {name: before.model_copy(update={"turns": (*history, query)}) for name, history in shown.items()}
