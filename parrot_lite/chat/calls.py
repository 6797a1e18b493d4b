"""Calls to speakers, several at a time: none waits for a slow neighbour, and a chat that batches gets full batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from parrot_lite.chat import Chat
from parrot_lite.recipe import Decoding
from parrot_lite.types import Dialogue, Reply, Role


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
