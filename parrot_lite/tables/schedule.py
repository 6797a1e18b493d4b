"""What a table still has to run: stages in order, each once however many rows want it, each in a process of its own."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import IO

from parrot_lite.progress import say
from parrot_lite.recipe import Stage
from parrot_lite.tables.places import Trial

LOG = "log.txt"  # in a row's folder: what its stages said
DIES_WITH_PARENT = 1  # Linux, prctl: PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Task:
    """One stage in one folder, run for the first trial that wants it."""

    stage: Stage
    folder: Path
    trial: Trial


@dataclass
class Progress:
    """How far a table has come: seconds of finished tasks by stage, and why folders have no result."""

    seconds: dict[Stage, list[float]] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)

    def reason(self, trial: Trial) -> str | None:
        """Why a trial has no result; None where none of its stages failed."""
        found = ((stage, self.failed.get(folder)) for stage, folder in trial.folders.items())
        return next((f"{stage}: {why}" for stage, why in found if why is not None), None)


def tasks(trials: Sequence[Trial]) -> list[Task]:
    """Trial by trial, every folder once."""
    found: dict[Path, Task] = {}
    for trial in trials:
        for stage, folder in trial.folders.items():
            found.setdefault(folder, Task(stage, folder, trial))
    return list(found.values())


def left(todo: Sequence[Stage], seconds: Mapping[Stage, Sequence[float]]) -> tuple[float, bool] | None:
    """Seconds that stages will take by the mean of those alike, and whether all of them are known; None = none is.

    >>> left(["eval", "train-capo", "eval"], {"eval": [20.0, 40.0]})
    (60.0, False)
    """
    known = [fmean(seconds[stage]) for stage in todo if seconds.get(stage)]
    return (sum(known), len(known) == len(todo)) if known else None


def run(name: str, todo: Sequence[Task], before: Callable[[Task], None]) -> Progress:
    """Run every task that does not need a failed one; ``before`` is called ahead of each and may refuse by raising.

    A finished stage says so itself: it alone can tell whether its inputs are still the same.
    """
    state = Progress()
    rows = list(dict.fromkeys((task.trial.row.name, task.trial.seed) for task in todo))
    first = rows[0] if rows else None
    for number, task in enumerate(todo, 1):
        row = task.trial.row.name, task.trial.seed
        if why := state.reason(task.trial):
            say(f"{name}: row {row[0]} is left, {why}") if task.stage == task.trial.stages[-1] else None
            continue
        before(task)
        told = "" if row == first else _estimate(left([one.stage for one in todo[number - 1 :]], state.seconds))
        seed = f", seed {row[1]}" if len({seed for _, seed in rows}) > 1 else ""
        say(
            f"{name}: row {rows.index(row) + 1} of {len(rows)} ({row[0]}{seed}), "
            f"stage {number} of {len(todo)}: {task.stage}{told}"
        )
        finished = (task.folder / "manifest.json").exists()
        start = time.monotonic()
        failure = _process(task)
        if failure is not None:
            state.failed[task.folder] = failure
            say(f"{name}: row {row[0]} failed at {task.stage}: {failure}")
        elif finished:
            state.seconds.setdefault(task.stage, [])
        else:
            state.seconds.setdefault(task.stage, []).append(time.monotonic() - start)
    return state


def _estimate(known: tuple[float, bool] | None) -> str:
    if known is None:
        return ""
    seconds, whole = known
    return f"; {'about' if whole else 'at least'} {max(1, round(seconds / 60))} min left"


def _process(task: Task) -> str | None:
    """Run a stage; None, or why it failed. What it says goes to standard error and into the row's log."""
    task.trial.write()
    command = [sys.executable, "-m", "parrot_lite", task.stage, str(task.trial.file)]
    log = task.trial.file.parent / LOG
    last = ""
    with log.open("a", encoding="utf-8") as file:
        print(f"$ parrot {task.stage} {task.trial.file}", file=file, flush=True)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=_with_parent if sys.platform == "linux" else None,
        ) as process:
            assert process.stderr is not None
            try:
                for line in _lines(process.stderr):
                    print(f"  {line}", file=sys.stderr, flush=True)
                    print(line, file=file, flush=True)
                    last = line.removeprefix("parrot: ") if line.startswith("parrot: ") or not last else last
                code = process.wait()
            except BaseException:  # Ctrl-C reaches the stage as well; what is done is kept
                process.kill()
                raise
    if code == 0:
        return None
    if code < 0:
        return f"killed by {signal.Signals(-code).name} (see {log})"
    return last or f"ended with code {code} (see {log})"


def _lines(stream: IO[str]) -> Iterator[str]:
    for line in stream:
        if line.strip():
            yield line.rstrip()


def _with_parent() -> None:
    """A stage must not outlive the table that started it: the same table, run again, would find it working there."""
    ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
