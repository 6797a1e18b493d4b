"""Two models' answers at the same turn, compared by a judge in both orders, each with the session that it stands in.

Judges prefer a place (Zheng et al., arXiv 2306.05685, section 3.3), so a win counts where both orders agree on it; else
the comparison is a tie, and how often the orders disagree stands beside the result.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from parrot_lite.chat import Chat
from parrot_lite.evaluate.estimates import Numbers, share
from parrot_lite.evaluate.judge import heard
from parrot_lite.evaluate.prompts import Prompts
from parrot_lite.evaluate.records import Comparison, Outcome, Played, Preference, Question
from parrot_lite.evaluate.verdicts import (
    PREFERENCES,
    REPAIR_JSON,
    REPAIR_PAIR,
    Call,
    PairRating,
    as_they_come,
    dialogue,
    hear,
    parse_pair_rating,
    parse_preference,
)
from parrot_lite.recipe import Decoding, Judge, Server
from parrot_lite.table import Table
from parrot_lite.types import NO_ANSWER, Reply, missing_for_now


@dataclass(frozen=True)
class _Case:
    """A turn of two sessions: its comparison without verdicts, and both calls."""

    comparison: Comparison
    calls: tuple[Call[Preference], Call[Preference]]


def compare(
    played: Sequence[Played],
    questions: Sequence[Question],
    pairs: Sequence[tuple[str, str]],
    chat: Chat,
    prompts: Prompts,
    spec: Judge,
    seed: int,
    lanes: tuple[int, int],
    skip: Container[object] = (),
) -> Generator[list[Comparison]]:
    """One Comparison for every turn of every pair of players, in groups, each as soon as it is there.

    A session that was not played is left out. A turn that one of the two did not answer gets its Comparison without a
    call. ``skip`` holds the (model_a, model_b, dialogue, turn) that are there already. Where a call failed, both orders
    are without a verdict and ``again`` tells whether to make them again. ``lanes``: see ``judge``.
    """
    sessions = {(one.model, one.dialogue.id): one for one in played}
    cases: list[_Case] = []
    unanswered: list[Comparison] = []
    for question in questions:
        for a, b in pairs:
            if (a, question.id) not in sessions:  # it has no reference history
                continue
            both = sessions[a, question.id], sessions[b, question.id]
            for turn in range(1, len(question.queries) + 1):
                if (a, b, question.id, turn) in skip:
                    continue
                lacking = [one for one in both if turn > len(one.dialogue.answers)]
                comparison = Comparison(
                    model_a=a,
                    model_b=b,
                    dialogue=question.id,
                    category=question.category,
                    turn=turn,
                    judge=f"{chat.name}@{prompts.name}",
                    reason="; ".join(f"{NO_ANSWER} of {one.model}: {one.failed}" for one in lacking) or None,
                )
                if lacking:
                    unanswered.append(comparison)
                else:
                    cases.append(_case(comparison, both, question, prompts, chat.name, spec))
    if unanswered:
        yield unanswered
    work = partial(_ask, chat=chat, decoding=_decoding(spec), seed=seed)
    yield from as_they_come(work, cases, lanes, chat)


def _decoding(spec: Judge) -> Decoding:
    return Decoding(
        temperature=0.0,
        top_p=1.0,
        max_tokens=spec.max_tokens,
        choices=PREFERENCES if spec.verdict == "expected" else (),  # the likeliest of the three
        json_schema=PairRating.model_json_schema() if spec.verdict == "json" else None,
    )


def _case(
    comparison: Comparison, both: tuple[Played, Played], question: Question, prompts: Prompts, name: str, spec: Judge
) -> _Case:
    parse: Callable[[str], Preference | None] = parse_pair_rating if spec.verdict == "json" else parse_preference
    repair = (REPAIR_JSON if spec.verdict == "json" else REPAIR_PAIR).read_text(encoding="utf-8").strip()

    def read(reply: Reply) -> Preference | None:
        return parse(reply.text or "")

    first, second = (heard(one, question, comparison.turn) for one in both)
    calls: list[Call[Preference]] = []
    for ask, place in ((prompts.pair(first, second), "ab"), (prompts.pair(second, first), "ba")):
        id = f"{comparison.model_a}/{comparison.model_b}/{comparison.dialogue}/{comparison.turn}/{place}"
        calls.append(Call(dialogue(id, ask, isinstance(spec.chat, Server)), read, repair))
    return _Case(comparison.model_copy(update={"judge": f"{name}@{ask.name}"}), (calls[0], calls[1]))


def _ask(cases: Sequence[_Case], chat: Chat, decoding: Decoding, seed: int) -> list[Comparison]:
    found = hear([call for case in cases for call in case.calls], chat, decoding, seed)
    comparisons = []
    for case, first, second in zip(cases, found[::2], found[1::2], strict=True):
        missing = [one for one in (first, second) if one.value is None]
        # One that may come next time before one that will not: both orders are then asked for again.
        failed = max(missing, key=lambda one: missing_for_now(one.reason, one.lasting), default=None)
        comparisons.append(
            case.comparison.model_copy(
                update={
                    "first": first.value,
                    "second": second.value,
                    "first_text": first.text,
                    "second_text": second.text,
                    "reason": failed.reason if failed else None,
                    "lasting": failed.lasting if failed else None,
                }
            )
        )
    return comparisons


def table(comparisons: Sequence[Comparison], numbers: Numbers) -> Table:
    """One row a pair: how often the first wins, with an interval over sessions, and how often the orders disagree."""
    rows = []
    for a, b in dict.fromkeys((one.model_a, one.model_b) for one in comparisons):
        own = [one for one in comparisons if (one.model_a, one.model_b) == (a, b)]
        settled = [one for one in own if one.outcome is not None]
        counts = [sum(one.outcome == outcome for one in settled) for outcome in ("a", "tie", "b")]
        shares = " / ".join(_share(count, len(settled)) for count in counts)
        bias = _share(sum(not one.consistent for one in settled), len(settled))
        places = [one.place for one in settled]
        leaning = f"{places.count('first')} first, {places.count('second')} second"
        rate = share(numbers.mean(wins(own)), ".3f")
        rows.append((f"{a} against {b}", rate, shares, f"{bias}\n{leaning}", f"{len(settled)}/{len(own)}"))
    return Table(
        "Answers compared in both orders",
        ("Models", "Win rate [95%]", "Win / tie / lose", "Orders disagree", "Turns"),
        tuple(rows),
        (
            "Win rate: wins and half of the ties, of all turns with both verdicts. A win is one in both orders; where "
            "they do not agree, it is a tie.",
            "Orders disagree: the judge's position bias; below it, in how many of these turns it took the answer that "
            "stood first in both orders, or second.",
        ),
        main=True,
    )


POINTS: Mapping[Outcome, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}


def wins(comparisons: Sequence[Comparison]) -> dict[str, dict[int, float]]:
    """Session -> turn -> 1 where ``model_a`` wins, 0.5 for a tie, 0 where it loses, of one pair's settled turns."""
    found: dict[str, dict[int, float]] = {}
    for one in comparisons:
        if one.outcome is not None:
            found.setdefault(one.dialogue, {})[one.turn] = POINTS[one.outcome]
    return found


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.0f}%" if total else "-"
