"""The judging loop under load: verdicts from a slow endpoint, without a model and without a network.

    python recipes/bench/judging_load.py            # 640 verdicts at 0.2 s, 32 calls at once: half a minute

Every run is the real ``parrot eval`` in a process of its own, against faulty_server.py in another: once undisturbed and
once killed with kill -9 on the way and begun again. The answers that are judged come from a script, so that all calls
are verdicts. The ideal time is verdicts x latency / concurrency; what is set against it is the time from the first
verdict's call to the last one's answer, by the server's clock. The killed run must end with the same verdicts.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from collection_load import ask, endpoint  # noqa: E402

TURNS = 8


def overrides(folder: Path, address: str, verdicts: int, concurrency: int) -> list[str]:
    """The demo's recipe with a scripted model and the endpoint as the judge."""
    folder.mkdir(parents=True, exist_ok=True)
    sessions = [
        {"question_id": n, "category": "writing", "turns": [f"Line {turn} about river {n}?" for turn in range(TURNS)]}
        for n in range(verdicts // TURNS)
    ]
    (folder / "bench.jsonl").write_text("".join(json.dumps(one) + "\n" for one in sessions), encoding="utf-8")
    (folder / "answers.jsonl").write_text('"It flows."\n"It does not."\n', encoding="utf-8")
    judge = f'kind = "server", base_url = "{address}/v1", model = "judge", concurrency = {concurrency}, timeout = 10.0'
    return [
        f"run.folder={folder / 'runs'}",
        f"eval.bench={folder / 'bench.jsonl'}",
        "eval.sessions=none",
        "eval.models=none",
        f'eval.models.one={{ kind = "scripted", path = "{folder / "answers.jsonl"}" }}',
        f"eval.judge.chat={{ {judge} }}",
        "eval.judge.prompt=single",
        "eval.judge.verdict=written",
        "eval.probe=none",
        "eval.resamples=100",
    ]


def evaluate(folder: Path, given: list[str], address: str, kills: int, between: int) -> Path:
    """Run ``parrot eval``, killing it ``kills`` times, each after so many calls; the stage's folder."""
    command = [sys.executable, "-m", "parrot_lite", "eval", str(ROOT / "recipes" / "demo.toml"), *given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"}
    with (folder / "log").open("a") as log:
        for _ in range(kills):
            process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
            enough = ask(address, "counts")["calls"] + between
            while process.poll() is None and ask(address, "counts")["calls"] < enough:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:
                raise SystemExit(f"it ended before it could be killed: {(folder / 'log').read_text()[-2000:]}")
        if subprocess.run(command, env=environment, stderr=log, stdout=log).returncode:
            raise SystemExit((folder / "log").read_text()[-2000:])
    return folder / "runs" / "demo" / "eval"


def main(
    verdicts: int = 640,
    latency: Annotated[float, typer.Option(help="seconds")] = 0.2,
    concurrency: int = 32,
    kill: Annotated[int, typer.Option(help="times that the second run is killed on the way")] = 3,
    out: Annotated[Path, typer.Option(help="the page to write")] = ROOT / "recipes/bench/measured/judging-load.md",
) -> None:
    """Run both, print what came and write it; exit code 1 where a verdict is missing, doubled or another."""
    ideal = verdicts * latency / concurrency
    before = os.getloadavg()[0]
    written: dict[int, bytes] = {}
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for kills in (0, kill):
            folder = Path(work) / f"killed-{kills}"
            with endpoint(latency, 0.0) as address:
                given = overrides(folder, address, verdicts, concurrency)
                stage = evaluate(folder, given, address, kills, verdicts // (kills + 2))
                calls = ask(address, "calls")
            written[kills] = (stage / "judgments.jsonl").read_bytes()
            lines = [json.loads(line) for line in written[kills].splitlines()]
            keys = {(line["model"], line["dialogue"], line["turn"]) for line in lines}
            seconds = calls[-1][0] + latency - calls[0][0]
            took = f"{seconds:.2f} | {seconds / ideal:.2f}" if not kills else "- | -"
            name = f"kill -9 {kills} times" if kills else "undisturbed"
            counts = f"{len(lines)} | {len(keys)} | {len(calls)} | {len(calls) - verdicts}"
            rows.append(f"| {name} | {counts} | {took} |")
    same = written[0] == written[kill]
    whole = len(keys) == len(lines) == verdicts
    page = f"""# Judging against a slow server

    make bench-judging

{cpu()}, {os.cpu_count()} cores for client and server, {time.strftime("%Y-%m-%d")};
load average {before:.1f} before, {os.getloadavg()[0]:.1f} after. {verdicts} verdicts from an endpoint that answers
after {latency:g} s, {concurrency} calls at once: {ideal:.2f} s at best. "Seconds": from the first call to the last
answer, by the server's clock.

| | verdicts | different | calls | of them twice | seconds | of the ideal |
|---|---:|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

The killed run {"ends with the same bytes as" if same else "ENDS WITH OTHER VERDICTS THAN"} the undisturbed one.
What it calls twice are the calls that were in flight at a kill.
"""
    print(page)
    out.write_text(page, encoding="utf-8")
    sys.exit(not (same and whole))


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    typer.run(main)
