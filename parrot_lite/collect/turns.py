"""What unfinished sessions have, message by message: nothing that was paid for is lost by a kill or a failed call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from parrot_lite.store import read, repair
from parrot_lite.types import Dialogue, Record, Role, Text


class Said(Record):
    """A message that entered a session, beside the session's id."""

    session: str
    role: Role
    text: Text


class Turns:
    """An append-only file of messages, in the order of each session. Holds no text but what earlier attempts left.

    Opening drops the messages of ``finished`` sessions from the file.
    """

    def __init__(self, path: Path, finished: Callable[[str], bool]) -> None:
        self._path = path
        self._kept: dict[str, list[str]] = {}
        repair(path)
        beside = path.with_name(path.name + ".part")
        with beside.open("w", encoding="utf-8") as file:
            for said in read(path, Said) if path.exists() else ():
                if not finished(said.session):
                    self._kept.setdefault(said.session, []).append(said.text)
                    file.write(said.model_dump_json() + "\n")
        beside.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def resumed(self, session: Dialogue) -> Dialogue:
        """The session, given as it opens, with what had been said in it when an earlier attempt ended."""
        for text in self._kept.pop(session.id, ()):
            session = session.say(text)
        return session

    def append(self, session: Dialogue) -> None:
        """Keep the session's last message."""
        last = session.turns[-1]
        said = Said(session=session.id, role=last.role, text=last.content)
        self._file.write(said.model_dump_json() + "\n")
        self._file.flush()

    def remove(self) -> None:
        """Delete the file: every session is finished."""
        self._path.unlink()

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._file.close()
