"""Rules for a benchmark: each by a session that breaks it, and the bundled one by all of them."""

from __future__ import annotations

import doctest
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from parrot_lite.cli import main
from parrot_lite.evaluate import bench, bench_rules, spellings
from parrot_lite.evaluate.bench_rules import BUNDLED, DESIGN, GENERAL, Finding, against, findings, unbalanced
from parrot_lite.evaluate.records import Label, Question

DATA = Path(__file__).parents[3] / "shared" / "data"
OTHERS = (DATA / "mt_bench" / "question.jsonl", DATA / "mt_eval" / "followup_sessions.jsonl")

QUERIES = (
    "Halldor keeps bees behind the old customs house. Suggest four names for his honey.",
    "Shorter ones.",
    "Which would look best on a tin lid?",
    "Why does honey crystallise?",
    "Print the second on a card and greet the keeper by name.",
    "Swap its colour for amber.",
    "Where do these insects of mine spend the winter?",
    "Close the whole thing with a joke about the building.",
)
Marked = tuple[str, int | None, tuple[str, ...]]  # kinds, the turn leant on, spellings of the entity
LABELS: tuple[Marked, ...] = (
    ("self-contained", None, ()),
    ("ellipsis", 1, ()),
    ("anaphora", 2, ()),
    ("self-contained shift", None, ()),
    ("anaphora", 1, ("Halldor",)),
    ("anaphora", 5, ()),
    ("anaphora shift", 1, ("bees",)),
    ("anaphora", 1, ("customs house",)),
)


def session(
    queries: Sequence[str] = QUERIES,
    labels: Sequence[Marked | None] = LABELS,
    name: str = "1",
    category: str = "writing",
    references: Sequence[str | None] | None = None,
) -> Question:
    made = [
        None
        if one is None
        else Label.model_validate({"kinds": tuple(one[0].split()), "leans_on": one[1]}).model_copy(
            update={"entity": one[2]}
        )
        for one in labels
    ]
    return Question(
        id=name,
        category=category,
        queries=tuple(queries),
        references=tuple(references or [None] * len(queries)),
        labels=tuple(made),
    )


def found(questions: Sequence[Question] | Question, rules: Any = (*GENERAL, *DESIGN)) -> list[tuple[str, int | None]]:
    given = [questions] if isinstance(questions, Question) else questions
    return [(finding.rule, finding.turn) for finding in findings(given, rules)]


def test_doctests() -> None:
    assert doctest.testmod(bench_rules).failed == doctest.testmod(spellings).failed == 0


def broken(queries: dict[int, str], labels: dict[int, Marked | None]) -> Question:
    """The good session with other queries and labels at these turns."""
    return session(
        [queries.get(turn, query) for turn, query in enumerate(QUERIES, 1)],
        [labels.get(turn, label) for turn, label in enumerate(LABELS, 1)],
    )


GOOD = session()
HARD = "Institutional organisations characteristically necessitate interdisciplinary epistemological generalisations."


