"""The negatives stage: rejected answers for context-dependent turns (paper section 3.3). Run: parrot negatives

The paper's three kinds lie in what their writer was not shown (shown.py). Controls: same-writer (the full history),
degraded (the full history, a poor answer asked for) and random (another session's answer, no writer).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parrot_lite.chat import all_at_once, inputs_of, open_chat
from parrot_lite.chat.meter import Meter, check_prices
from parrot_lite.collect.calls import Failures, Speaker, put_in_order
from parrot_lite.collect.shown import Contexts, Place, Shown, Skipped, shown
from parrot_lite.context import dependence
from parrot_lite.errors import UserError
from parrot_lite.progress import progress, say
from parrot_lite.recipe import Recipe
from parrot_lite.store import Journal, RunFolder, dialogue_files, locate, read, stage_folder
from parrot_lite.types import Branch, Dialogue, Kind, Negative, Rejected, Reply, SessionTree, derive_seed

PROMPTS: dict[Kind, str] = {"hallucination": "guess-referent.txt", "degraded": "degraded-answer.txt"}


@dataclass(frozen=True)
class Failed:
    """A failed call, which a later attempt repeats."""

    reason: str


@dataclass(frozen=True)
class Files:
    """The stage's three files."""

    trees: Journal[SessionTree]
    rejected: Journal[Rejected]
    skipped: Journal[Rejected]


def run(recipe: Recipe, rerun: bool = False) -> None:
    """Hang negatives on the context-dependent turns of the data's sessions; writes ``trees.jsonl``.

    ``rejected.jsonl`` holds the sessions without a tree, ``skipped.jsonl`` the negatives left out. Raises UserError
    where the data does not hold, where calls failed (run again: only those sessions are repeated) and where no session
    has a negative; StageChanged where the folder belongs to another recipe or other data.
    """
    settings = recipe.negatives
    check_prices(recipe, [settings.writer])
    files = dialogue_files(recipe, settings.data)
    prompts = {
        kind: locate(f"package:parrot_lite/data/prompts/{name}")
        for kind, name in PROMPTS.items()
        if kind in settings.kinds
    }
    inputs = {
        **inputs_of(settings.writer, recipe),
        **files,
        **{f"prompts/{path.name}": path for path in prompts.values()},
    }
    with stage_folder(recipe, "negatives", inputs, rerun) as folder:
        if folder is None:
            return
        sessions = _interleaved(files)
        with (
            folder.journal("trees.jsonl", SessionTree, lambda tree: tree.id) as trees,
            folder.journal("rejected.jsonl", Rejected, lambda rejected: rejected.id) as rejected,
            folder.journal("skipped.jsonl", Rejected, lambda skipped: skipped.id) as skipped,
            Meter(recipe, folder.path) as meter,
        ):
            chosen = _choose(recipe, sessions, rejected)
            left = [places for name, places in chosen.items() if name not in trees and name not in rejected]
            texts = {kind: path.read_text(encoding="utf-8").strip() for kind, path in prompts.items()}
            contexts = Contexts(sessions, texts, derive_seed(recipe.run.seed, "negatives"))
            if left:
                failures = _hang(recipe, left, len(chosen), contexts, Files(trees, rejected, skipped), meter)
                failures.refuse("negatives", folder.path, len(chosen))
            folder.facts["tokens"] = meter.tokens  # generated, in all attempts, as are the calls
            folder.facts["calls"] = meter.facts()
        put_in_order(folder.path / "trees.jsonl", lambda record: record["dialogue"]["id"], list(chosen))
        _count(folder)


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


def _choose(recipe: Recipe, sessions: Sequence[Dialogue], rejected: Journal[Rejected]) -> dict[str, list[Place]]:
    """The negatives to write, by session; a session without a dependent turn is rejected."""
    settings = recipe.negatives
    kinds = tuple(dict.fromkeys(settings.kinds))
    chosen: dict[str, list[Place]] = {}
    for session in sessions:
        if len(chosen) == settings.sessions:
            break
        rules = {turn: dependence(session.queries[turn - 1], turn) for turn in range(2, len(session.answers) + 1)}
        dependent = [(turn, rule) for turn, rule in rules.items() if rule is not None][-settings.turns_per_session :]
        if dependent:
            chosen[session.id] = [Place(session, turn, rule, k) for turn, rule in dependent for k in kinds]
        elif session.id not in rejected:
            rejected.append(Rejected(id=session.id, source=session.source, reason="no dependent turn"))
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
    settings = recipe.negatives
    failures = Failures()
    with closing(open_chat(settings.writer, recipe, meter)) as chat:
        writer = Speaker(chat, "assistant", settings.decoding, derive_seed(recipe.run.seed, "negatives"))
        size = len(left) if all_at_once(settings.writer) else settings.chunk
        with progress("negatives", total, total - len(left)) as bar:
            for start in range(0, len(left), size):
                chunk = left[start : start + size]
                # What an earlier attempt skipped stays skipped, or a sampled retry could count it on both sides.
                places = [place for session in chunk for place in session if place.id not in files.skipped]
                results = _write(places, contexts, writer)
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


