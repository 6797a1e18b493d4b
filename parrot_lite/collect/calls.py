"""A stage's calls to a speaker: what they cost in this attempt, and which failures a later attempt may mend."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parrot_lite.chat import Chat
from parrot_lite.errors import UserError
from parrot_lite.recipe import Decoding, Stage
from parrot_lite.types import Dialogue, Reply, Role

GIVE_UP = 64  # failed sessions in a row


class Speaker:
    """A chat in one role with its decoding and seed; ``cost`` counts calls, tokens, cut and failed replies."""

    def __init__(self, chat: Chat, role: Role, decoding: Decoding, seed: int) -> None:
        self.name, self.cost = chat.name, Counter[str]()
        self._chat, self._role, self._decoding, self._seed = chat, role, decoding, seed

    def reply(self, dialogues: Sequence[Dialogue]) -> list[Reply]:
        """One reply a dialogue, in order. Raises UserError for what no retry can mend."""
        if not dialogues:
            return []
        replies = self._chat.reply(dialogues, self._role, self._decoding, self._seed)
        for reply in replies:
            self.cost["calls"] += 1
            self.cost["tokens"] += reply.tokens or 0
            self.cost["cut"] += reply.stop == "length"
            self.cost["failed"] += reply.stop == "failed"
        return replies


class Failures:
    """Sessions with failed calls in this attempt. They stay unfinished: a later attempt plays them again."""

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._in_a_row = 0

    def failed(self, reason: str) -> None:
        """A session has a failed call."""
        self._reasons.append(reason)
        self._in_a_row += 1

    def went_through(self) -> None:
        """A session ended without one."""
        self._in_a_row = 0

    @property
    def hopeless(self) -> bool:
        """Whether so many sessions failed in a row that nobody seems to answer."""
        return self._in_a_row >= GIVE_UP

    @property
    def note(self) -> str:
        """For the progress bar; empty where nothing failed."""
        return f"{len(self._reasons)} failed" if self._reasons else ""

    def refuse(self, stage: Stage, folder: Path, total: int) -> None:
        """Raises UserError where a session has failed calls: the stage must not be finished."""
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