def test_a_good_session_breaks_nothing() -> None:
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({3: None}, [("label", 3)]),
        ({1: ("self-contained shift", None, ())}, [("label", 1)]),
        ({2: ("ellipsis ellipsis", 1, ())}, [("label", 2)]),
        ({5: ("anaphora", 1, ("Marit",))}, [("entity", 5)]),  # in no earlier query
        ({5: ("anaphora", 1, ("dor",))}, [("entity", 5)]),  # only as a part of a word
        ({7: ("anaphora shift", 1, ("bees", "insects"))}, [("entity", 7)] * 2),  # nor before, and in the query itself
        ({3: ("anaphora", 2, ("SHORTER ones",))}, []),  # whatever its case
        ({6: ("anaphora", 5, ("his",))}, [("entity", 6)]),  # too common
        ({2: ("self-contained", None, ())}, [("phenomena", None)]),  # no ellipsis left
        ({4: ("self-contained", None, ()), 7: ("anaphora", 1, ("bees",))}, [("phenomena", None)]),  # no shift left
        ({4: ("anaphora shift", 1, ())}, [("control", None)]),  # nothing self-contained
        (dict.fromkeys((3, 6), ("self-contained", None, ())), [("control", None)]),  # three are
        ({7: ("anaphora shift", 3, ()), 8: ("anaphora", 3, ("customs house",))}, [("distance", None)]),
        (
            {5: ("anaphora", 2, ("Halldor",)), 7: ("anaphora shift", 6, ("bees",)), 8: ("anaphora", 5, ())},
            [("distance", None)] * 2,
        ),
        ({7: ("anaphora shift", 1, ()), 8: ("anaphora", 1, ())}, [("entities", None)]),  # one
        ({2: ("ellipsis", 1, ("honey",)), 3: ("anaphora", 1, ("honey",))}, [("entities", None)]),  # five
        (
            {
                2: ("ellipsis", 1, ("honey",)),
                3: ("anaphora", 1, ("honey",)),
                **dict.fromkeys((5, 7, 8), ("anaphora shift", 1, ())),
            },
            [("entities", None)],  # all early
        ),
    ],
)
def test_labels_that_break_a_rule(labels: dict[int, Marked | None], expected: list[tuple[str, int | None]]) -> None:
    assert found(broken({}, labels)) == expected


def test_few_turns_that_lean_on_earlier_ones() -> None:
    alone: Marked = ("self-contained", None, ())
    question = broken({}, dict.fromkeys((3, 4, 5, 6), alone) | {7: LABELS[6]})
    assert ("phenomena", None) in found(question)
    assert next(one.what for one in findings([question], DESIGN)).startswith("3 turns lean on earlier ones")


def test_an_unlabelled_or_short_session_is_not_held_to_the_design() -> None:
    assert found(session(labels=())) == []
    assert found(session(QUERIES[:7], LABELS[:7])) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Shorter ones (two words at most.", [("brackets", 2)]),
        ("Shorter ones):", [("brackets", 2)]),
        ("Shorter ones:\n```\na", [("brackets", 2)]),
        ("Shorter ones: a) sweet b) salty", []),
        ("Shorter ones, like CafÃ©", [("mojibake", 2)]),
        ("Shorter ones, I’d say", []),
        (" ".join(["Shorter ones, and tin and jar and lid"] * 9), [("sentence", 2)]),
        ("短いもの。" * 5, [("characters", None)]),
        (f"{HARD} {HARD}", [("ease", None)]),
    ],
)
def test_a_query_that_breaks_a_rule(query: str, expected: list[tuple[str, int | None]]) -> None:
    assert found(broken({2: query}, {})) == expected


def other(**changes: Any) -> Question:
    """A second session that shares nothing with the first."""
    queries = ("Pack a rucksack for Ovidiu, who walks to Cluj.", "Without matches?", *"abcdef")
    return session(queries=queries, labels=changes.pop("labels", ()), name="2", **changes)


def test_wording_repeated_between_sessions() -> None:
    assert found([GOOD, other()]) == []
    first = GOOD.queries[0]
    copied = session([first.replace("honey", "jam"), "Two?"], (), "2")
    assert found([GOOD, copied]) == [("duplicate", 1), ("run", 1)]
    tail = session(["Ants, so Halldor keeps bees behind the old customs house, I am told.", "Two?"], (), "2")
    assert found([GOOD, tail]) == [("run", 1)]
    seven = session(["Ants, so Halldor keeps bees behind the old customs shed, I am told.", "Two?"], (), "2")
    assert found([GOOD, seven]) == []
    exchanged = session(["Print the fifth on a mug and warn the postman by phone.", "Two?"], (), "2")
    assert found([GOOD, exchanged]) == [("template", 1)]
    assert found(session(["Print the second on a card.", "Sort the second on a shelf."], ())) == []  # of one session


