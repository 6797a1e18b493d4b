"""Benchmarks in FastChat's form."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from parrot_lite.errors import UserError
from parrot_lite.evaluate.bench import inputs, load, pick
from parrot_lite.evaluate.records import Label, Played, Question
from parrot_lite.recipe import Eval, Scripted
from parrot_lite.types import Dialogue

DATA = Path(__file__).parents[3] / "shared" / "data"
MT_BENCH = DATA / "mt_bench" / "question.jsonl"
MT_EVAL = DATA / "mt_eval" / "followup_sessions.jsonl"


def _write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_bundled_has_eight_turns_in_every_category() -> None:
    questions = load("bundled")
    assert {len(question.queries) for question in questions} == {8}
    assert len(set(Counter(question.category for question in questions).values())) == 1
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
        {"question_id": "a", "category": "math", "turns": ["1+1? ", "+1?", "+2?"], "reference": ["2"]},
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
        ({"question_id": 1, "category": "a", "turns": ["x"], "labels": 1}, "'labels' must be a list"),
        (
            {"question_id": 1, "category": "a", "turns": ["x"], "labels": [{"kinds": []}]},
            "label of turn 1: 'kinds': tuple should have at least 1 item",
        ),
        (
            {"question_id": 1, "category": "a", "turns": ["x"], "labels": [{"kinds": ["anaphora"]}]},
            "label of turn 1: 'leans_on' is a turn where",
        ),
        (
            {"question_id": 1, "category": "a", "turns": ["x", "y"], "labels": [None]},
            "1 labels for 2 queries",
        ),
        ({"id": 1, "turns": [{"role": "assistant", "content": "x"}]}, "message 1 should be the user's"),
        ({"id": 1, "messages": [{"role": "user", "content": None}]}, "message 1 has no text"),
        ({"id": 1, "messages": [{"role": "user", "content": " "}]}, "turn 1 asks nothing"),
        ({"id": 1, "conv": [{"user": "x", "bot": "y"}, {"sys": "y"}]}, "exchange 2 of 'conv' needs a text as 'user'"),
        ({"task": "CM", "history": [{"user": "x", "bot": "y"}]}, "no 'id'"),
        ({"task": "CM", "id": 1, "history": []}, "'history' must be a list of objects with 'user' and 'bot'"),
        ([1], "no object"),
        ({"question_id": 0, "category": "math", "turns": ["x"]}, "occurs twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: object, what: str) -> None:
    path = _write(tmp_path / "q.jsonl", {"question_id": 0, "category": "math", "turns": ["x"]}, row)
    with pytest.raises(UserError, match=r"q\.jsonl:2") as error:
        load(path)
    assert what in error.value.what


@pytest.mark.skipif(not MT_EVAL.exists(), reason=f"MT-Eval is not at {MT_EVAL}")
def test_mt_eval_sessions() -> None:
    questions = load(str(MT_EVAL))
    assert len(questions) == 80
    assert {len(question.queries) for question in questions} == {5}
    assert all(None not in question.references for question in questions)
    assert len({question.category for question in questions}) == 8


@pytest.mark.skipif(not MT_BENCH.exists(), reason=f"MT-Bench is not at {MT_BENCH}")
def test_fastchats_reference_answers_fill_what_is_missing() -> None:
    file = DATA / "mt_bench" / "reference_answer" / "gpt-4.jsonl"
    plain, filled = load(str(MT_BENCH)), load(str(MT_BENCH), str(file))
    given = {row["question_id"]: row["choices"][0]["turns"] for row in map(json.loads, file.open())}
    for before, after in zip(plain, filled, strict=True):
        for turn, (own, now) in enumerate(zip(before.references, after.references, strict=True)):
            answered = given.get(int(before.id))
            assert now == (own or (answered[turn].strip() if answered else None))
    assert sum(None not in question.references for question in filled) > sum(
        None not in question.references for question in plain
    )


MESSAGES = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "b"},
]
FORMS = {
    "fastchat": {"question_id": 3, "category": "c", "turns": ["a", "b"], "reference": ["A"]},
    "sessions": {
        "id": "3",
        "source": "c",
        "turns": MESSAGES,
    },
    "messages": {
        "id": 3,
        "category": "c",
        "messages": [{"role": "system", "content": "Be kind."}, *MESSAGES],
    },
    "mt-eval, raw": {
        "question_id": 3,
        "category": "c",
        "conversation": [{"user": "a", "sys": "A", "id": "3_0"}, {"user": "b", "sys": ""}],
    },
    "mt-eval": {"id": "3", "category": "c", "conv": [{"user": "a", "sys": "A", "do_inference": True}, {"user": "b"}]},
    "mt-bench-101": {"id": 3, "task": "c", "history": [{"user": "a", "bot": "A"}, {"user": "b", "bot": None}]},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_session(tmp_path: Path, form: str) -> None:
    (question,) = load(_write(tmp_path / "b.jsonl", FORMS[form]))
    name = "c-3" if form == "mt-bench-101" else "3"  # its tasks may each number their own
    assert question == Question(id=name, category="c", queries=("a", "b"), references=("A", None))


def test_a_form_without_category_takes_the_files_name(tmp_path: Path) -> None:
    (question,) = load(_write(tmp_path / "follow-up_multi.jsonl", {"id": "1", "conv": [{"user": "a", "sys": ""}]}))
    assert question.category == "follow-up_multi"


def test_a_folder_as_the_hub_gives_its_only_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real library, which takes a folder for an id."""
    pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "some" / "set"
    folder.mkdir(parents=True)
    _write(folder / "train.jsonl", FORMS["mt-eval"])
    (question,) = load("hf:some/set")
    assert question == Question(id="3", category="c", queries=("a", "b"), references=("A", None))
    (folder / "test.jsonl").write_text((folder / "train.jsonl").read_text().replace('"3"', '"4"'))
    assert [question.id for question in load("hf:some/set")] == ["4"]
    with pytest.raises(UserError, match=r"^hf:some: not a data set of the hub"):
        load("hf:some")
    assert inputs(Eval(bench="hf:some/set", models={"m": Scripted(kind="scripted", path="x")})) == {}


