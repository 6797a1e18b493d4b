"""A judge's verdict on a negative: which of two answers fits the conversation, asked in both orders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from parrot_lite.chat.calls import Speaker
from parrot_lite.collect.authors import Failed, text_of
from parrot_lite.collect.prompts import Prompt
from parrot_lite.collect.shown import Skipped, place_id
from parrot_lite.types import Branch, Dialogue, Record, Reply, SessionTree

_VERDICT = re.compile(r"\[\[\s*([AB])\s*\]\]")


class Verdict(Record):
    """Whether one negative is worse than its chosen answer; None where there is no verdict, for a reason."""

    id: str
    worse: bool | None = None
    reason: str | None = None
    judge: tuple[str | None, str | None] | None = None  # what it wrote, the chosen answer being A, then B
    log_probs: tuple[float, float] | None = None  # nats a token, of the chosen answer and of the negative


def branch_id(tree: SessionTree, branch: Branch) -> str:
    """The name of a branch's negative, in every file of the stage."""
    return place_id(tree.id, branch.turn, branch.negative.kind, branch.negative.how)


def parse(text: str) -> str | None:
    """The last ``[[A]]`` or ``[[B]]`` of a judge's text; None where there is none.

    >>> parse("One says [[A]], yet it is of another thing. [[B]]")
    'B'
    >>> parse("A, I think") is None
    True
    """
    found = _VERDICT.findall(text)
    return str(found[-1]) if found else None


def neutralise(text: str) -> str:
    """``text`` without verdicts, so that a judge who quotes it gives none by that.

    >>> neutralise("Choose [[A]] or [[[B]]]!")
    'Choose [ [A]] or [ [ [B]]]!'
    """
    return re.sub(r"\[(?=\[)", "[ ", text)


def render(prompt: Prompt, context: Dialogue, a: str, b: str) -> str:
    """What the judge reads."""
    lines = [f"{turn.role.capitalize()}: {neutralise(turn.content)}" for turn in context.turns]
    return prompt.fill(history="\n\n".join(lines), a=neutralise(a), b=neutralise(b))


def by_judge(judge: Speaker, prompt: Prompt, trees: Sequence[SessionTree]) -> Iterator[list[Verdict | Failed]]:
    """Every pair in both orders; worse only where both verdicts prefer the chosen answer."""
    asked: list[Dialogue] = []
    for tree in trees:
        for branch in tree.branches:
            both = tree.chosen(branch), branch.negative.text
            for order, (a, b) in (("chosen-first", both), ("negative-first", both[::-1])):
                text = render(prompt, tree.dialogue.before(branch.turn), a, b)
                asked.append(Dialogue(id=f"{branch_id(tree, branch)}/{order}", source="judge").say(text))
    replies = iter(judge.reply(asked))
    for tree in trees:
        yield [_judged(branch_id(tree, branch), next(replies), next(replies)) for branch in tree.branches]


def _judged(name: str, first: Reply, second: Reply) -> Verdict | Failed:
    texts = text_of(first), text_of(second)
    for text in texts:
        if isinstance(text, Failed):
            return text
    written = first.text, second.text  # of a cut reply, what there is of it
    lacking = next((text.reason for text in texts if isinstance(text, Skipped)), None)
    if lacking is not None:
        return Verdict(id=name, worse=None, reason=lacking, judge=written)
    match parse(written[0] or ""), parse(written[1] or ""):
        case (None, _) | (_, None):
            return Verdict(id=name, worse=None, reason="no verdict", judge=written)
        case "A", "B":
            return Verdict(id=name, worse=True, judge=written)
        case "B", "A":
            return Verdict(id=name, worse=False, reason="the negative preferred", judge=written)
    return Verdict(id=name, worse=False, reason="the two orders disagree", judge=written)
