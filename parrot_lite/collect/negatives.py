"""The negatives stage: rejected answers for context-dependent turns (paper section 3.3). Run: parrot negatives

The paper's three kinds, each in up to three ways (shown.py). Controls: same-writer (the full history), degraded (the
full history, a poor answer of the chosen one's length asked for) and random (another session's answer, no writer).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from parrot_lite.chat import all_at_once, inputs_of, open_chat
from parrot_lite.chat.calls import Speaker
from parrot_lite.chat.meter import Meter, check_prices
from parrot_lite.collect import worse
from parrot_lite.collect.authors import Authors, Failed, Result
from parrot_lite.collect.calls import Failures, put_in_order
from parrot_lite.collect.prompts import Name, Prompt, load, prompt_of
from parrot_lite.collect.selection import detector_inputs, select
from parrot_lite.collect.shown import Author, Contexts, Place, Skipped
from parrot_lite.collect.tally import tally
from parrot_lite.errors import UserError
from parrot_lite.progress import progress, say
from parrot_lite.recipe import ChatSpec, Negatives, Recipe
from parrot_lite.store import Journal, RunFolder, dialogue_files, read, stage_folder
from parrot_lite.types import Branch, Dialogue, Rejected, SessionTree, derive_seed


@dataclass(frozen=True)
class Files:
    """The stage's three files."""

    trees: Journal[SessionTree]
    rejected: Journal[Rejected]
    skipped: Journal[Rejected]


def run(recipe: Recipe, rerun: bool = False) -> None:
    """Hang negatives on the context-dependent turns of the data's sessions; writes ``trees.jsonl``.

    ``rejected.jsonl`` holds the sessions without a tree, ``skipped.jsonl`` the negatives left out, ``verdicts.jsonl``
    what check_worse found. Raises UserError where data or prompts do not hold, where calls failed (run again: only
    those sessions are repeated) and where no session has a negative; StageChanged where the folder belongs to another
    recipe or other data.
    """
    settings = recipe.negatives
    files = dialogue_files(recipe, settings.data)
    prompts = _prompts(settings)
    speakers = [*_authors(settings).values(), *_checkers(settings)]
    detecting = [settings.dependence.judge or settings.writer] if "judge" in settings.dependence.detectors else []
    check_prices(recipe, [*speakers, *detecting])
    inputs = {name: path for spec in speakers for name, path in inputs_of(spec, recipe).items()}
    inputs |= detector_inputs(recipe)
    inputs |= {**files, **{f"prompts/{prompt.path.name}": prompt.path for prompt in prompts.values()}}
    with stage_folder(recipe, "negatives", inputs, rerun) as folder:
        if folder is None:
            return
        sessions = _interleaved(files)
        with Meter(recipe, folder.path) as meter:
            with (
                folder.journal("trees.jsonl", SessionTree, lambda tree: tree.id) as trees,
                folder.journal("rejected.jsonl", Rejected, lambda rejected: rejected.id) as rejected,
                folder.journal("skipped.jsonl", Rejected, lambda skipped: skipped.id) as skipped,
            ):
                chosen = _choose(recipe, sessions, rejected, folder, meter)
                left = [places for name, places in chosen.items() if name not in trees and name not in rejected]
                seed = derive_seed(recipe.run.seed, "negatives")
                contexts = Contexts(sessions, prompts, seed, settings.borrow)
                if left:
                    failures = _hang(recipe, left, len(chosen), contexts, Files(trees, rejected, skipped), meter)
                    failures.refuse("negatives", folder.path, len(chosen))
            put_in_order(folder.path / "trees.jsonl", lambda record: record["dialogue"]["id"], list(chosen))
            if settings.check_worse != "none":
                failures = worse.check(recipe, folder, prompts.get("which-fits"), meter)
                failures.refuse("negatives", folder.path, len(chosen))
                worse.apply(folder, settings.drop_not_worse)
            folder.facts["tokens"] = meter.tokens  # generated, in all attempts, as are the calls
            folder.facts["calls"] = meter.facts()
        tally(folder)


def _prompts(settings: Negatives) -> dict[Name, Prompt]:
    """The prompt files that this recipe uses."""
    names = [name for kind, how in settings.wanted if (name := prompt_of(kind, how))]
    if settings.check_worse == "judge":
        names.append("which-fits")
    return {name: load(settings.prompts, name) for name in dict.fromkeys(names)}


