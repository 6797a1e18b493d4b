"""The asker's report on a model small enough to compute everything again in the plainest way."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from parrot_lite.collect import logs
from parrot_lite.errors import UserError
from parrot_lite.evaluate import asker, user_turns
from parrot_lite.evaluate.records import UserTurn
from parrot_lite.lm import attention
from parrot_lite.lm.model import load_renderer
from parrot_lite.recipe import Recipe, dump
from parrot_lite.store import read
from parrot_lite.train import sft
from parrot_lite.types import Dialogue
from tests.tiny import first_turns, recipe, tiny_model, write


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recipe, Path]]:
    """An asker trained for a few steps on the bundled logs, and its base."""
    folder = tmp_path_factory.mktemp("asker")
    with tiny_model(folder / "tiny") as base:
        made = recipe(folder, base, "ask.epochs=2", "eval.resamples=200", "logs.heldout=6")
        logs.run(made)
        sft.run(made, "train-ask")
        yield made, base


def plainly(model: Any, tokenizer: Any, session: Dialogue) -> Iterator[tuple[int, float, int, float, bool, int, int]]:
    """Turn, NLL, tokens, log P(end) at its end, whether likeliest, tokens inside, false alarms: a row a turn."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for turn in range(2, len(session.queries) + 1):
        told = "".join(f"<|im_start|>{t.role}\n{t.content}<|im_end|>\n" for t in session.turns[: 2 * turn - 2])
        prompt = tokenizer(told + "<|im_start|>user\n", add_special_tokens=False).input_ids
        query = [*tokenizer(session.queries[turn - 1], add_special_tokens=False).input_ids, end]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + query])).logits[0, len(prompt) - 1 : -1]
        log_probs = logits.log_softmax(-1)
        nll = -sum(log_probs[at, token].item() for at, token in enumerate(query))
        expected = logits.argmax(-1).tolist()
        alarms = sum(token == end for token in expected[:-1])
        yield turn, nll, len(query), log_probs[-1, end].item(), expected[-1] == end, len(query) - 1, alarms


def test_user_turns_are_those_of_transformers(trained: tuple[Recipe, Path]) -> None:
    made, base = trained
    found = {(one.model, one.dialogue, one.turn): one for one in user_turns.score(made)}
    tokenizer = AutoTokenizer.from_pretrained(base)
    heldout = list(read(made.folder("logs") / "heldout.jsonl", Dialogue))
    assert len(found) == 2 * sum(len(session.queries) - 1 for session in heldout)
    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    trained_asker = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(trained_asker, made.folder("train-ask") / "adapter")
    for name, model in (("base", bare), ("asker", adapted)):
        for session in heldout:
            for turn, nll, tokens, end, ended, inside, alarms in plainly(model, tokenizer, session):
                one = found.pop((name, session.id, turn))
                assert (one.tokens, one.ended, one.inside, one.alarms) == (tokens, ended, inside, alarms)
                assert (one.nll, one.end) == pytest.approx((nll, end), abs=1e-3)
    assert not found


def test_ends_and_false_alarms_are_those_of_transformers(trained: tuple[Recipe, Path]) -> None:
    """With a head that expects the end-of-turn mark about every second time."""
    made, base = trained
    renderer = load_renderer(made.model)
    plain, model = (AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) for _ in range(2))
    with torch.no_grad():
        for one in (plain, model):
            one.get_output_embeddings().weight[renderer.tokenizer.convert_tokens_to_ids("<|im_end|>")] *= 12
            one.requires_grad_(False)
    attention.use(model, 2048)
    ended, alarms = Counter[bool](), 0
    for session in first_turns(8, 3):
        found = user_turns.turns_of(model, renderer, session, 2048, "m")
        rows = list(plainly(plain, renderer.tokenizer, session))
        assert [(one.turn, one.tokens, one.ended, one.inside, one.alarms) for one in found] == [
            (turn, tokens, likeliest, inside, false) for turn, _, tokens, _, likeliest, inside, false in rows
        ]
        ended.update(one.ended for one in found)
        alarms += sum(one.alarms for one in found)
    assert min(ended[True], ended[False]) > 1
    assert alarms > 10


def test_the_asker_was_trained_and_the_report_says_so(trained: tuple[Recipe, Path]) -> None:
    made, _ = trained
    cells = asker.by_model(user_turns.score(made))
    apart = asker.estimates(cells, asker.nll)["asker minus base"]
    assert apart is not None
    assert apart.high is not None
    assert apart.high < 0


