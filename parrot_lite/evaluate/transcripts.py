"""Every session with the models' answers side by side, as text that a page can show, cut evenly where it must be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import escape

from parrot_lite.evaluate.records import Comparison, Label, Phenomenon, Played, Question
from parrot_lite.types import Judgment

APART = 2.0  # score points by which two answers differ much
OPENING = 160  # characters of a session's first query that stand in its line
SCROLLED = 1500  # characters from which a text may be higher than its box
LEAST = 100  # characters of an answer that are shown whatever the budget is


def visible(text: str) -> str:
    """``text`` with what HTML cannot hold made visible: control characters as pictures, lone surrogates as U+FFFD.

    >>> visible("a\\x00b\\r\\nc\\x85") == "a\u2400b\\nc\ufffd"
    True
    """
    return text.replace("\r\n", "\n").translate(_VISIBLE)


_VISIBLE = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"}
_VISIBLE |= {0x7F: "\u2421", **dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], "\ufffd")}


@dataclass(frozen=True)
class Answer:
    """One model's answer at one turn, with its verdict. ``text`` None = there is none, and ``missing`` says why."""

    model: int
    text: str | None
    missing: str | None
    score: float | None
    verdict: str | None
    unjudged: str | None  # why there is no score


@dataclass(frozen=True)
class Exchange:
    """One turn: the query, its label, the models' answers; ``groups`` are the filters of differences that it passes."""

    turn: int
    query: str
    label: Label | None
    answers: tuple[Answer, ...]
    groups: frozenset[str]
    compared: tuple[str, ...] = ()  # how pairs of them came out, in words

    @property
    def kinds(self) -> tuple[Phenomenon, ...]:
        """What its query is; empty where it has no label."""
        return self.label.kinds if self.label else ()


@dataclass(frozen=True)
class Session:
    """One benchmark session; ``means`` has each model's mean score, None without any."""

    id: str
    category: str
    exchanges: tuple[Exchange, ...]
    means: tuple[float | None, ...]

    @property
    def opening(self) -> str:
        """How it begins."""
        return self.exchanges[0].query[:OPENING] if self.exchanges else ""

    @property
    def groups(self) -> frozenset[str]:
        """The filters of differences that some turn passes."""
        return frozenset[str]().union(*(one.groups for one in self.exchanges))

    @property
    def kinds(self) -> frozenset[Phenomenon]:
        """The kinds of query that it has."""
        return frozenset(kind for one in self.exchanges for kind in one.kinds)


def labels(played: Sequence[Played], questions: Sequence[Question]) -> dict[tuple[str, int], Label]:
    """(session, turn) -> label, where the benchmark still asks what was asked then."""
    asked = {(one.dialogue.id, turn): query for one in played for turn, query in enumerate(one.dialogue.queries, 1)}
    return {
        (question.id, turn): label
        for question in questions
        for turn, (label, query) in enumerate(zip(question.labels, question.queries, strict=False), 1)
        if label is not None and asked.get((question.id, turn), query) == query
    }


def sessions(
    models: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    played: Sequence[Played],
    judgments: Sequence[Judgment],
    questions: Sequence[Question],
    comparisons: Sequence[Comparison] = (),
) -> tuple[Session, ...]:
    """The sessions in the order in which they were played. Text is as it was written, but for ``visible``."""
    by_key = {(one.dialogue.id, one.model): one for one in played}
    judged = {(one.dialogue, one.model, one.turn): one for one in judgments}
    labelled = labels(played, questions)
    asked = {question.id: question.queries for question in questions}
    compared: dict[tuple[str, int], list[str]] = defaultdict(list)
    for comparison in comparisons:
        compared[comparison.dialogue, comparison.turn].append(visible(_outcome(comparison)))
    found = []
    for id, category in dict.fromkeys((one.dialogue.id, one.category) for one in played):
        own = [by_key.get((id, model)) for model in models]
        heard = max((one.dialogue.queries for one in own if one), key=len, default=())
        known = asked.get(id, ())
        queries = known if known[: len(heard)] == heard else heard
        exchanges = tuple(
            replace(
                _exchange(turn, query, labelled.get((id, turn)), models, pairs, own, judged),
                compared=tuple(compared[id, turn]),
            )
            for turn, query in enumerate(queries, 1)
        )
        columns = [[exchange.answers[index].score for exchange in exchanges] for index in range(len(models))]
        means = tuple(_mean([score for score in column if score is not None]) for column in columns)
        found.append(Session(visible(id), visible(category), exchanges, means))
    return tuple(found)