def test_labels_are_read(tmp_path: Path) -> None:
    labels = [
        {"kinds": ["self-contained"], "leans_on": None},
        {"kinds": ["anaphora", "shift"], "leans_on": 1, "entity": ["Odile", "Odile's"]},
    ]
    row = {"question_id": 1, "category": "writing", "turns": ["Odile bakes.", "Greet her."], "labels": labels}
    (question,) = load(_write(tmp_path / "b.jsonl", row))
    assert question.labels == (
        Label(kinds=("self-contained",)),
        Label(kinds=("anaphora", "shift"), leans_on=1, entity=("Odile", "Odile's")),
    )
    assert all(len(question.labels) == 8 for question in load("bundled"))


OTHER = {"role": "user", "content": "another question"}


def test_reference_answers_in_each_form(tmp_path: Path) -> None:
    rows = [{"question_id": id, "category": "c", "turns": ["a", "b"], "reference": ["A"]} for id in (1, 2, 3, 4)]
    bench = _write(tmp_path / "b.jsonl", *rows)
    dialogue = Dialogue(id="2", source="x").say("a").say("x").say("b").say("B2")
    played = Played(model="m", category="c", dialogue=dialogue.model_copy(update={"id": "3"}))
    answers = [
        {"question_id": 1, "model_id": "gpt-4", "choices": [{"index": 0, "turns": ["x", " B1 "]}]},
        dialogue.model_dump(),
        played.model_dump(),
    ]
    questions = load(bench, _write(tmp_path / "a.jsonl", *answers))
    assert [question.references for question in questions] == [("A", "B1"), ("A", "B2"), ("A", "B2"), ("A", None)]
    for wrong, what in (
        ([answers[0], answers[0]], "a.jsonl:2: session 1 is answered twice"),
        ([{"question_id": 9, "choices": [{"turns": ["x"]}]}], "answers no session of the benchmark"),
        ([{"question_id": 1, "choices": [{"turns": [None]}]}], "a.jsonl:1: no answers to a session: 'choices'"),
        ([{"question_id": 1}], "a.jsonl:1: no answers to a session: no 'turns'"),
        (
            [{"id": "2", "turns": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}, OTHER]}],
            "a.jsonl:1: session 2 is another one than the benchmark's from turn 2 on",
        ),
    ):
        with pytest.raises(UserError) as error:
            load(bench, _write(tmp_path / "a.jsonl", *wrong))
        assert what in str(error.value)


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
