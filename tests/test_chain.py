"""The whole chain through the command line, on a random LLaMA; and a small part of it on the real model."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parrot_lite import cli
from parrot_lite.evaluate.records import Likelihood, Played
from parrot_lite.recipe import Recipe, Stage
from parrot_lite.recipe_file import load
from parrot_lite.store import read
from parrot_lite.types import Dialogue, Judgment, SessionTree
from tests.tiny import REAL, TRAINING, first_turns, log, manifest, needs_real, one_thread, tiny_model, write

STAGES: tuple[Stage, ...] = ("logs", "train-ask", "collect", "negatives", "train-sft", "train-capo", "eval")

# Asker and judged models are the random LLaMA. It ends no answer and gives no verdict, so the others are scripted.
CHAIN = """
[run]
folder = {runs}
[model]
base = {base}
device = "cpu"
dtype = "float32"
load_in_4bit = false
[logs]
source = "bundled"
heldout = 3
sessions = 10
max_turns = 3
[ask]
data = ["logs"]
max_steps = 4
{training}
[collect]
sessions = 4
min_turns = 2
max_turns = 3
keep_turns = 1
asker = {{ kind = "local", adapter = "train-ask" }}
answerer = {{ kind = "scripted", path = {answers} }}
asker_decoding = {{ max_tokens = 16 }}
[negatives]
data = ["collect", "logs"]
sessions = 4
turns_per_session = 1
max_rouge = 1
min_length_ratio = 0
writer = {{ kind = "scripted", path = {answers} }}
[sft]
data = ["collect", "logs"]
max_steps = 4
{training}
[capo]
max_tokens = 2048
accumulation = 2
learning_rate = 1e-2
checkpointing = false
[eval]
sessions = 2
max_tokens = 8
models.base = {{ kind = "local" }}
models.sft = {{ kind = "local", adapter = "train-sft" }}
models.capo = {{ kind = "local", adapter = "train-capo" }}
[eval.judge]
chat = {{ kind = "scripted", path = {judge} }}
[eval.probe]
sessions = 3
turns_per_session = 1
max_tokens = 2048
"""


def parrot(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of a command line, as a shell would see it."""
    monkeypatch.setattr("sys.argv", ["parrot", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    judge = tmp_path / "judge.jsonl"
    judge.write_text("".join(json.dumps(f"Rating: [[{score}]]") + "\n" for score in (3, 5, 8)), encoding="utf-8")
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(f"It is the {word}.") + "\n" for word in ("first", "second", "third")))
    with tiny_model(tmp_path / "tiny") as base:
        values = {"runs": tmp_path / "runs", "base": base, "judge": judge, "answers": answers}
        path = tmp_path / "chain.toml"
        path.write_text(
            CHAIN.format(training=TRAINING, **{key: json.dumps(str(value)) for key, value in values.items()}),
            encoding="utf-8",
        )
        yield path


