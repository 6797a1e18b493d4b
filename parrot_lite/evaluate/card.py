"""A judge's card: what it does with answers of which it is known how they should fare.

The same turns are judged as they came and altered. A judge that can be used for a comparison in several turns punishes
an answer that says nothing and one that answers something else, reads the history, and is not won over by length.
After the null models of arXiv 2410.07137 and the length bias of arXiv 2404.04475; the controls over history are ours.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, get_args

import numpy as np

from parrot_lite.evaluate.agreement import rank_correlation
from parrot_lite.evaluate.estimates import Numbers, written
from parrot_lite.evaluate.records import Played, Question
from parrot_lite.evaluate.scores import scores as scored
from parrot_lite.evaluate.statistics import Estimate, Values
from parrot_lite.recipe import Recipe
from parrot_lite.table import Table
from parrot_lite.types import Dialogue, Judgment, Record, derive_seed

Alteration = Literal["as it came", "null", "swapped", "stale", "history swapped", "history hidden", "padded"]
ALTERATIONS: tuple[Alteration, ...] = get_args(Alteration)
MUST_PUNISH: dict[Alteration, str] = {
    "null": "an answer that says nothing",
    "swapped": "an answer from another session",
    "stale": "the answer of the turn before, given again",
    "history swapped": "the same answer behind another session's history",
}
FOLDER, CARD = "judge-check", "card.json"
REPEATS = 5
COVERED = 0.95  # share of verdicts below which a judge cannot be relied on to give any

NULL = "I am not able to say anything about that at the moment."
PADDING = (
    "To put it another way, all of the points above matter, and each of them deserves to be considered with care. It "
    "is worth keeping in mind that there are many sides to this, and that what has been said here should be read as a "
    "whole. As mentioned above, these aspects are connected with each other, and taking them together gives the most "
    "complete picture. In summary, the above covers what was asked, and it does so from several angles."
)


@dataclass(frozen=True)
class Item:
    """One turn to be judged: a session up to the answer of its last exchange, and what belongs to that turn."""

    question: Question
    dialogue: Dialogue

    @property
    def turn(self) -> int:
        """The exchange that is judged."""
        return len(self.dialogue.answers)

    @property
    def answer(self) -> str:
        """The answer that is judged."""
        return self.dialogue.answers[-1]

    def answered(self, text: str) -> Item:
        """The same with another answer to its last query."""
        return Item(self.question, self.dialogue.before(self.turn).say(text))

    def behind(self, other: Dialogue) -> Item:
        """The same query and answer behind the first exchanges of ``other``: as many as its own, or what there is."""
        history = other.complete().turns[: 2 * (self.turn - 1)]
        dialogue = self.dialogue.model_copy(update={"turns": (*history, *self.dialogue.turns[-2:])})
        reference = self.question.references[self.turn - 1]
        question = Question(
            id=self.question.id,
            category=self.question.category,
            queries=dialogue.queries,
            references=(*[None] * (len(history) // 2), reference),
        )
        return Item(question, dialogue)


def draw(played: Sequence[Played], questions: Sequence[Question], n: int, seed: int) -> list[Item]:
    """Up to ``n`` turns from the second on, drawn round by round: one of each session before a second one of any.

    A turn takes part where it was answered and its answer differs from the one before.
    """
    by_id = {question.id: question for question in questions}
    queues = []
    for one in played:
        turns = [t for t in range(2, len(one.dialogue.answers) + 1) if _fresh(one.dialogue, t)]
        if one.dialogue.id in by_id and turns:
            order = np.random.default_rng(derive_seed(seed, one.dialogue.id)).permutation(turns)
            queues.append((derive_seed(seed, "order", one.dialogue.id), one.dialogue, [int(turn) for turn in order]))
    queues.sort(key=lambda queue: queue[0])
    rounds = max((len(turns) for *_, turns in queues), default=0)
    drawn = [
        (dialogue, turns[round]) for round in range(rounds) for *_, dialogue, turns in queues if round < len(turns)
    ]
    return [
        Item(by_id[dialogue.id], dialogue.model_copy(update={"turns": dialogue.turns[: 2 * turn]}))
        for dialogue, turn in drawn[:n]
    ]


def _fresh(dialogue: Dialogue, turn: int) -> bool:
    return dialogue.answers[turn - 1] != dialogue.answers[turn - 2]


def altered(items: Sequence[Item], alteration: Alteration) -> list[Item]:
    """The items altered, in order. Raises ValueError where all are of one session and none can be swapped."""
    match alteration:
        case "null":
            return [item.answered(NULL) for item in items]
        case "swapped":
            return [item.answered(_elsewhere(items, index).answer) for index, item in enumerate(items)]
        case "stale":
            return [item.answered(item.dialogue.answers[-2]) for item in items]
        case "padded":
            return [item.answered(f"{item.answer}\n\n{PADDING}") for item in items]
        case "history swapped":
            return [item.behind(_elsewhere(items, index).dialogue) for index, item in enumerate(items)]
        case "history hidden":
            nothing = Dialogue(id="", source="")
            return [item.behind(nothing) for item in items]
        case _:
            return list(items)


def _elsewhere(items: Sequence[Item], index: int) -> Item:
    """The next item of another session, round the end."""
    for step in range(1, len(items)):
        other = items[(index + step) % len(items)]
        if other.question.id != items[index].question.id:
            return other
    raise ValueError("all items are of one session")


class Finding(Record):
    """One thing found of a judge. ``holds`` is None where nothing is asked of it, or where it could not be told."""

    what: str
    found: str
    wanted: str
    holds: bool | None


class Card(Record):
    """What was found of a judge over ``items`` turns of ``sessions`` sessions."""

    judge: str
    items: int
    sessions: int
    findings: tuple[Finding, ...]
    evaluation: str = ""  # on whose answers: see ``evaluated``

    @property
    def unfit(self) -> tuple[str, ...]:
        """The tests that it failed; one is enough not to trust it with a comparison in several turns."""
        return tuple(one.what for one in self.findings if one.holds is False)

    @property
    def red_line(self) -> str | None:
        """One line for whoever reads its scores; None where it is fit."""
        if not self.unfit:
            return None
        return f"{self.judge} is not fit for this comparison. Its card says NO to: {'; '.join(self.unfit)}"

    def table(self) -> Table:
        """For the report."""
        answers = {True: "yes", False: "NO", None: "-"}
        rows = tuple((one.what, one.found, one.wanted, answers[one.holds]) for one in self.findings)
        return Table(f"Judge card of {self.judge}", ("Test", "Found [95%]", "Wanted", "Holds"), rows, NOTES)


NOTES = (
    "The same turns, from the second on, judged as they came and altered. Drop: score as it came minus score altered, "
    "paired, its interval over sessions; a test holds where the whole interval is above 0. Gain of padding: the other "
    "way round; that test fails where the whole interval is above 0, so few turns hide a small gain.",
    "Lower in: the share of turns where the altered answer got less, ties counted as half.",
    "A test that does not hold may lack turns: judge-check --items sets how many.",
)


def card(judge: str, judgments: Sequence[Judgment], lengths: Mapping[tuple[str, int], int], numbers: Numbers) -> Card:
    """The card from the verdicts on all alterations; ``model`` of a verdict names its alteration.

    ``lengths`` has the words of each item's answer as it came. Repeats are named ``again 2`` to ``again 5``.
    """
    scores: Mapping[str, Values] = defaultdict(dict, scored(judgments))
    came = scores["as it came"]
    findings = [_coverage(judgments)]
    findings += [_punished(name, what, came, scores[name], numbers) for name, what in MUST_PUNISH.items()]
    findings.append(_hidden(came, scores, numbers))
    findings.append(_padding(came, scores["padded"], numbers))
    findings += [_repeats(came, scores), _favours_length(came, lengths)]
    items = {(one.dialogue, one.turn) for one in judgments}
    return Card(
        judge=judge, items=len(items), sessions=len({session for session, _ in items}), findings=tuple(findings)
    )


def _finding(what: str, found: str, wanted: str, holds: bool | None) -> Finding:
    return Finding(what=what, found=found, wanted=wanted, holds=holds)


def _coverage(judgments: Sequence[Judgment]) -> Finding:
    given = sum(one.score is not None for one in judgments)
    holds = given >= COVERED * len(judgments) if judgments else None
    return _finding("gives a verdict", f"{given}/{len(judgments)}", f"at least {COVERED:.0%}", holds)


def _punished(name: str, what: str, came: Values, changed: Values, numbers: Numbers) -> Finding:
    drop = numbers.difference(came, changed)
    lower = [
        (scores[turn] > changed[session][turn]) + (scores[turn] == changed[session][turn]) / 2
        for session, scores in came.items()
        for turn in scores
        if turn in changed.get(session, {})
    ]
    share = f", lower in {fmean(lower):.0%}" if lower else ""
    return _finding(f"punishes {what}", f"drop {written(drop, '+.2f')}{share}", "drop > 0", _above(drop))


def _above(estimate: Estimate | None) -> bool | None:
    return None if estimate is None or estimate.low is None else estimate.low > 0


def _padding(came: Values, padded: Values, numbers: Numbers) -> Finding:
    gain = numbers.difference(padded, came)
    more = _above(gain)
    wanted = "gain not > 0"
    return _finding(
        "is not won by padding", f"gain {written(gain, '+.2f')}", wanted, None if more is None else not more
    )


def _hidden(came: Values, scores: Mapping[str, Values], numbers: Numbers) -> Finding:
    """How far hiding the history moves single scores, beyond how far judging the same again does."""
    moved = _distance(came, scores["history hidden"])
    again = [_distance(came, scores[name]) for name in scores if name.startswith("again")]
    noise: dict[str, dict[int, float]] = {}
    for session, turns in moved.items():
        for turn in turns:
            drawn = [one[session][turn] for one in again if turn in one.get(session, {})]
            if drawn:
                noise.setdefault(session, {})[turn] = fmean(drawn)
    more = numbers.difference(moved, noise)
    return _finding("history hidden", f"moves a score by {written(more, '.2f')} more than a repeat", "", None)


def _distance(one: Values, other: Values) -> dict[str, dict[int, float]]:
    return {
        session: {turn: abs(score - other[session][turn]) for turn, score in turns.items() if turn in other[session]}
        for session, turns in one.items()
        if session in other
    }


def _repeats(came: Values, scores: Mapping[str, Values]) -> Finding:
    """The standard deviation of one verdict over its repeats, pooled over items."""
    again = [came, *(scores[name] for name in scores if name.startswith("again"))]
    spreads = []
    for session, turns in came.items():
        for turn in turns:
            drawn = [one[session][turn] for one in again if turn in one.get(session, {})]
            if len(drawn) > 1:
                spreads.append(float(np.var(drawn, ddof=1)))
    found = "-"
    if spreads:
        found = f"SD {math.sqrt(fmean(spreads)):.2f}, not the same in {sum(one > 0 for one in spreads)}/{len(spreads)}"
    return _finding(f"the same verdict {len(again)} times", found, "", None)


def _favours_length(came: Values, lengths: Mapping[tuple[str, int], int]) -> Finding:
    pairs = [
        (lengths[session, turn], score)
        for session, turns in came.items()
        for turn, score in turns.items()
        if (session, turn) in lengths
    ]
    rho = rank_correlation([words for words, _ in pairs], [score for _, score in pairs])
    return _finding("score and words of the answer", "-" if rho is None else f"rank correlation {rho:+.2f}", "", None)


def kept(recipe: Recipe) -> Card | None:
    """The card that was made for the recipe's evaluation as it is now; None where none was.

    One that was made before the evaluation ran again with another judge, or of other models, says nothing of this one.
    """
    path = recipe.folder(FOLDER) / CARD
    if not path.exists():
        return None
    found = Card.model_validate_json(path.read_text(encoding="utf-8"))
    return found if found.evaluation == evaluated(recipe) else None


def evaluated(recipe: Recipe) -> str:
    """What tells the recipe's finished evaluation from one by another recipe or of other inputs."""
    manifest = json.loads((recipe.folder("eval") / "manifest.json").read_text(encoding="utf-8"))
    return str(manifest["resolved_sha256"])
