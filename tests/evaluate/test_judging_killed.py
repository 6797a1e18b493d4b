"""``parrot eval`` with a judge on a real loopback server, killed with SIGKILL on the way and begun again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parrot_lite.evaluate.records import Comparison
from parrot_lite.store import read
from parrot_lite.types import Judgment, derive_seed
from tests.chat.loopback import Answer, Loopback, completion, loopback

ROOT = Path(__file__).parents[2]
SESSIONS, TURNS, CONCURRENCY = 8, 4, 8
VERDICTS = 2 * SESSIONS * TURNS
COMPARED = SESSIONS * TURNS


def _judge(request: dict[str, Any]) -> Answer:
    """A verdict that depends on the request alone; every tenth has to be asked for again."""
    drawn = derive_seed(0, json.dumps(request["messages"]))
    if len(request["messages"]) == 1 and drawn % 10 == 0:
        return completion("I cannot say.", delay=0.02)
    paired = "assistant B" in request["messages"][0]["content"]
    verdict = "ABC"[drawn % 3] if paired else str(1 + drawn % 10)
    return completion(f"So: [[{verdict}]]", delay=0.01 + drawn % 5 / 100)  # they come in another order


def _command(folder: Path, address: str) -> list[str]:
    folder.mkdir()
    bench = [
        {"question_id": n, "category": "writing", "turns": [f"Line {turn} of {n}?" for turn in range(TURNS)]}
        for n in range(SESSIONS)
    ]
    (folder / "bench.jsonl").write_text("".join(json.dumps(one) + "\n" for one in bench))
    for model in ("one", "two"):
        (folder / f"{model}.jsonl").write_text(json.dumps(f"By {model}.") + "\n")
    judge = f'kind = "server", base_url = "{address}", model = "judge", concurrency = {CONCURRENCY}'
    return [
        *(sys.executable, "-m", "parrot_lite", "eval", str(ROOT / "recipes" / "demo.toml")),
        f"run.folder={folder / 'runs'}",
        f"eval.bench={folder / 'bench.jsonl'}",
        "eval.sessions=none",
        "eval.models=none",
        *(f'eval.models.{model}={{kind = "scripted", path = "{folder / model}.jsonl"}}' for model in ("one", "two")),
        f"eval.judge.chat={{{judge}}}",
        "eval.judge.prompt=single",
        "eval.judge.verdict=written",
        'eval.judge.pairs=[["two", "one"]]',
        "eval.probe=none",
        "eval.resamples=50",
    ]


def _run(command: list[str], until: Callable[[], bool] | None) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "none"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while until is not None and process.poll() is None and not until():
        time.sleep(0.002)
    if until is not None:
        process.send_signal(signal.SIGKILL)
    return process.wait()


def _reached(server: Loopback, calls: int) -> Callable[[], bool]:
    return lambda: len(server.requests) >= calls


def test_no_verdict_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    with loopback(_judge) as server:
        assert _run(_command(tmp_path / "whole", server.address), None) == 0
        calls = Counter(json.dumps(request) for request in server.requests)
        assert set(calls.values()) == {1}
        assert len(calls) > VERDICTS + 2 * COMPARED  # some were asked for again
    kills = (20, 50, 90, 120)  # calls: twice among the verdicts, twice among the comparisons
    with loopback(_judge) as server:
        command = _command(tmp_path / "killed", server.address)
        for enough in kills:
            assert _run(command, _reached(server, enough)) == -signal.SIGKILL
        assert _run(command, None) == 0
        again = Counter(json.dumps(request) for request in server.requests)
    whole, killed = (tmp_path / name / "runs" / "demo" / "eval" for name in ("whole", "killed"))
    judgments = list(read(killed / "judgments.jsonl", Judgment))
    assert len({(one.model, one.dialogue, one.turn) for one in judgments}) == len(judgments) == VERDICTS
    comparisons = list(read(killed / "comparisons.jsonl", Comparison))
    assert len({(one.dialogue, one.turn) for one in comparisons}) == len(comparisons) == COMPARED
    for name in ("answers.jsonl", "judgments.jsonl", "comparisons.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    # What a kill costs: the calls in flight, and those of verdicts and comparisons that wait for a second one.
    assert set(again) == set(calls)
    twice = again.total() - len(again)
    assert 0 < twice <= len(kills) * 4 * CONCURRENCY
