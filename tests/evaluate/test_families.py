from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from parrot_lite.evaluate import families as module
from parrot_lite.evaluate import report
from parrot_lite.evaluate.families import families, warnings
from parrot_lite.recipe_file import load

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"


def test_doctests() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("meta-llama/Llama-2-13b-chat-hf", "llama"),
        ("lmsys/vicuna-7b-v1.5", "llama"),
        ("selene-1-mini-llama-3.1-8b-q4_k_m.gguf", "llama"),
        ("Qwen3.5-9B-Q4_K_M.gguf", "qwen"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen"),
        ("prometheus-7b-v2.0.Q4_K_M.gguf", "mistral"),
        ("Mixtral-8x7B-Instruct-v0.1", "mistral"),
        ("gpt-4o-mini", "gpt"),
        ("gpt-3.5-turbo", "gpt"),
        ("o3-mini", "gpt"),
        ("HuggingFaceTB/SmolLM2-135M", "smollm"),
        ("microsoft/phi-2", "phi"),
        ("google/gemma-2-9b-it", "gemma"),
    ],
)
def test_families(model: str, family: str) -> None:
    assert families(model) == {family}


@pytest.mark.parametrize("model", ["judge", "scripted.jsonl", "dolphin", "model-o10", "gpt2", "runs/ours/capo"])
def test_names_that_tell_none(model: str) -> None:
    assert families(model) == frozenset()


def test_warnings_by_hand() -> None:
    models = {"base": "Llama-2-13b", "rival": "Qwen2.5-7B"}
    wrote = {"collect.answerer": "gpt-3.5-turbo", "negatives.writer": "vicuna-13b"}
    assert warnings("Mistral-7B", models, wrote) == []
    (one,) = warnings("gpt-4", models, wrote)
    assert "as collect.answerer, which wrote what is trained on" in one
    first, second = warnings("Selene-1-Mini-Llama-3.1-8B", models, wrote)
    assert first == "the judge Selene-1-Mini-Llama-3.1-8B is of the family llama, as base: it may favour them"
    assert "negatives.writer" in second
    (alike,) = warnings("Qwen3.5-9B", {"a": "Qwen2-7B", "b": "Qwen2-7B"}, {})
    assert "as all compared models: it may favour its family's style" in alike


def test_the_report_warns_of_the_demos_judge() -> None:
    recipe = load(DEMO)
    found = report._relatives(recipe)
    assert [("all compared models" in one, "negatives.writer" in one) for one in found] == [
        (True, False),
        (False, True),
    ]
    untrained = load(DEMO, ["eval.models=none", 'eval.models.base={kind="local"}'])
    assert len(report._relatives(untrained)) == 1  # nobody wrote what it was trained on
    other = load(DEMO, ['eval.judge.chat={kind="server", base_url="http://127.0.0.1:1/v1", model="gpt-4"}'])
    assert report._relatives(other) == []
    assert report._relatives(load(DEMO, ["eval.judge=none"])) == []
