"""What data shares with benchmarks: by hand, and against a slow search written differently."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_lite.collect import overlap
from parrot_lite.errors import UserError
from parrot_lite.store import locate
from parrot_lite.types import Branch, Dialogue, Negative, SessionTree, Turn
from parrot_lite.words import words

ROOT = Path(__file__).parents[2]
SHARED = Path(__file__).parents[3] / "shared" / "data"
BENCH = locate(overlap.BUNDLED)
RUN = "one two three four five six seven eight nine ten eleven twelve thirteen"


def known(*queries: str, name: str = "x") -> overlap.Benchmarks:
    benchmarks = overlap.Benchmarks()
    benchmarks.add(name, queries)
    return benchmarks


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("What's   UP, doc", "equal"),  # case, white space and punctuation do not count
        ("What’s up... doc?!", "equal"),
        ("ＷＨＡＴ＇Ｓ up doc", "equal"),  # nor the width of letters
        ("What's up", None),
        ("What's up doc now", None),  # shorter than 13 words: equal or nothing
        (RUN.upper(), "equal"),
        (f"zero {RUN} fourteen", "13 words"),
        (RUN.replace(" ", " - "), "equal"),
        (RUN.rpartition(" ")[0], None),  # twelve of them
        (RUN.replace("seven", "seven and"), None),
        ("", None),
        ("?!", None),
    ],
)
def test_equal_by_words_or_thirteen_in_a_row(text: str, match: str | None) -> None:
    assert known("what's up, doc?", RUN, "…").shared(words(text)) == ({"x": match} if match else {})


def test_each_benchmark_is_named_for_itself() -> None:
    benchmarks = known(f"{RUN} a", name="a")
    benchmarks.add("b", [f"b {RUN}", "Why?"])
    benchmarks.add("c", [f"{RUN} a!", "…"])
    assert benchmarks.shared(words(f"{RUN} a")) == {"a": "equal", "b": "13 words", "c": "equal"}
    assert benchmarks.shared(words("why")) == {"b": "equal"}
    assert benchmarks.counts == {
        "a": {"queries": 1, "runs of 13 words": 2},
        "b": {"queries": 2, "runs of 13 words": 2},
        "c": {"queries": 1, "runs of 13 words": 2, "queries without a word": 1},
    }
    with pytest.raises(UserError, match="no query in this benchmark"):
        benchmarks.add("d", ["…"])


def test_the_same_as_a_search_for_the_joined_words() -> None:
    draw = random.Random(0)
    vocabulary = ["a", "b", "ab", "B"]

    def texts(count: int) -> list[list[str]]:
        return [draw.choices(vocabulary, k=draw.randint(1, 40)) for _ in range(count)]

    benchmark, data = texts(30), texts(300)
    # 4 words make 13 in a row too seldom by chance: data borrows from the benchmark.
    for text in data[::2]:
        lender = draw.choice(benchmark)
        start = draw.randrange(len(lender))
        text[len(text) // 2 : len(text) // 2] = lender[start : start + draw.randint(10, 20)]
    benchmarks = known(*map(" ".join, benchmark))
    matches = {"equal": 0, "13 words": 0, None: 0}
    for text in data:
        joined = f" {' '.join(text)} ".lower()
        runs = (" ".join(query[at : at + 13]).lower() for query in benchmark for at in range(len(query) - 12))
        equal = joined.strip() in {" ".join(query).lower() for query in benchmark}
        expected = "equal" if equal else "13 words" if any(f" {run} " in joined for run in runs) else None
        assert benchmarks.shared(words(" ".join(text))).get("x") == expected
        matches[expected] += 1
    assert min(matches["13 words"], matches[None]) > 20


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def model(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SHAPES = {
    "ours": {"id": "d", "source": "s", "turns": [user("q1"), model("a1")]},
    "FastChat": {"question_id": "d", "category": "x", "turns": ["q1"], "reference": ["r"]},
    "messages": {"id": "d", "messages": [{"role": "system", "content": "s"}, user("q1"), model("a1")]},
    "conversations": {"id": "d", "conversations": [{"from": "human", "value": "q1"}, {"from": "gpt", "value": "a1"}]},
    "UltraChat": {"id": "d", "data": ["q1", "a1"]},
    "preference": {"id": "d", "prompt": [user("q1")], "chosen": [model("a1")], "rejected": [model("a2")]},
    "preference of texts": {"id": "d", "prompt": "q1", "chosen": "a1", "rejected": "a2"},
    "labelled queries": {"id": "d", "query": "q1", "rewrite": "q2", "history": []},
    "played": {"model": "m", "dialogue": {"id": "d", "source": "s", "turns": [user("q1"), model("a1")]}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_read(tmp_path: Path, shape: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps([SHAPES[shape]]))
    [said] = overlap.spoken(file)
    answers = {"FastChat": [], "labelled queries": []}.get(shape, ["a1", *["a2"] * shape.startswith("preference")])
    assert said == overlap.Said("d", ["q1"], answers, 0)


def test_a_tree_holds_what_is_trained_on(tmp_path: Path) -> None:
    negative = Negative(kind="neglect", text="wrong", how="structural", writer="w", done="d", saw=())
    other = (Turn(role="user", content="q elsewhere"),)
    tree = SessionTree(
        dialogue=Dialogue(id="d", source="s").say("q1").say("a1"),
        branches=(Branch(turn=1, rule="r", negative=negative, chosen="better", context=other),),
    )
    file = tmp_path / "trees.jsonl"
    file.write_text(tree.model_dump_json() + "\n")
    [said] = overlap.spoken(file)
    assert (said.id, said.queries, sorted(said.answers)) == ("d", ["q1", "q elsewhere"], ["a1", "better", "wrong"])


def test_nothing_slips_through_by_its_shape(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    odd = [{"from": "narrator", "value": "q1"}, {"from": "human", "value": None}, {"from": "human", "value": "q2"}]
    file.write_text(json.dumps({"conversations": odd}))
    assert list(overlap.spoken(file)) == [overlap.Said("row 1", ["q1", "q2"], [], 1)]
    for row in ({"prose": "q"}, ["q"], {"turns": None}):
        file.write_text(json.dumps({"query": "q"}) + "\n" + json.dumps(row))
        with pytest.raises(UserError, match="row 2 is of no known shape"):
            list(overlap.spoken(file))


def parrot(*arguments: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "parrot_lite", "overlap", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_verb(tmp_path: Path) -> None:
    asked = json.loads(BENCH.read_text(encoding="utf-8").splitlines()[1])["turns"][0]
    sessions = [
        Dialogue(id="clean", source="s").say("Name a river.").say(f"Is this it: {RUN}?"),
        Dialogue(id="dirty", source="s").say("Name a lake.").say("Como.").say(asked.lower()).say("No."),
        Dialogue(id="run", source="s").say(f"Count: {RUN}!").say("Done."),
    ]
    data, own = tmp_path / "data.jsonl", tmp_path / "own.txt"
    data.write_text("".join(session.model_dump_json() + "\n" for session in sessions))
    own.write_text(f"zero {RUN}\n")

    code, out, _ = parrot(data)
    lines = out.splitlines()
    assert (code, lines[0]) == (1, f"{data}: dirty query 2: equal in bundled")
    assert lines[1] == f"{data}: 3 rows, 4 queries"
    assert lines[-1].split() == ["bundled", "640", "1", "0"]

    code, out, _ = parrot(data, "--with", own, "--answers")
    assert code == 1
    assert out.splitlines()[:3] == [
        f"{data}: clean answer 1: 13 words in {own}",
        f"{data}: dirty query 2: equal in bundled",
        f"{data}: run query 1: 13 words in {own}",
    ]
    assert out.splitlines()[-1].split() == [str(own), "1", "0", "2"]

    data.write_text(sessions[0].model_dump_json() + "\n")
    code, out, _ = parrot(data, "--with", own)
    assert (code, out.splitlines()[0]) == (0, f"{data}: 1 rows, 1 queries")
    code, out, error = parrot(data, "--with", tmp_path / "none.jsonl")
    assert (code, out) == (2, "")
    assert "none.jsonl: no such file" in error


def test_real_benchmarks_share_what_they_are_made_of() -> None:
    mt_bench, mt_eval = SHARED / "mt_bench" / "question.jsonl", SHARED / "mt_eval" / "followup_sessions.jsonl"
    if not (mt_bench.exists() and mt_eval.exists()):
        pytest.skip(f"needs {mt_bench} and {mt_eval}")
    benchmarks = overlap.benchmarks({"MT-Bench": mt_bench})
    assert benchmarks.counts["MT-Bench"]["queries"] == 160
    found = [benchmarks.shared(words(said.queries[0])) for said in overlap.spoken(mt_eval)]
    assert found == [{"MT-Bench": "equal"}] * 80  # it extends MT-Bench: same first queries