def test_two_turns_may_begin_alike_and_a_third_may_not() -> None:
    texts = ["Now tell me which goat won.", "Now, tell me WHICH of them sank.", "Now tell me which flute is in tune."]
    assert found(session(texts[:2], ()), (bench_rules.opening,)) == []
    assert found(session(texts, ()), (bench_rules.opening,)) == [("opening", 3)]


def test_overlap_with_another_benchmark() -> None:
    theirs = [
        "Which would look best on a tin lid",
        "In short: Halldor keeps bees behind the old customs house and nothing else.",
    ]
    whats = [(finding.turn, finding.what.split(":")[0]) for finding in against([GOOD], theirs, "X")]
    assert whats == [(1, "8 words of X"), (3, "is a query of X")]
    thirteen = [f"I heard that {GOOD.queries[0]}"]
    assert [finding.what.split(":")[0] for finding in against([GOOD], thirteen, "X")] == ["13 words of X"]
    assert list(against([GOOD], ["Shorter ones", "keeps bees behind the old customs house today"], "X")) == []


def test_the_bundled_size_and_references() -> None:
    whole = [
        session(name=str(number), category=category, references=["a"] * 8 if category in bench_rules.ANSWERED else None)
        for number, category in enumerate((c for c in bench_rules.CATEGORIES for _ in range(10)), 1)
    ]
    assert found(whole, BUNDLED) == []
    assert found(whole[:-1], BUNDLED) == [("size", None)]
    assert found([*whole[:9], whole[10], whole[9], *whole[11:]], BUNDLED) == [("size", None)] * 2
    assert found([whole[0].model_copy(update={"labels": ()}), *whole[1:]], BUNDLED) == [("size", None)]
    short = session(QUERIES[:7], LABELS[:7])
    assert found([short, *whole[1:]], BUNDLED) == [("size", None)]
    answered = session(references=[None, "a", *[None] * 6])
    assert found([answered, *whole[1:]], BUNDLED) == [("reference", 2)]
    unanswered = whole[20].model_copy(update={"references": (*["a"] * 7, None)})
    assert found([*whole[:20], unanswered, *whole[21:]], BUNDLED) == [("reference", 8)]


def test_the_bundled_benchmark_keeps_to_the_rules() -> None:
    questions = bench.load("bundled")
    broken = [str(one) for one in findings(questions, (*GENERAL, *DESIGN, *BUNDLED))]
    assert broken == []


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.parent.name)
def test_the_bundled_benchmark_shares_nothing_with_published_ones(file: Path) -> None:
    if not file.exists():
        pytest.skip(f"no {file}")
    queries = [query for one in bench.load(str(file)) for query in one.queries]
    assert list(map(str, against(bench.load("bundled"), queries, file.parent.name))) == []
    assert list(against(bench.load(str(file)), queries, "itself"))  # the check would see it


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("f(x[1], {2})", None),
        ("1) one\n2) two (or three)", None),
        ("(a] b", "']' closes nothing"),
        ("see [1", "'[' is never closed"),
        ("```\nif (x:\n```", None),  # code may be broken on purpose
        ("(ext. 200) is open", None),
    ],
)
def test_unbalanced(text: str, wrong: str | None) -> None:
    assert unbalanced(text) == wrong


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "b.jsonl"
    row = {"question_id": "x", "category": "writing", "turns": ["Say (hello.", "Again, but louder than that was."]}
    file.write_text(json.dumps(row) + "\n")
    monkeypatch.setattr("sys.argv", ["parrot", "bench-check", str(file)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "session x turn 1: brackets: '(' is never closed",
        f"{file}: 1 sessions, 2 turns, 0 labelled: 1 x brackets",
    ]
    file.write_text(json.dumps(row).replace("(", "") + "\n")
    monkeypatch.setattr("sys.argv", ["parrot", "bench-check", str(file), "--against", str(file)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert f"session x turn 2: overlap: is a query of {file}" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["parrot", "bench-check", str(file)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert str(Finding("size", None, None, "x")) == "the file: size: x"
