"""A stage's calls to its speakers: several at a time, and which failures a later attempt may mend."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from parrot_lite.chat import Chat
from parrot_lite.chat.meter import SPENT
from parrot_lite.errors import UserError
from parrot_lite.recipe import Decoding, Stage
from parrot_lite.types import Dialogue, Reply, Role

GIVE_UP = 64  # failed sessions in a row


class Speaker:
    """A chat in one role with its decoding and seed."""

    def __init__(self, chat: Chat, role: Role, decoding: Decoding, seed: int) -> None:
        self.name = chat.name
        self._chat, self._role, self._decoding, self._seed = chat, role, decoding, seed

    def reply(self, dialogues: Sequence[Dialogue]) -> list[Reply]:
        """One reply a dialogue, in order. Raises UserError for what no retry can mend."""
        if not dialogues:
            return []
        return self._chat.reply(dialogues, self._role, self._decoding, self._seed)


class Line:
    """The dialogues that wait for one chat, by speaker, and its calls in flight."""

    def __init__(self, speakers: Iterable[Speaker], calls: int, width: int) -> None:
        self.due: dict[Speaker, list[Dialogue]] = {speaker: [] for speaker in speakers}
        self.calls, self.width = calls, width
        self.free = calls
        self.pool = ThreadPoolExecutor(calls)

    def take(self, least: int) -> tuple[Speaker, list[Dialogue]] | None:
        """The next call, of at least so many dialogues; None where no call is free or too few wait.

        The first ones in come first. None waits for ever while what a chat keeps of its history is put out by others.
        """
        speaker = max(self.due, key=lambda each: len(self.due[each]))
        waiting = self.due[speaker]
        if not self.free or len(waiting) < least:
            return None
        batch, waiting[: self.width] = waiting[: self.width], []
        return speaker, batch


class Calls:
    """Calls to one or several chats that go on at the same time. What comes back is taken by one thread.

    A chat that decodes a batch gets a full one, or what there is when nothing that could join is on its way.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = {speaker: line for line in lines for speaker in line.due}
        self._done: SimpleQueue[tuple[Line, Speaker, list[Dialogue], Future[list[Reply]]]] = SimpleQueue()
        self._running = 0  # calls
        self._in_hand = 0  # dialogues

    def __len__(self) -> int:
        """Dialogues that wait or are in a call."""
        return self._in_hand

    @property
    def enough(self) -> int:
        """Dialogues in hand that keep every line busy: as many again wait as can be in calls."""
        return 2 * sum(line.calls * line.width for line in dict.fromkeys(self._lines.values()))

    def ask(self, speaker: Speaker, dialogue: Dialogue) -> None:
        """Put a dialogue into its line."""
        self._lines[speaker].due[speaker].append(dialogue)
        self._in_hand += 1

    def drop(self) -> None:
        """Forget the dialogues that wait; calls in flight go on."""
        for speaker, line in self._lines.items():
            self._in_hand -= len(line.due[speaker])
            line.due[speaker].clear()

    def answered(self) -> list[tuple[Speaker, Dialogue, Reply]]:
        """Make the calls that can be made and wait for one to come back; empty where nothing is in hand.

        Raises UserError for what no retry can mend.
        """
        lines = dict.fromkeys(self._lines.values())
        for line in lines:
            while self._start(line, line.width):
                pass
        if not self._running and not any(self._start(line, 1) for line in lines):
            return []
        line, speaker, batch, future = self._done.get()
        line.free += 1
        self._running -= 1
        self._in_hand -= len(batch)
        return [(speaker, *pair) for pair in zip(batch, future.result(), strict=True)]

    def _start(self, line: Line, least: int) -> bool:
        if (taken := line.take(least)) is None:
            return False
        speaker, batch = taken
        line.free -= 1
        self._running += 1
        future = line.pool.submit(speaker.reply, batch)
        future.add_done_callback(lambda done: self._done.put((line, speaker, batch, done)))
        return True

    def close(self) -> None:
        """Wait for the calls in flight."""
        for line in dict.fromkeys(self._lines.values()):
            line.pool.shutdown(cancel_futures=True)


class Failures:
    """Sessions with failed calls in this attempt. They stay unfinished: a later attempt goes on with them."""

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._in_a_row = Counter[Role | None]()  # by speaker: one may answer where the other is gone
        self._spent: str | None = None

    def failed(self, reason: str, speaker: Role | None = None) -> None:
        """A session has a failed call, or one that the budget forbade."""
        self._reasons.append(reason)
        self._in_a_row[speaker] += 1
        if SPENT in reason:  # behind a detector's own words, too
            self._spent = reason[reason.index(SPENT) :]

    def went_through(self, speaker: Role | None = None) -> None:
        """A session had none, or the speaker's last call was none."""
        self._in_a_row[speaker] = 0

    @property
    def hopeless(self) -> bool:
        """Whether so many sessions failed in a row that nobody seems to answer, or the budget is spent."""
        return max(self._in_a_row.values(), default=0) >= GIVE_UP or self._spent is not None

    @property
    def note(self) -> str:
        """For the progress bar; empty where nothing failed."""
        return f"{len(self._reasons)} failed" if self._reasons else ""

    def refuse(self, stage: Stage, folder: Path, total: int) -> None:
        """Raises UserError where a session has failed calls: the stage must not be finished."""
        if self._spent:
            fix = f"What came is kept. Raise that key and run parrot {stage} again: it goes on from there"
            raise UserError(self._spent, str(folder), fix)
        if self._reasons:
            stopped = f", stopped after {GIVE_UP} or more in a row" if self.hopeless else ""
            raise UserError(
                f"{len(self._reasons)} of {total} sessions have failed calls{stopped} (first reason: "
                f"{self._reasons[0]})",
                str(folder),
                f"Run parrot {stage} again to retry them",
            )


def put_in_order(path: Path, key: Callable[[Any], str], order: Sequence[str]) -> None:
    """Rewrite a JSONL file in the order of its records' keys, so that an interrupted run leaves the same bytes.

    Later stages take records in file order and fingerprint the file. Replaces the file in one step.
    """
    beside = path.with_name(path.name + ".part")
    with path.open("rb") as lines, beside.open("wb") as ordered:
        start: dict[str, int] = {}
        position = 0
        for line in lines:
            start[key(json.loads(line))] = position
            position += len(line)
        for name in order:
            if name in start:
                lines.seek(start[name])
                ordered.write(lines.readline())
    os.replace(beside, path)
