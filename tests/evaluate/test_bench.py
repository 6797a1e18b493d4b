"""Benchmarks in FastChat's form."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from parrot_lite.errors import UserError
from parrot_lite.evaluate.bench import load, pick
from parrot_lite.evaluate.records import Question

MT_BENCH = Path(__file__).parents[3] / "shared" / "data" / "mt_bench" / "question.jsonl"


def _write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_bundled_has_eight_turns_in_every_category() -> None:
    questions = load("bundled")
    assert {len(question.queries) for question in questions} == {8}
    assert set(Counter(question.category for question in questions).values()) == {2}
    assert len(pick(questions, 8)) == len({question.category for question in pick(questions, 8)}) == 8


@pytest.mark.skipif(not MT_BENCH.exists(), reason=f"MT-Bench is not at {MT_BENCH}")
def test_mt_bench() -> None:
    questions = load(str(MT_BENCH))
    assert len(questions) == 80
    assert {len(question.queries) for question in questions} == {2}
    assert sum(question.references != (None, None) for question in questions) == 39
    assert questions[0].id == "81"
    assert questions[0].references == (None, None)


def test_any_number_of_turns_and_short_references(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "q.jsonl",
        {"question_id": "a", "category": "math", "turns": ["1+1? ", "+1?", "+2?"], "reference": ["2"], "labels": [1]},
        {"question_id": 7, "category": "chat", "turns": ["Hi"]},
    )
    first, second = load(path)
    assert (first.queries, first.references) == (("1+1?", "+1?", "+2?"), ("2", None, None))
    assert (second.id, second.references) == ("7", (None,))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"category": "math", "turns": ["x"]}, "no 'question_id'"),
        ({"question_id": 1, "category": "math", "turns": []}, "non-empty strings"),
        ({"question_id": 1, "category": "math", "turns": ["x", " "]}, "non-empty strings"),
        ({"question_id": 1, "category": "math", "turns": ["x"], "reference": ["a", "b"]}, "2 references for 1 turns"),
        ({"question_id": 1, "category": "math", "turns": ["x"], "reference": "a"}, "list of strings or null"),
        ({"question_id": None, "category": "math", "turns": ["x"]}, "'question_id'"),
        ([1], "no object"),
        ({"question_id": 0, "category": "math", "turns": ["x"]}, "occurs twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: object, what: str) -> None:
    path = _write(tmp_path / "q.jsonl", {"question_id": 0, "category": "math", "turns": ["x"]}, row)
    with pytest.raises(UserError, match=r"q\.jsonl:2") as error:
        load(path)
    assert what in error.value.what


def test_broken_json_empty_and_missing_files(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question_id": 1', encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.jsonl:1"):
        load(str(broken))
    with pytest.raises(UserError, match="no session"):
        load(_write(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="no such file"):
        load(str(tmp_path / "missing.jsonl"))


def test_pick_spreads_over_categories_in_file_order_and_nests() -> None:
    questions = [
        Question(id=f"{index}", category=category, queries=("x",), references=(None,))
        for index, category in enumerate(["a", "a", "a", "b", "b", "c"])
    ]
    picked = {n: [question.id for question in pick(questions, n)] for n in range(1, 8)}
    assert picked[3] == ["0", "3", "5"]
    assert picked[5] == ["0", "1", "3", "4", "5"]
    assert picked[6] == picked[7] == [question.id for question in pick(questions, None)]
    assert all(set(picked[n]) < set(picked[n + 1]) for n in range(1, 6))