def test_a_killed_run_goes_on_and_a_finished_one_reads(
    trained: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = trained
    whole = user_turns.score(made)
    (path,) = made.folder("asker-report").glob("user-turns-*.jsonl")
    written = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for kept in (0, 3, len(written) - 1):
        path.write_text("".join(written[:kept]) + written[kept][:20], encoding="utf-8")
        again = user_turns.score(made)
        key = {(one.model, one.dialogue, one.turn): one for one in again}
        assert len(key) == len(again) == len(whole)
        for one in whole:
            assert key[one.model, one.dialogue, one.turn] == one
    monkeypatch.setattr(user_turns, "load_for_inference", None)  # no model is loaded where nothing is missing
    assert len(user_turns.score(made)) == len(whole)
    # Another context length is another computation, kept in a file of its own.
    shorter = made.model_copy(update={"ask": made.ask.model_copy(update={"max_tokens": 1024})})
    with pytest.raises(UserError, match="train-ask was made with another recipe"):
        user_turns.score(shorter)


def turn(model: str, dialogue: str, number: int, nll: float, **fields: Any) -> UserTurn:
    values = {"tokens": 4, "end": math.log(0.5), "ended": False, "inside": 3, "alarms": 0, **fields}
    return UserTurn(model=model, dialogue=dialogue, turn=number, nll=nll, **values)


def test_measures_by_hand() -> None:
    cells = asker.by_model(
        [
            turn("base", "a", 2, 8.0, ended=True),
            turn("base", "a", 3, 4.0, tokens=2, end=math.log(0.25)),
            turn("base", "b", 2, 6.0, alarms=1),
            turn("asker", "a", 2, 4.0, ended=True),
            turn("asker", "a", 3, 2.0, tokens=2, ended=True, end=math.log(0.75)),
            turn("asker", "b", 2, 6.0),
        ]
    )
    expected = {
        "nll": (12 / 6 / 2 + 6 / 4 / 2, 6 / 6 / 2 + 6 / 4 / 2),
        "ended": (1 / 3, 2 / 3),
        "end probability": (1.25 / 3, 1.75 / 3),
        "false alarms": (1 / 9, 0),
    }
    for name, (base, own) in expected.items():
        found = asker.estimates(cells, asker.MEASURES[name])
        means = [found[row].mean for row in asker.ROWS]  # type: ignore[union-attr]
        assert means == pytest.approx([base, own, own - base]), name


def collected(made: Recipe, sessions: list[Dialogue]) -> None:
    folder = made.folder("collect")
    write(folder / "dialogues.jsonl", sessions)
    (folder / "recipe.toml").write_text(dump({**made.resolved("collect"), "inputs": {}}))
    (folder / "manifest.json").write_text("{}")


def test_the_whole_report(trained: tuple[Recipe, Path], capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = trained
    asker.run(made)
    first = capsys.readouterr()
    assert "collect is not finished" in first.err
    assert "Real or generated" not in first.out

    shouting = [one.model_copy(update={"turns": tuple(
        turn.model_copy(update={"content": turn.content.upper() + " !!!"}) for turn in one.turns
    )}) for one in first_turns(30, 3)]  # fmt: skip
    collected(made, shouting)
    asker.run(made)
    printed = capsys.readouterr().out
    markdown = (made.folder("asker-report") / "asker.md").read_text(encoding="utf-8")
    data = json.loads((made.folder("asker-report") / "asker.json").read_text(encoding="utf-8"))
    assert data["classifier"]["collected"]["area"]["mean"] == 1.0
    control = data["classifier"]["other real ones (control)"]["area"]
    assert 0.1 < control["mean"] < 0.9
    (row,) = [line for line in markdown.splitlines() if line.startswith("| all |")]
    (shown,) = [line for line in printed.splitlines() if line.startswith("all ")]
    for name in ("base", "asker", "asker minus base"):
        value = data["user_turns"]["nll"][name]["mean"]
        number = f"{value:+.3f}" if "minus" in name else f"{value:.3f}"
        assert f"| {number} [" in row
        assert f" {number} [" in shown
        assert any(line.startswith(f"{name}  ") for line in printed.splitlines())  # whole on 100 columns
    assert set(data["nll_by_turn"]) == {"2", "3"}
    assert "| collected | 1.000 [1.000, 1.000] | 2 x 12 |" in markdown


def test_neither_stage_is_finished(tmp_path: Path) -> None:
    made = recipe(tmp_path, tmp_path)
    with pytest.raises(UserError, match="neither train-ask nor collect is finished"):
        asker.run(made)


def test_the_verb_without_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "parrot_lite", "asker-report", "recipes/demo.toml", f"run.folder={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr == "parrot: demo: neither train-ask nor collect is finished. Run: parrot train-ask first\n"