def _outcome(one: Comparison) -> str:
    pair = f"{one.model_a} against {one.model_b}"
    match one.outcome:
        case None:
            return f"{pair}: no verdict ({one.reason})"
        case "tie":
            return f"{pair}: a tie" if one.consistent else f"{pair}: a tie, as the verdict changes with their order"
        case won:
            return f"{pair}: {one.model_a if won == 'a' else one.model_b} wins"


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None


def _exchange(
    turn: int,
    query: str,
    label: Label | None,
    models: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    own: Sequence[Played | None],
    judged: Mapping[tuple[str, str, int], Judgment],
) -> Exchange:
    answers = []
    for index, (model, one) in enumerate(zip(models, own, strict=True)):
        verdict = judged.get((one.dialogue.id, model, turn)) if one else None
        text = one.dialogue.answers[turn - 1] if one and turn <= len(one.dialogue.answers) else None
        missing = None if text is not None else (one.failed if one else None) or "not played"
        answers.append(
            Answer(
                model=index,
                text=None if text is None else visible(text),
                missing=None if missing is None else visible(missing),
                score=verdict.score if verdict else None,
                verdict=visible(verdict.text) if verdict and verdict.text else None,
                unjudged=visible(verdict.reason or "no reason given") if verdict and verdict.score is None else None,
            )
        )
    scores = {model: answer.score for model, answer in zip(models, answers, strict=True)}
    return Exchange(turn, visible(query), label, tuple(answers), frozenset(_groups(scores, pairs, bool(judged))))


def _groups(scores: Mapping[str, float | None], pairs: Sequence[tuple[str, str]], judged: bool) -> Iterator[str]:
    for number, (model, other) in enumerate(pairs):
        mine, theirs = scores[model], scores[other]
        if mine is not None and theirs is not None and abs(mine - theirs) >= APART:
            yield f"{'above' if mine > theirs else 'below'}-{number}"
    given = [score for score in scores.values() if score is not None]
    if len(given) > 1 and max(given) - min(given) < 1:
        yield "alike"
    if judged and len(given) < len(scores):
        yield "missing"


@dataclass(frozen=True)
class Limit:
    """How many characters of an answer and of a verdict are shown; None = all of them."""

    answer: int | None = None

    @property
    def verdict(self) -> int | None:
        """Half of an answer's."""
        return None if self.answer is None else self.answer // 2


def fit(shown: Sequence[Session], room: int) -> Limit:
    """One limit for all texts, as large as ``room`` bytes of escaped UTF-8 allow; short ones leave theirs to others."""
    answers = [answer for session in shown for exchange in session.exchanges for answer in exchange.answers]
    texts = [one.text for one in answers if one.text is not None]
    verdicts = [one.verdict for one in answers if one.verdict is not None]

    def taken(limit: Limit) -> int:
        cut = [text[: limit.answer] for text in texts] + [text[: limit.verdict] for text in verdicts]
        return sum(len(escape(text).encode()) for text in cut)

    if taken(Limit()) <= room:
        return Limit()
    longest = max(len(text) for text in [*texts, *verdicts]) * 2
    return Limit(_largest(lambda limit: taken(Limit(limit)) <= room, LEAST, longest))


def _largest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number that ``holds``, which does so up to a point; ``low`` even where that does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
