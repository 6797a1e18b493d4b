"""The collect stage: asker and answerer take turns from seed queries (paper section 3.2). Run: parrot collect

Many sessions are in flight, and each moves on as soon as its reply is there. What a session gets is drawn from its id
and its length, so neither neighbours nor a resumed run change it (of models in this process up to the rounding of other
batches). Every message is on disk when the next is asked for. What compares sessions waits until all are played.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import NamedTuple

from parrot_lite.chat import inputs_of, lanes, open_chat
from parrot_lite.chat.calls import Calls, Line, Speaker
from parrot_lite.chat.meter import Meter, check_prices
from parrot_lite.chat.prompted import Prompted, instruction
from parrot_lite.collect import filters, seeds
from parrot_lite.collect.calls import Failures, put_in_order
from parrot_lite.collect.turns import Turns
from parrot_lite.errors import UserError
from parrot_lite.progress import Bar, progress
from parrot_lite.recipe import Collect, Recipe, Server
from parrot_lite.store import Journal, RunFolder, read, stage_folder
from parrot_lite.types import Dialogue, Record, Rejected, Reply, derive_seed

REPEATED = "repeated across sessions"
SENSITIVE = "sensitive query"


class End(NamedTuple):
    """A session that stopped: its complete exchanges, why, and the text that stopped it."""

    session: Dialogue
    reason: str
    text: str | None = None


class Unfinished(NamedTuple):
    """A session with a failed call: a later attempt goes on with it."""

    reason: str


class Lapse(Record):
    """A query that was no user's, and for which the asker was asked again."""

    session: str
    turn: int  # exchange, from 1
    draw: int  # how many lapses the turn had before
    kind: str
    text: str


@dataclass(frozen=True)
class Files:
    """What the stage writes while sessions are played."""

    kept: Journal[Dialogue]
    rejected: Journal[Rejected]
    lapses: Journal[Lapse]
    turns: Turns


def run(recipe: Recipe, rerun: bool = False) -> None:
    """Collect ``collect.sessions`` sessions into ``dialogues.jsonl`` and ``rejected.jsonl``.

    ``lapses.jsonl`` holds the asker's queries that were drawn again. Raises UserError where turns, seeds or prices do
    not hold, where calls failed or the budget is spent (run again: sessions go on where they were) and where no
    session was kept; StageChanged where the folder belongs to another recipe.
    """
    collect = recipe.collect
    check_prices(recipe, (collect.asker, collect.answerer))
    inputs = {**inputs_of(collect.asker, recipe), **inputs_of(collect.answerer, recipe), **seeds.inputs(recipe)}
    if collect.prompted or isinstance(collect.asker, Server):
        inputs["prompt: asker"] = instruction()
    with stage_folder(recipe, "collect", inputs, rerun) as folder:
        if folder is None:
            return
        sessions = seeds.draw(recipe, folder)
        with (
            folder.journal("dialogues.jsonl", Dialogue, lambda kept: kept.id) as kept,
            folder.journal("rejected.jsonl", Rejected, lambda rejected: rejected.id) as rejected,
            folder.journal("lapses.jsonl", Lapse, lambda lapse: (lapse.session, lapse.turn, lapse.draw)) as lapses,
            closing(Turns(folder.path / "turns.jsonl", lambda name: name in kept or name in rejected)) as turns,
            Meter(recipe, folder.path) as meter,
        ):
            left = [session for session in sessions if session.id not in kept and session.id not in rejected]
            if left:
                failures = _play(recipe, left, Files(kept, rejected, lapses, turns), meter)
                failures.refuse("collect", folder.path, len(sessions))
            turns.remove()
            folder.facts["tokens"] = meter.tokens  # generated, in all attempts, as are the calls
            folder.facts["calls"] = meter.facts()
        put_in_order(folder.path / "dialogues.jsonl", lambda record: record["id"], [one.id for one in sessions])
        _part_sessions(folder, collect.keep_turns)
        _count(folder)


def _play(recipe: Recipe, left: Sequence[Dialogue], files: Files, meter: Meter) -> Failures:
    """Play what is left and write each session when it ends."""
    collect, seed = recipe.collect, derive_seed(recipe.run.seed, "collect")
    with ExitStack() as stack:
        answering = stack.enter_context(closing(open_chat(collect.answerer, recipe, meter)))
        same = collect.asker == collect.answerer
        asking = answering if same else stack.enter_context(closing(open_chat(collect.asker, recipe, meter)))
        opened = answering, asking
        if collect.prompted:
            asking = Prompted(asking)
        answerer = Speaker(answering, "assistant", collect.answerer_decoding, seed)
        # A lapse is drawn again under a seed of its own: under the same one it would only come back.
        askers = [
            Speaker(asking, "user", collect.asker_decoding, derive_seed(seed, "draw", draw) if draw else seed)
            for draw in range(collect.redraws + 1)
        ]
        if same:
            lines = [Line([answerer, *askers], *lanes(collect.answerer))]
        else:
            lines = [Line([answerer], *lanes(collect.answerer)), Line(askers, *lanes(collect.asker))]
        calls = stack.enter_context(closing(Calls(lines)))
        for chat in opened:  # before calls in flight are waited for, or they go through all their retries
            stack.callback(getattr(chat, "stop", lambda: None))
        done = len(files.kept) + len(files.rejected)
        bar = stack.enter_context(progress("collect", done + len(left), done))
        play = Play(recipe, calls, answerer, askers, files, meter, bar)
        in_flight = collect.in_flight or calls.enough
        waiting = iter(left)
        while True:
            while len(calls) < in_flight and not play.failures.hopeless and (begun := next(waiting, None)):
                play.begin(begun)
            if not (answered := calls.answered()):
                return play.failures
            for speaker, session, reply in answered:
                play.hear(speaker, session, reply)
            if play.failures.hopeless:
                calls.drop()


