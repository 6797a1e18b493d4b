"""The collect stage: asker and answerer take turns from seed queries (paper section 3.2). Run: parrot collect

Sessions go through in chunks, in lockstep, and each is written when it ends. What a session gets is drawn from its id,
so neither chunks nor a resumed run change it (with local models up to the rounding of batches of another size).
What compares sessions with each other waits until all are played.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

from parrot_lite.chat import inputs_of, open_chat
from parrot_lite.collect import filters, seeds
from parrot_lite.collect.calls import Failures, Speaker, put_in_order
from parrot_lite.errors import UserError
from parrot_lite.progress import progress
from parrot_lite.recipe import Collect, Recipe
from parrot_lite.store import Journal, RunFolder, read, stage_folder
from parrot_lite.types import Dialogue, Rejected, Reply, derive_seed

REPEATED = "repeated across sessions"


class End(NamedTuple):
    """A session that stopped: its complete exchanges, why, and the text that stopped it."""

    session: Dialogue
    reason: str
    text: str | None = None


class Unfinished(NamedTuple):
    """A session with a failed call: nothing of it is kept, a later attempt starts it again."""

    reason: str


def run(recipe: Recipe, rerun: bool = False) -> None:
    """Collect ``collect.sessions`` sessions into ``dialogues.jsonl`` and ``rejected.jsonl``.

    Raises UserError where turns or seeds do not hold, where calls failed (run again: only those sessions are played
    again) and where no session was kept; StageChanged where the folder belongs to another recipe.
    """
    collect = recipe.collect
    inputs = {**inputs_of(collect.asker, recipe), **inputs_of(collect.answerer, recipe), **seeds.inputs(recipe)}
    with stage_folder(recipe, "collect", inputs, rerun) as folder:
        if folder is None:
            return
        sessions = seeds.draw(recipe, folder)
        with (
            folder.journal("dialogues.jsonl", Dialogue, lambda kept: kept.id) as kept,
            folder.journal("rejected.jsonl", Rejected, lambda rejected: rejected.id) as rejected,
        ):
            left = [session for session in sessions if session.id not in kept and session.id not in rejected]
            if left:
                failures = _play(recipe, left, kept, rejected, folder)
                failures.refuse("collect", folder.path, len(sessions))
        put_in_order(folder.path / "dialogues.jsonl", lambda record: record["id"], [one.id for one in sessions])
        _part_sessions(folder, collect.keep_turns)
        _count(folder)


def _play(
    recipe: Recipe,
    left: Sequence[Dialogue],
    kept: Journal[Dialogue],
    rejected: Journal[Rejected],
    folder: RunFolder,
) -> Failures:
    """Play what is left and write each session when it ends."""
    collect, seed = recipe.collect, derive_seed(recipe.run.seed, "collect")
    failures = Failures()
    exchanges = 0
    with ExitStack() as stack:
        answering = stack.enter_context(closing(open_chat(collect.answerer, recipe)))
        asking = answering
        if collect.asker != collect.answerer:
            asking = stack.enter_context(closing(open_chat(collect.asker, recipe)))
        answerer = Speaker(answering, "assistant", collect.answerer_decoding, seed)
        asker = Speaker(asking, "user", collect.asker_decoding, seed)
        done = len(kept) + len(rejected)
        bar = stack.enter_context(progress("collect", done + len(left), done))
        for start in range(0, len(left), collect.chunk):
            for end in _lockstep(left[start : start + collect.chunk], asker, answerer, recipe):
                if isinstance(end, Unfinished):
                    failures.failed(end.reason)
                    continue
                failures.went_through()
                length = len(end.session.answers)
                if length < max(collect.keep_turns, _shortest(end.session)):
                    detail = f"{length} exchanges" + (f"; {end.text[:200]}" if end.text else "")
                    source = end.session.source
                    rejected.append(Rejected(id=end.session.id, source=source, reason=end.reason, detail=detail))
                else:
                    kept.append(end.session.model_copy(update={"ended": end.reason}))
                    exchanges += length
                bar.advance(note=f"{exchanges} exchanges  {failures.note}".rstrip())
            if failures.hopeless:
                break
    folder.facts["tokens"] = asker.cost["tokens"] + answerer.cost["tokens"]  # generated, in this attempt
    folder.facts["calls"] = {  # of this attempt
        "asker": {"name": asker.name, **asker.cost},
        "answerer": {"name": answerer.name, **answerer.cost},
    }
    return failures


def _lockstep(
    chunk: Sequence[Dialogue], asker: Speaker, answerer: Speaker, recipe: Recipe
) -> Iterator[End | Unfinished]:
    """Answers for all, queries for all, until none is left; yields each session as soon as it ends."""
    collect = recipe.collect
    answer_due: list[Dialogue] = []
    query_due: list[Dialogue] = []
    for session in chunk:
        stop = _objection(session.queries[0], (), collect)
        if stop is None:
            (query_due if session.due == "user" else answer_due).append(session)
        else:
            yield End(session.complete(), stop, session.queries[0])
    while answer_due or query_due:
        for session, reply in zip(answer_due, answerer.reply(answer_due), strict=True):
            following = _answered(session, reply, _target(session, recipe))
            if isinstance(following, Dialogue):
                query_due.append(following)
            else:
                yield following
        answer_due = []
        for session, reply in zip(query_due, asker.reply(query_due), strict=True):
            following = _asked(session, reply, collect)
            if isinstance(following, Dialogue):
                answer_due.append(following)
            else:
                yield following
        query_due = []


def _shortest(session: Dialogue) -> int:
    """The exchanges of a session in which one is new."""
    return (session.given or 0) + 1


def _target(session: Dialogue, recipe: Recipe) -> int:
    least, most = max(recipe.collect.min_turns, _shortest(session)), recipe.collect.max_turns
    return least + derive_seed(recipe.run.seed, "collect", "target", session.id) % (most - least + 1)


def _answered(session: Dialogue, reply: Reply, target: int) -> Dialogue | End | Unfinished:
    """The session with its answer, or its end: an exchange whose answer is cut, empty or a refusal goes."""
    if reply.text is None:
        return _without_reply(session, reply)
    if reply.stop == "length":
        return End(session.complete(), "answer too long", reply.text)
    if not reply.text.strip():
        return End(session.complete(), "empty answer")
    if filters.refusal(reply.text):
        return End(session.complete(), "refusal", reply.text)
    session = session.say(reply.text)
    return End(session, "target") if len(session.answers) >= target else session


def _asked(session: Dialogue, reply: Reply, collect: Collect) -> Dialogue | End | Unfinished:
    """The session with its next query, or its end: a query that is cut or fails a filter never enters."""
    if reply.text is None:
        return _without_reply(session, reply)
    if reply.stop == "length":
        return End(session, "query too long", reply.text)
    if not reply.text.strip():
        return End(session, "empty query")
    stop = "role drift" if filters.role_drift(reply.text) else _objection(reply.text, session.queries, collect)
    return End(session, stop, reply.text) if stop else session.say(reply.text)


def _without_reply(session: Dialogue, reply: Reply) -> End | Unfinished:
    if reply.lasting is None:
        return Unfinished(reply.reason or "unknown")
    empty = "empty answer" if session.due == "assistant" else "empty query"
    return End(session.complete(), empty if reply.lasting == "empty reply" else reply.lasting)


def _objection(query: str, earlier: Sequence[str], collect: Collect) -> str | None:
    if filters.sensitive(query, collect.sensitive):
        return "sensitive query"
    if filters.too_short(query, collect.min_words):
        return "short query"
    return "repeated query" if filters.repeats(query.strip(), earlier, collect.max_rouge) else None


def _part_sessions(folder: RunFolder, keep_turns: int) -> None:
    """Cut each session, in file order, at its first follow-up that an earlier session has word for word.

    What is too short then is rejected, and that is written before the file takes its place in one step: after a kill
    between the two, or behind both, the next attempt finds the same again.
    """
    path = folder.path / "dialogues.jsonl"
    beside = path.with_name(path.name + ".part")
    seen: set[str] = set()
    with (
        folder.journal("rejected.jsonl", Rejected, lambda rejected: rejected.id) as rejected,
        beside.open("w", encoding="utf-8") as parted,
    ):
        for session in read(path, Dialogue):
            first = session.given or 1  # what was given was kept on purpose, as every first query was
            length = next((n for n in range(first, len(session.queries)) if session.queries[n] in seen), None)
            if length is not None and length < max(keep_turns, _shortest(session)):
                if session.id not in rejected:
                    detail = f"{length} exchanges; {session.queries[length][:200]}"
                    rejected.append(Rejected(id=session.id, source=session.source, reason=REPEATED, detail=detail))
                continue
            if length is not None:
                session = session.model_copy(update={"turns": session.turns[: 2 * length], "ended": REPEATED})
            seen.update(session.queries)
            parted.write(session.model_dump_json(exclude_none=True) + "\n")
    os.replace(beside, path)


def _count(folder: RunFolder) -> None:
    """Counts from the files, so that they are those of all attempts. Raises UserError where no session was kept."""
    counts = folder.counts
    counts["sessions"] = 0
    for session in read(folder.path / "dialogues.jsonl", Dialogue):
        counts["sessions"] += 1
        counts["exchanges"] += len(session.answers)
        if session.given:
            counts["exchanges given"] += session.given
        counts[f"ended: {session.ended}"] += 1
    reasons = Counter(record.reason for record in read(folder.path / "rejected.jsonl", Rejected))
    counts.update({f"rejected: {reason}": count for reason, count in reasons.items()})
    if not counts["sessions"]:
        reason, count = reasons.most_common(1)[0]
        raise UserError(
            f"all {reasons.total()} sessions were rejected, {count} as '{reason}'",
            str(folder.path / "rejected.jsonl"),
            "Look at the speakers or lower collect.keep_turns, then run with --rerun",
        )