def state(made: Recipe) -> dict[str, str]:
    """Every file under the experiment's folder with a hash of its bytes."""
    root = Path(made.run.folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_whole_chain(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = load(file)
    for stage in STAGES:
        code = parrot(monkeypatch, stage, str(file))
        assert code == 0, capsys.readouterr().err
        assert manifest(made.folder(stage))["stage"] == stage
    assert parrot(monkeypatch, "report", str(file)) == 0
    holds(made)
    before = state(made)
    capsys.readouterr()
    for stage in STAGES:
        assert parrot(monkeypatch, stage, str(file)) == 0
        assert f"{stage}: finished" in capsys.readouterr().err
    assert parrot(monkeypatch, "report", str(file)) == 0
    assert state(made) == before


def holds(made: Recipe) -> None:
    """What each stage wrote fits what the stage before it wrote."""
    facts: dict[str, dict[str, Any]] = {stage: manifest(made.folder(stage)) for stage in STAGES}
    collected = list(read(made.folder("collect") / "dialogues.jsonl", Dialogue))
    assert collected
    assert facts["collect"]["calls"]["tiny+train-ask"]["calls"] > 0
    trees = list(read(made.folder("negatives") / "trees.jsonl", SessionTree))
    branches = sum(len(tree.branches) for tree in trees)
    assert len(trees) == facts["negatives"]["counts"]["trees"] > 0
    assert facts["train-sft"]["counts"]["sessions read"] == len(collected) + 10
    assert facts["train-capo"]["pairs"] == branches
    assert facts["train-capo"]["sessions"] == len(trees)
    for stage, steps in (("train-ask", 4), ("train-sft", 4), ("train-capo", -(-len(trees) // 2))):
        assert [line["step"] for line in log(made.folder(stage))] == list(range(1, steps + 1))  # type: ignore[arg-type]
    played = list(read(made.folder("eval") / "answers.jsonl", Played))
    assert {one.model for one in played} == {"base", "sft", "capo"}
    texts = {name: [one.dialogue.answers for one in played if one.model == name] for name in ("base", "sft", "capo")}
    assert texts["base"] != texts["sft"] != texts["capo"]  # each adapter was loaded
    judged = list(read(made.folder("eval") / "judgments.jsonl", Judgment))
    answered = {
        (one.model, one.dialogue.id, turn) for one in played for turn in range(1, len(one.dialogue.answers) + 1)
    }
    assert {(one.model, one.dialogue, one.turn) for one in judged if one.score is not None} == answered
    likelihoods = list(read(made.folder("eval") / "likelihoods.jsonl", Likelihood))
    assert len(likelihoods) == 3 * 3 * (5 + 1)  # models, sessions; histories of the last answer, and the first answer
    table = (made.folder("report") / "table.md").read_text(encoding="utf-8")
    for words in ("base", "sft", "capo", "scripted@single"):
        assert words in table


def test_a_stage_out_of_turn_is_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage, missing in (("train-ask", "logs"), ("train-sft", "collect"), ("train-capo", "negatives")):
        assert parrot(monkeypatch, stage, str(file)) == 2
        error = capsys.readouterr().err
        assert f"Run: parrot {missing} first" in error
        assert len(error.splitlines()) == 1


REAL_CHAIN = """
[run]
folder = {runs}
[model]
base = {model}
device = "cpu"
[logs]
source = "bundled"
[ask]
data = ["logs"]
[collect]
asker = {{ kind = "local" }}
answerer = {{ kind = "local" }}
[negatives]
writer = {{ kind = "local" }}
[sft]
data = [{data}]
max_tokens = 256
max_steps = 2
accumulation = 1
checkpointing = false
lora = {{ r = 2, alpha = 4 }}
[capo]
[eval]
bench = {bench}
max_tokens = 8
models.sft = {{ kind = "local", adapter = "train-sft" }}
[eval.judge]
chat = {{ kind = "gguf", path = {model}, context = 2048, cache_mb = 64, threads = 2 }}
max_tokens = 12
"""


@needs_real
@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the package llama_cpp: make setup")
def test_the_real_model_trains_speaks_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "data.jsonl", first_turns(2, 1))
    bench = tmp_path / "bench.jsonl"
    question = {"question_id": 1, "category": "writing", "turns": ["Name a river.", "Where does it end?"]}
    bench.write_text(json.dumps(question) + "\n", encoding="utf-8")
    values = {"runs": tmp_path / "runs", "model": REAL, "data": data, "bench": bench}
    file = tmp_path / "real.toml"
    file.write_text(
        REAL_CHAIN.format(**{key: json.dumps(str(value)) for key, value in values.items()}), encoding="utf-8"
    )
    made = load(file)
    with one_thread():
        for verb in ("train-sft", "eval", "report"):
            assert parrot(monkeypatch, verb, str(file)) == 0
    assert [line["step"] for line in log(made.folder("train-sft"))] == [1, 2]
    assert 0.5 < manifest(made.folder("train-sft"))["first_loss"] < 6  # a language model, not noise: ln 49,152 = 10.8
    (played,) = read(made.folder("eval") / "answers.jsonl", Played)
    assert played.failed is None
    assert len(played.dialogue.answers) == 2
    assert len(list(read(made.folder("eval") / "judgments.jsonl", Judgment))) == 2
    assert "SmolLM2-135M-Instruct.Q4_1@single" in (made.folder("report") / "table.md").read_text(encoding="utf-8")
