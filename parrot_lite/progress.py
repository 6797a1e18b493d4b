"""Progress of long work: a bar with counts and ETA in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0  # between two plain lines, so that a log of a long run stays readable

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One line for the person who waits, on standard error: standard output is for results."""
    console.print(line, markup=False)


class Bar:
    """Counts up to ``total``; ``done`` is what an earlier, interrupted run had finished."""

    def __init__(self, title: str, total: int, done: int, rich: Progress | None) -> None:
        self.title, self.total, self.count = title, total, done
        self._rich = rich
        self._task = rich.add_task(title, total=total, completed=done, note="") if rich else None
        self._start, self._start_count = time.monotonic(), done
        self._last = 0.0

    def announce(self) -> None:
        """In plain lines, say what begins: for work whose first piece may take minutes."""
        if self._rich is None and self.count < self.total:
            self._last = time.monotonic()
            print(f"{self.title}: {self.count}/{self.total}", file=sys.stderr, flush=True)

    def advance(self, by: int = 1, note: str = "") -> None:
        """``by`` more are done; ``note`` says how it goes (a loss, a count of failures)."""
        self.count += by
        if self._rich is not None and self._task is not None:
            self._rich.update(self._task, advance=by, note=note)
            return
        now = time.monotonic()
        if now - self._last >= PLAIN_SECONDS or self.count >= self.total:
            self._last = now
            rate = (self.count - self._start_count) / max(now - self._start, 1e-9)
            left = f", {(self.total - self.count) / rate:.0f} s left" if 0 < self.count < self.total and rate else ""
            print(
                f"{self.title}: {self.count}/{self.total}{left}{'  ' + note if note else ''}",
                file=sys.stderr,
                flush=True,
            )


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Bar]:
    """A bar that closes itself. ``total`` and ``done`` count the same thing."""
    if not console.is_terminal:
        yield Bar(title, total, done, None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as rich:
        yield Bar(title, total, done, rich)
