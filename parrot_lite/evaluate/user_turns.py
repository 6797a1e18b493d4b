"""How well Parrot-Ask expects what real users say next, and where they stop, against the bare base model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parrot_lite.errors import UserError
from parrot_lite.evaluate.records import UserTurn
from parrot_lite.lm import attention
from parrot_lite.lm.likelihood import predicted
from parrot_lite.lm.model import device_of, dtype_of, load_for_inference, load_renderer
from parrot_lite.lm.tokens import Renderer
from parrot_lite.progress import progress, say
from parrot_lite.recipe import Recipe
from parrot_lite.store import Journal, fingerprint, model_inputs, read, require_unchanged
from parrot_lite.types import Dialogue

SPEAKERS = ("base", "asker")


def score(recipe: Recipe) -> list[UserTurn]:
    """Every held-out user turn after the first within ``ask.max_tokens``, under the base and under the asker.

    Kept in the report's folder under the hash of what it comes from, so that a killed run goes on and a finished one
    reads. Raises UserError where no such turn is there.
    """
    adapter = require_unchanged(recipe, "train-ask") / "adapter"
    heldout = require_unchanged(recipe, "logs") / "heldout.jsonl"
    sessions = list(read(heldout, Dialogue))
    path = recipe.folder("asker-report") / f"user-turns-{_computed_from(recipe, adapter, heldout)}.jsonl"
    with Journal(path, UserTurn, lambda one: (one.model, one.dialogue, one.turn)) as journal:
        renderer = load_renderer(recipe.model)
        wanted = [
            (session, turns) for session in sessions if (turns := _turns(renderer, session, recipe.ask.max_tokens))
        ]
        if not wanted:
            raise UserError("no held-out session has a second user turn within ask.max_tokens", str(heldout))
        left_off = sum(len(session.queries) - 1 for session in sessions) - sum(turns for _, turns in wanted)
        if left_off:
            say(f"asker-report: {left_off} held-out user turns lie behind ask.max_tokens, left off")
        missing = [(session, turns) for session, turns in wanted if ("asker", session.id, turns + 1) not in journal]
        if missing:
            model = load_for_inference(recipe.model, adapter)
            attention.use(model.get_base_model(), recipe.ask.max_tokens)
            with progress("asker-report: held-out sessions", len(wanted), len(wanted) - len(missing)) as bar:
                for session, _ in missing:
                    for one in _scored(model, renderer, session, recipe.ask.max_tokens):
                        if (one.model, one.dialogue, one.turn) not in journal:
                            journal.append(one)
                    bar.advance()
    return list(read(path, UserTurn))


def _computed_from(recipe: Recipe, adapter: Path, heldout: Path) -> str:
    named = {
        "adapter": fingerprint(adapter),
        "heldout": fingerprint(heldout),
        "base": {name: fingerprint(path) for name, path in model_inputs(recipe.model).items()},
        "model": recipe.model.model_dump(mode="json"),
        "precision": [str(dtype_of(recipe.model)), device_of(recipe.model).type],
        "max_tokens": recipe.ask.max_tokens,
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]


def _turns(renderer: Renderer, session: Dialogue, max_tokens: int) -> int:
    example = renderer.example(session, "user", max_tokens)
    return len(example.tree.answers) if example else 0


def _scored(model: Any, renderer: Renderer, session: Dialogue, max_tokens: int) -> Iterator[UserTurn]:
    """The session's turns under the base, then under the asker."""
    with model.disable_adapter():
        yield from turns_of(model, renderer, session, max_tokens, "base")
    yield from turns_of(model, renderer, session, max_tokens, "asker")


def turns_of(model: Any, renderer: Renderer, session: Dialogue, max_tokens: int, name: str) -> list[UserTurn]:
    """The user turns after the first of one session, under ``model``, which went through ``attention.use``.

    Their loss is that of training: content and end-of-turn mark. A turn ends where that mark begins; inside are the
    tokens before, each predicted where an early end could have come. Raises UserError where the template marks no end.
    """
    example = renderer.example(session, "user", max_tokens)
    if example is None:
        return []
    tree, ends = example.tree, renderer.render(session).ends
    marks: list[int] = []
    for index in range(len(tree.answers)):
        mark = ends[2 * (index + 1)]
        if mark is None:
            raise UserError("the template marks no end of a user turn", "model.template", "Choose another template")
        marks.append(mark)
    watched = [tree.ids[mark] for answer, mark in zip(tree.answers, marks, strict=True) for _ in range(len(answer))]
    found = predicted(model, tree, watched)
    actual, log_ends, likeliest = (column.tolist() for column in found)
    turns: list[UserTurn] = []
    first = 0
    for index, (answer, mark) in enumerate(zip(tree.answers, marks, strict=True)):
        end, close = first + mark - answer.start, first + len(answer)
        content = range(first, end)
        token = tree.ids[mark]
        turns.append(
            UserTurn(
                model=name,
                dialogue=session.id,
                turn=index + 2,
                nll=-sum(actual[first:close]),
                tokens=len(answer),
                end=log_ends[end],
                ended=likeliest[end] == token,
                inside=len(content),
                alarms=sum(likeliest[at] == token != tree.ids[answer.start + at - first] for at in content),
            )
        )
        first = close
    return turns
