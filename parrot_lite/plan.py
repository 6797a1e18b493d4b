"""``--dry-run``: what every stage would read, how much, and in how many steps, without weights, data or torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from parrot_lite.chat import describe
from parrot_lite.errors import UserError
from parrot_lite.recipe import Recipe, Stage, Training
from parrot_lite.store import finished, locate
from parrot_lite.train.steps import steps_of

Row = tuple[str, str, str | None]  # inputs, size, steps where there are any


def show(recipe: Recipe, until: Stage) -> None:
    """Print the stages up to ``until`` with their state, inputs, sizes and steps."""
    console = Console(highlight=False)
    console.print(f"{recipe.name}: what the stages up to {until} would do (sizes are upper bounds)")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for stage, row in STAGES.items():
        folder = recipe.folder(stage)
        state = "finished" if finished(recipe, stage) else "begun" if (folder / "recipe.toml").exists() else "to do"
        reads, size, steps = row(recipe)
        table.add_row()
        table.add_row(f"[bold]{stage}[/]", state, escape(size + (f", {steps} optimizer steps" if steps else "")))
        table.add_row("", "reads", escape(reads))
        table.add_row("", "writes", escape(str(folder)))
        if stage == until:
            break
    console.print(table)


def _logs(recipe: Recipe) -> Row:
    wanted = _number(recipe.logs.sessions)
    source = f"{recipe.logs.source} {recipe.logs.path or ''}".strip()
    return source, f"{wanted} train + {recipe.logs.heldout} held-out sessions", None


def _training(section: str) -> Callable[[Recipe], Row]:
    def row(recipe: Recipe) -> Row:
        settings = getattr(recipe, section)
        counts = [_sessions(recipe, name) for name in settings.data]
        total = None if None in counts else sum(count for count in counts if count is not None)
        sessions = total if settings.sessions is None else min(settings.sessions, total or settings.sessions)
        size = f"{_number(sessions)} sessions x {settings.max_tokens} tokens x {settings.epochs:g} epochs"
        return f"{', '.join(settings.data)}; {_base(recipe)}", size, _steps(settings, sessions)

    return row


def _collect(recipe: Recipe) -> Row:
    c = recipe.collect
    seeds = ", ".join(f"{one.label} {one.path or ''}".strip() for one in c.seeds)
    reads = f"seeds: {seeds}; asker: {describe(c.asker)}; answerer: {describe(c.answerer)}"
    calls = c.sessions * (2 * c.max_turns - 1)
    return reads, f"{c.sessions:,} sessions x {c.max_turns} turns, {calls:,} calls", None


def _negatives(recipe: Recipe) -> Row:
    n = recipe.negatives
    return f"{', '.join(n.data)}; writer: {describe(n.writer)}", f"{_number(_pairs(recipe))} negatives", None


def _pairs(recipe: Recipe) -> int | None:
    sessions = _trees(recipe)
    return None if sessions is None else sessions * recipe.negatives.turns_per_session * len(recipe.negatives.wanted)


def _trees(recipe: Recipe) -> int | None:
    n = recipe.negatives
    counts = [_sessions(recipe, name) for name in n.data]
    total = None if None in counts else sum(count for count in counts if count is not None)
    return total if n.sessions is None else min(n.sessions, total or n.sessions)


def _capo(recipe: Recipe) -> Row:
    c = recipe.capo
    trees = recipe.folder("negatives") / "trees.jsonl"
    bound = _pairs(recipe)
    pairs = bound if c.pairs is None else min(c.pairs, bound or c.pairs)
    sessions = _trees(recipe) if pairs is None else min(_trees(recipe) or pairs, pairs)
    if c.layout == "tree":
        units, size = sessions, f"{_number(sessions)} sessions with {_number(pairs)} pairs x {c.tree_tokens} tokens"
    else:
        units, size = pairs, f"{_number(pairs)} pairs x 2 x {c.max_tokens} tokens"
    size += f" x {c.epochs:g} epochs"
    return f"{trees}; adapter of train-sft; {_base(recipe)}", size, _steps(c, units)


def _eval(recipe: Recipe) -> Row:
    from parrot_lite.evaluate.bench import load, pick

    e = recipe.eval
    models = "; ".join(f"{name}: {describe(spec)}" for name, spec in e.models.items())
    judge = f"; judge: {describe(e.judge.chat)}" if e.judge else ""
    try:
        questions = pick(load(e.bench), e.sessions)
    except UserError as error:
        return f"{e.bench}: {error.what}; {models}{judge}", "?", None
    answers = sum(len(question.queries) for question in questions) * len(e.models)
    verdicts = f", {answers} verdicts" if e.judge else ""
    return f"{e.bench}; {models}{judge}", f"{len(questions)} sessions, {answers} answers{verdicts}", None


STAGES: dict[Stage, Callable[[Recipe], Row]] = {
    "logs": _logs,
    "train-ask": _training("ask"),
    "collect": _collect,
    "negatives": _negatives,
    "train-sft": _training("sft"),
    "train-capo": _capo,
    "eval": _eval,
}


def _base(recipe: Recipe) -> str:
    try:
        here = locate(recipe.model.base).exists()
    except UserError as error:
        return f"{recipe.model.base} ({error.what})"
    held = "NF4" if recipe.model.load_in_4bit else recipe.model.dtype
    return f"{recipe.model.base} in {held}" + ("" if here else " (from the hub, not checked)")


def _sessions(recipe: Recipe, name: str) -> int | None:
    """How many sessions a ``data`` entry holds: counted where the file is there, else what the recipe asks for."""
    files = {"logs": recipe.folder("logs") / "train.jsonl", "collect": recipe.folder("collect") / "dialogues.jsonl"}
    path = files.get(name, Path(name))
    if path.exists() and (name not in files or (path.parent / "manifest.json").exists()):
        with path.open("rb") as file:
            return sum(1 for _ in file)
    return {"logs": recipe.logs.sessions, "collect": recipe.collect.sessions}.get(name)


def _steps(section: Training, examples: int | None) -> str:
    return "an unknown number of" if examples is None else f"{steps_of(section, examples):,}"


def _number(value: int | None) -> str:
    return "all" if value is None else f"{value:,}"
