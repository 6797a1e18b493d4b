"""Fixed replies: the double of every other speaker, for rehearsals without a model and for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from parrot_lite.chat import check_due
from parrot_lite.errors import UserError
from parrot_lite.recipe import Decoding, Scripted
from parrot_lite.store import existing_file, locate
from parrot_lite.types import Dialogue, Reply, Role, derive_seed


class ScriptedChat:
    """Says lines of a file: one JSON string a line, ``null`` for a call that fails.

    Which line depends on the dialogue's id and length alone, so an interrupted run goes on with the same replies.
    Raises UserError where the file is missing or a line of it does not hold.
    """

    name: str = "scripted"

    def __init__(self, spec: Scripted) -> None:
        self._replies = _read(existing_file(locate(spec.path)))

    @classmethod
    def of(cls, replies: Sequence[str | None]) -> Self:
        """A speaker with these replies and no file. Raises ValueError where there are none."""
        if not replies:
            raise ValueError("a script needs at least one reply")
        chat = cls.__new__(cls)
        chat._replies = tuple(replies)
        return chat

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """One scripted reply a dialogue, in order; neither ``decoding`` nor ``seed`` changes it."""
        check_due(dialogues, speaker)
        return [self._line(dialogue) for dialogue in dialogues]

    def close(self) -> None:
        """Nothing is held."""

    def _line(self, dialogue: Dialogue) -> Reply:
        text = self._replies[derive_seed(0, dialogue.id, len(dialogue.turns)) % len(self._replies)]
        return Reply.failure("scripted failure") if text is None else Reply(text=text, stop="end")


def _read(path: Path) -> tuple[str | None, ...]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as UTF-8 text: {error}", str(path), "Name a file of JSON strings") from None
    replies: list[str | None] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            reply = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"not JSON: {error.msg}", f"{path}:{number}", 'Write "a reply" or null') from None
        if reply is not None and (not isinstance(reply, str) or not reply.strip()):
            raise UserError("neither a string with text nor null", f"{path}:{number}", 'Write "a reply" or null')
        replies.append(reply)
    if not replies:
        raise UserError("a script without replies", str(path), "Write one JSON string a line")
    return tuple(replies)