def _authors(settings: Negatives) -> dict[Author, ChatSpec]:
    """Who writes: the writer unless all is on-policy, the policy where anything is."""
    authors: dict[Author, ChatSpec] = {}
    if set(settings.how) != {"on-policy"}:
        authors["writer"] = settings.writer
    if "on-policy" in settings.how and settings.policy is not None:
        authors["policy"] = settings.policy
    return authors


def _checkers(settings: Negatives) -> list[ChatSpec]:
    checker = {"judge": settings.judge, "likelihood": settings.scorer, "none": None}[settings.check_worse]
    return [] if checker is None else [checker]


def _interleaved(files: Mapping[str, Path]) -> list[Dialogue]:
    """All sessions with an answer, one of each file in turn: a cap on sessions then takes from every file.

    Raises UserError where an id occurs twice.
    """
    found: dict[str, Dialogue] = {}
    open_files = [(path, read(path, Dialogue)) for path in files.values()]
    while open_files:
        unread: list[tuple[Path, Iterator[Dialogue]]] = []
        for path, records in open_files:
            if (record := next(records, None)) is None:
                continue
            unread.append((path, records))
            if record.id in found:
                raise UserError(f"session id '{record.id}' occurs twice in the data", str(path), "Rename one of them")
            found[record.id] = record.complete()
        open_files = unread
    return [session for session in found.values() if session.turns]


def _choose(
    recipe: Recipe, sessions: Sequence[Dialogue], rejected: Journal[Rejected], folder: RunFolder, meter: Meter
) -> dict[str, list[Place]]:
    """The negatives to write, by session; a session without a dependent turn is rejected."""
    settings = recipe.negatives
    by_id = {session.id: session for session in sessions}
    chosen: dict[str, list[Place]] = {}
    for name, marks in select(recipe, sessions, folder, meter).items():
        session = by_id[name]
        dependent = list(marks.items())[-settings.turns_per_session :]
        if dependent:
            chosen[name] = [
                Place(session, turn, rule, kind, how) for turn, rule in dependent for kind, how in settings.wanted
            ]
        elif name not in rejected:
            rejected.append(Rejected(id=name, source=session.source, reason="no dependent turn"))
    if settings.sessions is not None and len(chosen) < settings.sessions:
        say(f"negatives: {settings.sessions} sessions wanted, {len(chosen)} have a context-dependent turn")
    return chosen


def _hang(
    recipe: Recipe,
    left: Sequence[list[Place]],
    total: int,
    contexts: Contexts,
    files: Files,
    meter: Meter,
) -> Failures:
    """Write the negatives of what is left, chunk by chunk."""
    settings, seed = recipe.negatives, derive_seed(recipe.run.seed, "negatives")
    failures = Failures()
    with ExitStack() as stack:
        speakers = {
            author: Speaker(
                stack.enter_context(closing(open_chat(spec, recipe, meter))), "assistant", settings.decoding, seed
            )
            for author, spec in _authors(settings).items()
        }
        authors = Authors(speakers, contexts, settings)
        bar = stack.enter_context(progress("negatives", total, total - len(left)))
        size = len(left) if any(map(all_at_once, _authors(settings).values())) else settings.chunk
        for start in range(0, len(left), size):
            chunk = left[start : start + size]
            # What an earlier attempt skipped stays skipped, or a sampled retry could count it on both sides.
            results = authors.write([place for session in chunk for place in session if place.id not in files.skipped])
            for session in chunk:
                reason = _settle(session, results, files)
                if reason is None:
                    failures.went_through()
                    bar.advance(note=failures.note)
                else:
                    failures.failed(reason)
            if failures.hopeless:
                break
    return failures


def _settle(places: Sequence[Place], results: Mapping[str, Result], files: Files) -> str | None:
    """Write what came of one session; the reason where a call failed, so that the session stays unfinished."""
    branches: list[Branch] = []
    failed = None
    session = places[0].session
    for place in places:
        match results.get(place.id):
            case Branch() as branch:
                branches.append(branch)
            case Skipped(reason):
                files.skipped.append(Rejected(id=place.id, source=session.source, reason=reason))
            case Failed(reason):
                failed = failed or reason
    if failed:
        return failed
    if branches:
        files.trees.append(SessionTree(dialogue=session, branches=tuple(branches)))
    else:
        files.rejected.append(Rejected(id=session.id, source=session.source, reason="no negative left"))
    return None
