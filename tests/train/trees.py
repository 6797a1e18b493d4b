"""Small session trees."""

from __future__ import annotations

from parrot_lite.types import KINDS, Branch, Dialogue, How, Kind, Negative, SessionTree, Turn
from tests.lm.test_template import session

ICE = session("Why is ice cold?", "Because heat leaves.", "And snow?", "It too.", "Why?", "Because heat leaves.")
ALONE = (Turn(role="user", content="And snow?"),)


def branch(
    dialogue: Dialogue,
    turn: int,
    kind: Kind,
    text: str,
    chosen: str | None = None,
    context: tuple[Turn, ...] | None = None,
    how: How = "structural",
) -> Branch:
    saw = dialogue.before(turn).turns[-1:]
    negative = Negative(kind=kind, text=text, how=how, writer="test", done="history withheld", saw=saw)
    return Branch(turn=turn, rule="ellipsis", negative=negative, chosen=chosen, context=context)


def tree(dialogue: Dialogue = ICE, text: str = "It is cold.", turns: tuple[int, ...] = (2, 3)) -> SessionTree:
    return SessionTree(
        dialogue=dialogue, branches=tuple(branch(dialogue, t, k, f"{text} {k}") for t in turns for k in KINDS)
    )
