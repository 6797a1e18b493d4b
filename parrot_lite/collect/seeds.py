"""First queries: where the sessions of the collect stage start (paper section 3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from parrot_lite.errors import UserError
from parrot_lite.progress import say
from parrot_lite.recipe import Recipe
from parrot_lite.store import RunFolder, existing, locate, read, require
from parrot_lite.types import Dialogue, derive_seed

SOURCE = "collect"


def inputs(recipe: Recipe) -> dict[str, Path]:
    """The files that decide which sessions are begun, by name. Raises UserError where one is missing."""
    return {"collect.seeds": _file(recipe)}


def _file(recipe: Recipe) -> Path:
    match recipe.collect.seeds:
        case "bundled":
            return locate("package:parrot_lite/data/seeds.txt")
        case "logs":
            return require(recipe, "logs") / "train.jsonl"
        case path:
            return existing(Path(path))


def _queries(recipe: Recipe) -> Iterator[str]:
    path = _file(recipe)
    if recipe.collect.seeds == "logs":
        yield from (dialogue.queries[0] for dialogue in read(path, Dialogue) if dialogue.turns)
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as a text file: {error}", str(path), "Give one query a line, UTF-8") from None
    yield from (line.strip() for line in lines if line.strip())


def draw(recipe: Recipe, folder: RunFolder) -> list[Dialogue]:
    """Sessions of one query each. Drawn by a rank of the query itself: asking for more keeps those drawn before."""
    sessions: dict[str, Dialogue] = {}
    for query in _queries(recipe):
        folder.counts["seeds"] += 1
        # 12 hex digits: with 8, two of the paper's 40,000 sessions would share an id in one run of five.
        name = f"{SOURCE}-{hashlib.sha256(query.encode()).hexdigest()[:12]}"
        if name in sessions:
            folder.counts["seeds: exact duplicates dropped"] += 1
        else:
            sessions[name] = Dialogue(id=name, source=SOURCE).say(query)
    wanted, seed = recipe.collect.sessions, recipe.run.seed
    if not sessions:
        raise UserError("no seed query", recipe.collect.seeds, "Give one query a line")
    if len(sessions) < wanted:
        say(f"collect: {wanted} sessions wanted, {len(sessions)} different seed queries there: collecting those")
    return sorted(sessions.values(), key=lambda session: derive_seed(seed, "collect", "draw", session.id))[:wanted]