def _settle(places: Sequence[Place], results: Mapping[str, Negative | Skipped | Failed], files: Files) -> str | None:
    """Write what came of one session; the reason where a call failed, so that the session stays unfinished."""
    branches: list[Branch] = []
    failed = None
    session = places[0].session
    for place in places:
        match results.get(place.id):
            case Negative() as negative:
                branches.append(Branch(turn=place.turn, rule=place.rule, negative=negative))
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


def _write(places: Sequence[Place], contexts: Contexts, writer: Speaker) -> dict[str, Negative | Skipped | Failed]:
    """One result a place. All guesses go to the writer together, then all answers."""
    results: dict[str, Negative | Skipped | Failed] = {}
    answering: list[tuple[Place, Shown]] = []
    guessing: list[tuple[Place, Shown]] = []
    for place in places:
        if place.kind == "random":
            results[place.id] = _random(place, contexts)
            continue
        context = contexts.show(place)
        if isinstance(context, Skipped):
            results[place.id] = context
        else:
            (guessing if place.kind == "hallucination" else answering).append((place, context))
    for (place, _), reply in zip(guessing, writer.reply([each.context for _, each in guessing]), strict=True):
        guess = _guess(place, reply)
        if isinstance(guess, Shown):
            answering.append((place, guess))
        else:
            results[place.id] = guess
    for (place, each), reply in zip(answering, writer.reply([each.context for _, each in answering]), strict=True):
        text = _text(reply)
        results[place.id] = text if not isinstance(text, str) else _negative(place, text, writer.name, each)
    return results


def _random(place: Place, contexts: Contexts) -> Negative | Skipped:
    if (drawn := contexts.exchange_elsewhere(place)) is None:
        return Skipped("no other session")
    session, turn = drawn
    there = Shown(session.before(turn), f"the answer of another session: {session.id} turn {turn}")
    return _negative(place, session.answers[turn - 1], session.source, there)


def _guess(place: Place, reply: Reply) -> Shown | Skipped | Failed:
    """The guessed question as all that the writer of the answer sees."""
    text = _text(reply)
    if not isinstance(text, str):
        return text
    guess = text.splitlines()[0].strip().strip('"').strip()
    if not guess:
        return Skipped("empty reply")
    if guess.casefold() == place.query.casefold():
        return Skipped("nothing guessed")  # the answer would be a second neglect under another name
    return shown(place, [guess], "history withheld; referent guessed")


def _text(reply: Reply) -> str | Skipped | Failed:
    if reply.text is None:
        return Skipped(reply.lasting) if reply.lasting else Failed(reply.reason or "unknown")
    if reply.stop == "length":
        return Skipped("cut at max_tokens")  # an answer that breaks off would teach that breaking off is the fault
    return reply.text.strip() or Skipped("empty reply")


def _negative(place: Place, text: str, writer: str, seen: Shown) -> Negative | Skipped:
    if text == place.chosen:
        return Skipped("equals the chosen answer")
    how: Literal["prompted", "structural"] = "prompted" if place.kind == "degraded" else "structural"
    return Negative(kind=place.kind, text=text, how=how, writer=writer, done=seen.done, saw=seen.context.turns)


def _count(folder: RunFolder) -> None:
    """Counts from the files, so that they are those of all attempts. Raises UserError where no session has a tree."""
    counts = folder.counts
    counts["trees"] = 0
    for tree in read(folder.path / "trees.jsonl", SessionTree):
        counts["trees"] += 1
        rules = {branch.turn: branch.rule for branch in tree.branches}
        counts["turns"] += len(rules)
        counts.update(f"rule: {rule}" for rule in rules.values())
        for branch in tree.branches:
            counts[f"negatives: {branch.negative.kind}"] += 1
            if branch.negative.kind == "misunderstanding":
                counts[f"misunderstanding: {branch.negative.done.partition(':')[0]}"] += 1
    for skipped in read(folder.path / "skipped.jsonl", Rejected):
        counts[f"skipped: {skipped.id.rpartition('/')[2]}, {skipped.reason}"] += 1
    reasons = Counter(record.reason for record in read(folder.path / "rejected.jsonl", Rejected))
    counts.update({f"rejected: {reason}": count for reason, count in reasons.items()})
    if not counts["trees"]:
        raise UserError(
            "no session has a negative: " + ", ".join(f"{count} x {reason}" for reason, count in reasons.items()),
            str(folder.path),
            "Look at the data and the writer, then run with --rerun",
        )
