"""What training must not have seen."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from parrot_lite.errors import UserError
from parrot_lite.evaluate.records import Question
from parrot_lite.recipe_file import load
from parrot_lite.tables import verb
from parrot_lite.tables.leaks import leaks
from parrot_lite.types import Dialogue, Turn
from tests.tiny import sessions, write
from tests.train.trees import tree

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"
LONG = "Please tell me which of the seven rivers of that valley has the most salmon in May"  # 17 words


def said(name: str, *texts: str) -> Dialogue:
    roles = ("user", "assistant")
    turns = tuple(Turn(role=roles[at % 2], content=text) for at, text in enumerate(texts))  # type: ignore[arg-type]
    return Dialogue(id=name, source="test", turns=turns)


HELDOUT = [said("h", LONG, "The third.", "And in June?", "The fourth.")]
QUESTIONS = [
    Question(id="q", category="c", queries=("Write " + LONG.lower().replace("salmon", "trout"),), references=(None,))
]


def found(tmp_path: Path, *dialogues: Dialogue, questions: list[Question] | None = None) -> list[str]:
    return list(leaks([write(tmp_path / "data.jsonl", dialogues)], HELDOUT, questions or []))


def test_a_session_that_is_held_out(tmp_path: Path) -> None:
    (line,) = found(tmp_path, said("h", "Something else?", "Yes."), said("g", "Hello?", "Yes."))
    assert line.endswith("data.jsonl: session h is kept apart")


@pytest.mark.parametrize("place", ["query", "answer", "later"])
def test_thirteen_words_in_a_row_wherever_they_are_said(tmp_path: Path, place: str) -> None:
    run = " ".join(LONG.split()[2:15])  # 13 of them
    texts = {
        "query": (f"Hm, {run.upper()}?", "Yes."),
        "answer": ("Say it.", f"I say: {run}."),
        "later": ("A?", "B.", run, "C."),
    }
    (line,) = found(tmp_path, said("x", *texts[place]))
    assert line.endswith("session x says 13 words in a row of the sessions kept apart")
    short = " ".join(LONG.split()[2:14])  # 12
    assert not found(tmp_path, said("x", short, "Yes."))


def test_short_queries_are_everywhere_and_no_leak(tmp_path: Path) -> None:
    assert not found(tmp_path, said("x", "And in June?", "Perhaps."))


def test_a_benchmarks_query_and_both_at_once(tmp_path: Path) -> None:
    run = " ".join(LONG.split()[:12])
    (line,) = found(tmp_path, said("x", f"Write {run}", "No."), questions=QUESTIONS)
    assert line.endswith("of the benchmark")
    (line,) = found(tmp_path, said("x", f"Write {LONG}", "No."), questions=QUESTIONS)
    assert line.endswith("of the benchmark and the sessions kept apart")


def test_session_trees_with_their_negatives(tmp_path: Path) -> None:
    clean = tree()
    bad = tree(text=LONG)
    file = write(tmp_path / "trees.jsonl", [clean, bad.model_copy(update={"dialogue": bad.dialogue})])
    (line,) = leaks([file], HELDOUT, [])
    assert "13 words in a row" in line


def test_the_bundled_sessions_share_nothing_with_one_another(tmp_path: Path) -> None:
    some, rest = sessions()[:16], sessions()[16:]
    assert not list(leaks([write(tmp_path / "data.jsonl", rest)], some, []))


def test_a_file_is_checked_against_every_rows_own_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows may train on the same file and be evaluated on different sessions."""
    asked = "could you tell me how many steps lead up to the old lighthouse on the cape"
    data = tmp_path / "data.jsonl"
    data.write_text(Dialogue(id="1", source="x").say(asked).say("Ninety.").model_dump_json() + "\n", encoding="utf-8")
    tasks = []
    for name, query in (("other", "Hello there."), ("same", asked)):
        bench = tmp_path / f"{name}.jsonl"
        bench.write_text(json.dumps({"question_id": 1, "category": "stem", "turns": [query]}) + "\n", encoding="utf-8")
        recipe = load(DEMO, [f"eval.bench={bench}", "eval.probe=none", "eval.sessions=none"])
        tasks.append(SimpleNamespace(stage="train-sft", trial=SimpleNamespace(recipe=recipe, stages=())))
    monkeypatch.setattr(verb, "_trained_on", lambda recipe, stage: [data])
    check = verb.refuse_leaks()
    check(tasks[0])
    with pytest.raises(UserError, match="training would see what is evaluated on"):
        check(tasks[1])