class Play:
    """Takes sessions from call to call, and writes down what comes of each."""

    def __init__(
        self,
        recipe: Recipe,
        calls: Calls,
        answerer: Speaker,
        askers: Sequence[Speaker],
        files: Files,
        meter: Meter,
        bar: Bar,
    ) -> None:
        self.failures = Failures()
        self._recipe, self._calls, self._files, self._meter, self._bar = recipe, calls, files, meter, bar
        self._answerer, self._askers = answerer, askers
        self._exchanges = 0

    def begin(self, session: Dialogue) -> None:
        """Take up a session where an earlier attempt left it."""
        stop = _objection(session.queries[0], (), self._recipe.collect)
        if stop is not None:
            self._end(End(session.complete(), stop, session.queries[0]))
        else:
            self._go_on(self._files.turns.resumed(session))

    def hear(self, speaker: Speaker, session: Dialogue, reply: Reply) -> None:
        """Take a reply into its session, and the session to its next call or its end."""
        following: Dialogue | Lapse | Unfinished | End
        if speaker is self._answerer:
            following = _answered(session, reply, _target(session, self._recipe))
        else:
            following = _asked(session, reply, self._askers.index(speaker), self._recipe.collect)
        if not isinstance(following, Unfinished):
            self.failures.went_through(session.due)  # a call, not a session: hundreds begin before the first one ends
        match following:
            case Dialogue():
                self._files.turns.append(following)
                self._go_on(following)
            case Lapse():
                self._files.lapses.append(following)
                self._go_on(session)
            case Unfinished(reason):
                self.failures.failed(reason, session.due)
            case End():
                self._end(following)

    def _go_on(self, session: Dialogue) -> None:
        if session.due == "assistant":
            self._calls.ask(self._answerer, session)
            return
        turn = len(session.queries) + 1
        lapses = sum((session.id, turn, draw) in self._files.lapses for draw in range(len(self._askers)))
        self._calls.ask(self._askers[lapses], session)

    def _end(self, end: End) -> None:
        length = len(end.session.answers)
        if length < max(self._recipe.collect.keep_turns, _shortest(end.session)):
            detail = f"{length} exchanges" + (f"; {end.text[:200]}" if end.text else "")
            rejected = Rejected(id=end.session.id, source=end.session.source, reason=end.reason, detail=detail)
            self._files.rejected.append(rejected)
        else:
            self._files.kept.append(end.session.model_copy(update={"ended": end.reason}))
            self._exchanges += length
        notes = (f"{self._exchanges} exchanges", self._meter.note, self.failures.note)
        self._bar.advance(note="  ".join(filter(None, notes)))


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


def _asked(session: Dialogue, reply: Reply, draw: int, collect: Collect) -> Dialogue | End | Unfinished | Lapse:
    """The session with its next query, or its end: a query that is cut or fails a filter never enters.

    ``draw`` counts the lapses before; the last one that ``collect.redraws`` allows ends the session.
    """
    if reply.text is None:
        return _without_reply(session, reply)
    if reply.stop == "length":
        return End(session, "query too long", reply.text)
    if not reply.text.strip():
        return End(session, "empty query")
    stop = _lapse(reply.text) or _objection(reply.text, session.queries, collect)
    if stop is None:
        return session.say(reply.text)
    if stop == SENSITIVE or draw == collect.redraws:
        return End(session, stop, reply.text)
    return Lapse(session=session.id, turn=len(session.queries) + 1, draw=draw, kind=stop, text=reply.text[:200])


def _lapse(query: str) -> str | None:
    """How an asker has fallen out of the user's role, if it has."""
    if filters.role_drift(query):
        return "role drift"
    if filters.answers_itself(query):
        return "answers itself"
    return "thanks" if filters.thanks(query) else None


def _without_reply(session: Dialogue, reply: Reply) -> End | Unfinished:
    if reply.lasting is None:
        return Unfinished(reply.reason or "unknown")
    empty = "empty answer" if session.due == "assistant" else "empty query"
    return End(session.complete(), empty if reply.lasting == "empty reply" else reply.lasting)


def _objection(query: str, earlier: Sequence[str], collect: Collect) -> str | None:
    if filters.sensitive(query, collect.sensitive):
        return SENSITIVE
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
    for lapse in read(folder.path / "lapses.jsonl", Lapse):
        counts[f"drawn again: {lapse.kind}"] += 1
    reasons = Counter(record.reason for record in read(folder.path / "rejected.jsonl", Rejected))
    counts.update({f"rejected: {reason}": count for reason, count in reasons.items()})
    if not counts["sessions"]:
        reason, count = reasons.most_common(1)[0]
        raise UserError(
            f"all {reasons.total()} sessions were rejected, {count} as '{reason}'",
            str(folder.path / "rejected.jsonl"),
            "Look at the speakers or lower collect.keep_turns, then run with --rerun",
        )
