"""What the benches train on: sessions of a wanted shape, of real words in no real order, with their negatives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from parrot_lite.lm.tokens import Renderer
from parrot_lite.recipe import Recipe
from parrot_lite.recipe_file import load
from parrot_lite.store import locate, read
from parrot_lite.types import KINDS, Branch, Dialogue, Negative, SessionTree, Turn

QUERY = 24  # tokens of a query


def recipe(precision: str, *overrides: str) -> Recipe:
    """The demo's model in ``fp32``, ``bf16`` or ``nf4`` (4-bit base, bfloat16 arithmetic)."""
    held = {
        "fp32": ("model.load_in_4bit=false", "model.dtype=float32"),
        "bf16": ("model.load_in_4bit=false", "model.dtype=bfloat16"),
        "nf4": ("model.load_in_4bit=true", "model.dtype=bfloat16"),
    }[precision]
    return load("recipes/demo.toml", [*held, *overrides])


@cache
def _words() -> tuple[str, ...]:
    sessions = read(locate("package:parrot_lite/data/sessions.jsonl"), Dialogue)
    return tuple(word for session in sessions for turn in session.turns for word in turn.content.split())


def _text(renderer: Renderer, draw: random.Random, tokens: int) -> str:
    ids = renderer.encode(" ".join(draw.choices(_words(), k=tokens)))
    text: str = renderer.tokenizer.decode(ids[:tokens])
    return text.strip()


def dependent(turns: int, count: int) -> list[int]:
    """``count`` of ``turns``, as evenly as whole steps allow and the last among them."""
    step = max(1, turns // count)
    return [turns - step * back for back in reversed(range(count))]


def sessions(renderer: Renderer, turns: int, depend: int, tokens: int, seed: int = 0) -> Iterator[SessionTree]:
    """Endless sessions with three negatives at each of ``depend`` turns, all answers of about ``tokens`` tokens."""
    draw = random.Random(seed)
    number = 0
    while True:
        messages: list[Turn] = []
        for _ in range(turns):
            messages.append(Turn(role="user", content=_text(renderer, draw, QUERY)))
            messages.append(Turn(role="assistant", content=_text(renderer, draw, tokens)))
        dialogue = Dialogue(id=f"bench-{number}", source="bench", turns=tuple(messages))
        branches = tuple(
            Branch(
                turn=turn,
                rule="bench",
                negative=Negative(
                    kind=kind,
                    text=_text(renderer, draw, tokens),
                    how="structural",
                    writer="bench",
                    done="random words",
                    saw=dialogue.before(turn).turns[-1:],
                ),
            )
            for turn in dependent(turns, depend)
            for kind in KINDS
        )
        yield SessionTree(dialogue=dialogue, branches=branches)
        number += 1
