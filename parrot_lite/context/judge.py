"""The judge's detector: a speaker is shown the message alone, and says whether it can be understood like that.

The history is withheld on purpose: a judge who sees it knows what was meant, and finds the message clear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from parrot_lite.context import Asked, Verdict
from parrot_lite.types import Dialogue, Reply

PROMPT = Path(__file__).parents[1] / "data" / "prompts" / "dependence.txt"
CHOICES = ("yes", "no")  # whole replies of a judge that can weigh them; "no" is "dependent"
UNREAD = "neither yes nor no"


def parse(text: str) -> bool | None:
    """Whether the judge found the message dependent; None where it said neither yes nor no, or both.

    >>> parse("No."), parse("**Yes**, it names the city.")
    (True, False)
    >>> parse("Yes and no.") is parse("Perhaps.") is None
    True
    """
    words = set(re.findall(r"\b(?:yes|no)\b", text.lower()))
    return None if len(words) != 1 else words == {"no"}


def judge(
    asked: Sequence[Asked], reply: Callable[[Sequence[Dialogue]], list[Reply]], threshold: float
) -> list[Verdict]:
    """One verdict a query. Where the judge weighs its choices, "no" must have a probability of ``threshold``."""
    prompt = PROMPT.read_text(encoding="utf-8").strip()
    questions = [
        Dialogue(id=f"{one.id}/{one.turn}/dependence", source="dependence").say(prompt.replace("{query}", one.query))
        for one in asked
    ]
    return [_verdict(one, answer, threshold) for one, answer in zip(asked, reply(questions), strict=True)]


def _verdict(asked: Asked, reply: Reply, threshold: float) -> Verdict:
    said = Verdict(detector="judge", session=asked.id, turn=asked.turn, why=UNREAD)
    if reply.text is None:
        return said.model_copy(update={"why": f"no reply: {reply.reason}", "again": reply.lasting is None})
    if reply.weights is not None:
        no = reply.weights[CHOICES.index("no")]
        return said.model_copy(
            update={"dependent": no >= threshold, "why": f"no {no:.2f}", "scores": {"no": round(no, 4)}}
        )
    dependent = parse(reply.text)
    if dependent is None:
        return said
    return said.model_copy(update={"dependent": dependent, "why": "no" if dependent else "yes"})
