"""The collection loop under load: sessions against a slow, faulty endpoint, without a model and without a network.

    python recipes/bench/collection_load.py                                # 200 and 2,000 sessions: about five minutes
    python recipes/bench/collection_load.py --sessions 200 --kill 3        # smaller, and killed three times on the way

Every run is the real ``parrot collect`` in a process of its own, against faulty_server.py in another. It is run without
faults and with them, then with faults on a tenth of the sessions for the memory, and, with --kill, once more with
kill -9 on the way; that run must end with the same records as the undisturbed one.

What the columns mean. ``calls/s`` counts calls that went well, from the first call of the run to the last. ``of the
bound`` is that over concurrency / latency, the most that an endpoint which answers after ``latency`` can give to so
many callers. A call that hangs until the client's timeout occupies a caller for long, and a failed one for nothing:
``of the useful`` takes off concurrency x seconds what failed calls occupied (timeouts x timeout + others x latency).
``in the middle`` is the same from the call at 10% to that at 90%: without the start, and without the end, when fewer
sessions are left than callers. ``peak MB`` is the client's largest resident memory. ``server`` holds the faults that
were made, under the client's names for them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).parent / "faulty_server.py"
TIMEOUT = 1.0  # the client's, seconds
# What the client calls the faults that the server makes.
KINDS = {
    "429": "429",
    "500": "500",
    "hang": "timeout",
    "truncated": "broken off",
    "no choices": "no choices",
    "wrong JSON": "not a completion",
}
FILES = ("dialogues.jsonl", "rejected.jsonl", "lapses.jsonl")


@contextmanager
def endpoint(latency: float, faults: float) -> Iterator[str]:
    """A faulty server's address."""
    command = [sys.executable, str(SERVER), "--latency", str(latency), "--faults", str(faults)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def overrides(folder: Path, address: str, sessions: int, turns: int, concurrency: int) -> list[str]:
    """The demo's recipe with the endpoint as both speakers; the concurrency is that of both together."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = folder / "seeds.txt"
    seeds.write_text("".join(f"Name river number {n}.\n" for n in range(sessions)), encoding="utf-8")
    spec = f'kind = "server", base_url = "{address}/v1", model = "both", timeout = {TIMEOUT}, retries = 8'
    speaker = f"{{ {spec}, concurrency = {concurrency} }}"
    return [
        f"run.folder={folder / 'runs'}",
        f"collect.seeds={seeds}",
        f"collect.sessions={sessions}",
        "collect.in_flight=none",
        f"collect.min_turns={turns}",
        f"collect.max_turns={turns}",
        f"collect.asker={speaker}",
        f"collect.answerer={speaker}",
    ]


def collect(folder: Path, given: list[str], address: str, kills: int, between: int) -> Path:
    """Run ``parrot collect``, killing it ``kills`` times, each after so many calls; the stage's folder."""
    command = [sys.executable, "-m", "parrot_lite", "collect", str(ROOT / "recipes" / "demo.toml"), *given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"}
    with (folder / "log").open("a") as log:
        for _ in range(kills):
            process = subprocess.Popen(command, env=environment, stderr=log)
            enough = ask(address, "counts")["calls"] + between
            while process.poll() is None and ask(address, "counts")["calls"] < enough:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:
                raise SystemExit(f"it ended before it could be killed: {(folder / 'log').read_text()[-2000:]}")
        if subprocess.run(command, env=environment, stderr=log).returncode:
            raise SystemExit((folder / "log").read_text()[-2000:])
    return folder / "runs" / "demo" / "collect"


def records(stage: Path) -> list[str]:
    """All that the stage has written, in an order of its own."""
    return sorted(line for name in FILES for line in (stage / name).read_text(encoding="utf-8").splitlines())


def ask(address: str, what: str) -> Any:
    """What the server has counted."""
    with urllib.request.urlopen(f"{address}/{what}", timeout=30) as answer:
        return json.loads(answer.read())


def useful(calls: list[tuple[float, str]], latency: float, concurrency: int) -> float:
    """The share of the callers' seconds in which they waited for what went well, without those of failed calls."""
    kinds = Counter(kind for _, kind in calls[:-1])
    good = kinds.pop("good", 0) * latency
    wasted = kinds.pop("hang", 0) * TIMEOUT + kinds.total() * latency
    return good / (concurrency * (calls[-1][0] - calls[0][0]) - wasted)


def measure(
    folder: Path, sessions: int, turns: int, latency: float, faults: float, concurrency: int, kills: int = 0
) -> dict[str, Any]:
    """One run of the stage, its figures and its records."""
    with endpoint(latency, faults) as address:
        given = overrides(folder, address, sessions, turns, concurrency)
        stage = collect(folder, given, address, kills, sessions * (2 * turns - 1) // (kills + 2))
        server, calls = ask(address, "counts"), ask(address, "calls")
    manifest = json.loads((stage / "manifest.json").read_text(encoding="utf-8"))
    (client,) = manifest["calls"].values()
    rate = server["good"] / (calls[-1][0] - calls[0][0])
    return {
        "sessions": manifest["counts"]["sessions"],
        "exchanges": manifest["counts"]["exchanges"],
        "calls": client["calls"],
        "failures": dict(sorted(client["failures"].items())),
        "server": {KINDS[kind]: count for kind, count in sorted(server.items()) if kind in KINDS},
        "server calls": server["calls"],
        "seconds": round(calls[-1][0] - calls[0][0], 1),
        "calls/s": round(rate, 1),
        "of the bound": round(rate * latency / concurrency, 3),
        "of the useful": round(useful(calls, latency, concurrency), 3),
        "in the middle": round(useful(calls[len(calls) // 10 : len(calls) * 9 // 10], latency, concurrency), 3),
        "peak MB": manifest["peak_memory_mb"],
        "records": records(stage),
    }


def main(
    sessions: int = 2000,
    turns: int = 8,
    latency: Annotated[float, typer.Option(help="seconds")] = 0.2,
    concurrency: int = 64,
    faults: Annotated[float, typer.Option(help="share of the calls")] = 0.1,
    kill: Annotated[int, typer.Option(help="times that a further run is killed on the way")] = 0,
) -> None:
    """Run the cells and print what came; exit code 1 where a call or a record is missing or doubled."""
    wrong = []
    bound = concurrency / latency
    print(f"{sessions} sessions x {turns} turns, {latency:g} s, concurrency {concurrency}: at most {bound:.0f} calls/s")
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    cells = {
        "without faults": (sessions, 0.0, 0),
        "with faults": (sessions, faults, 0),
        "a tenth of the sessions": (max(1, sessions // 10), faults, 0),
        **({f"killed {kill} times": (sessions, faults, kill)} if kill else {}),
    }
    done = {}
    with tempfile.TemporaryDirectory() as work:
        for name, (count, share, kills) in cells.items():
            folder = Path(work) / name.replace(" ", "-")
            done[name] = cell = measure(folder, count, turns, latency, share, concurrency, kills)
            print(name + ": " + ", ".join(f"{key} {value}" for key, value in cell.items() if key != "records"))
            if cell["sessions"] != count or cell["exchanges"] != count * turns:
                wrong.append(f"{name}: sessions are missing or short")
            if not kills and (cell["failures"] != cell["server"] or cell["calls"] != cell["server calls"]):
                wrong.append(f"{name}: client and server count differently")
    for name, cell in done.items():
        if name != "a tenth of the sessions" and cell["records"] != done["without faults"]["records"]:
            wrong.append(f"{name}: other records than without faults")
    memory = done["with faults"]["peak MB"] / done["a tenth of the sessions"]["peak MB"]
    print(f"memory: {memory:.2f} times that of a tenth of the sessions")
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")
    print(
        "\n".join(wrong) or "every session complete, every failure counted on both sides, the same records in each run"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
