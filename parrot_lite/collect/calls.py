"""Failed calls of a stage, which a later attempt may mend, and the order of what came back."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from parrot_lite.chat.meter import SPENT
from parrot_lite.errors import UserError
from parrot_lite.recipe import Stage
from parrot_lite.types import Role

GIVE_UP = 64  # failed sessions in a row


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
