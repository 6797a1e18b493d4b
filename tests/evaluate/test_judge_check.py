"""The whole check: on a finished evaluation's answers, with a judge that reads and with one that does not."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from parrot_lite.errors import UserError
from parrot_lite.evaluate import evaluation, judge_check
from parrot_lite.evaluate.agreement import LabelledAnswer
from parrot_lite.evaluate.card import ALTERATIONS, REPEATS, kept
from parrot_lite.evaluate.report import build
from parrot_lite.recipe import Decoding, Recipe
from parrot_lite.recipe_file import load
from parrot_lite.store import read
from parrot_lite.types import Dialogue, Judgment, Reply, Role, Turn

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"
SESSIONS, ITEMS = 8, 10


class Reader:
    """A judge by rule: 8 for an answer that names the session and turn it stands in, and no history but its own."""

    name = "reader"

    def __init__(self) -> None:
        self.calls = 0
        self.seeds: set[int] = set()

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        self.calls += len(dialogues)
        self.seeds.add(seed)
        return [Reply(text=f"[[{self._score(one.turns[0].content)}]]", stop="end") for one in dialogues]

    def _score(self, prompt: str) -> int:
        queries, answers = (re.findall(rf"{who}: topic (\d+) turn (\d+)", prompt) for who in ("User", "Assistant"))
        if not answers or answers[-1] != queries[-1]:
            return 2
        return 4 if {session for session, _ in queries} != {queries[-1][0]} else 8

    def close(self) -> None: ...


def _bench(path: Path) -> Path:
    lines = [
        {"question_id": s, "category": "stem", "turns": [f"topic {s} turn {t}" for t in range(4)]}
        for s in range(SESSIONS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _recipe(tmp_path: Path, verdicts: list[str]) -> Recipe:
    """Its models say each query again, so that an answer tells where it belongs."""
    said = tmp_path / "said.jsonl"
    said.write_text(json.dumps("Certainly.") + "\n")
    judge = tmp_path / "judge.jsonl"
    judge.write_text("".join(json.dumps(one) + "\n" for one in verdicts), encoding="utf-8")
    keys = [
        f"run.folder={tmp_path / 'runs'}",
        f"eval.bench={_bench(tmp_path / 'bench.jsonl')}",
        "eval.sessions=none",
        "eval.probe=none",
        *(f'eval.models.{name}={{kind="scripted", path="{said}"}}' for name in ("base", "sft", "capo")),
        f'eval.judge.chat={{kind="scripted", path="{judge}"}}',
        "eval.judge.prompt=single",
        "eval.judge.verdict=written",
    ]
    recipe = load(DEMO, keys)
    evaluation.run(recipe)
    _echo(recipe.folder("eval") / "answers.jsonl")
    return recipe


def _echo(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        turns = row["dialogue"]["turns"]
        for query, answer in zip(turns[::2], turns[1::2], strict=True):
            answer["content"] = query["content"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_judge_that_reads_is_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, chat = _recipe(tmp_path, ["[[5]]"]), Reader()
    monkeypatch.setattr(judge_check, "open_chat", lambda *_: chat)
    (tmp_path / "bench.jsonl").write_text('{"question_id": 0, "category": "stem", "turns": ["Of a later version."]}\n')
    judge_check.run(recipe, ITEMS, None, None)
    asked = (len(ALTERATIONS) + REPEATS - 1) * ITEMS
    assert chat.calls == asked
    assert len(chat.seeds) == REPEATS  # a judge that draws says something else when it is asked again
    card = kept(recipe)
    assert card is not None
    assert (card.judge, card.items, card.sessions) == ("reader@single", ITEMS, SESSIONS)
    assert card.unfit == ()
    rows = {one.what: one.found for one in card.findings}
    assert rows["gives a verdict"] == f"{asked}/{asked}"
    for altered, drop in (
        ("an answer that says nothing", 6),
        ("an answer from another session", 6),
        ("the answer of the turn before, given again", 6),
        ("the same answer behind another session's history", 4),
    ):
        assert rows[f"punishes {altered}"] == f"drop +{drop}.00 [+{drop}.00, +{drop}.00], lower in 100%"
    assert "Judge card of reader@single" in (recipe.folder("judge-check") / "card.md").read_text(encoding="utf-8")
    judge_check.run(recipe, ITEMS, None, None)
    assert chat.calls == asked  # all of it was kept


def test_a_judge_that_does_not_read_gets_a_red_line_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe(tmp_path, ["Good. [[7]]"])
    assert not any("not fit" in line for line in build(recipe).warnings)
    assert "judge card" in dict(build(recipe).facts)  # which says that there is none
    judge_check.run(recipe, ITEMS, None, None)
    assert "scripted@single is not fit for this comparison" in " ".join(capsys.readouterr().out.split())
    report = build(recipe)
    assert [line for line in report.warnings if line.startswith("scripted@single is not fit")]
    assert "judge card" not in dict(report.facts)
    assert any(table.title == "Judge card of scripted@single" for table in report.tables)
    with (tmp_path / "judge.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps("Bad. [[2]]") + "\n")
    evaluation.run(recipe, rerun=True)
    assert kept(recipe) is None  # it is of the judge that there was before
    assert not any("not fit" in line for line in build(recipe).warnings)


def test_killed_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, chat = _recipe(tmp_path, ["[[5]]"]), Reader()

    class Dies(Reader):
        def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
            if self.calls >= 25:
                raise KeyboardInterrupt
            return super().reply(dialogues, speaker, decoding, seed)

    monkeypatch.setattr(judge_check, "open_chat", lambda *_: Dies())
    with pytest.raises(KeyboardInterrupt):
        judge_check.run(recipe, ITEMS, None, None)
    (kept,) = recipe.folder("judge-check").glob("verdicts-*.jsonl")
    before = list(read(kept, Judgment))
    assert len(before) == 25
    monkeypatch.setattr(judge_check, "open_chat", lambda *_: chat)
    judge_check.run(recipe, ITEMS, None, None)
    assert chat.calls == (len(ALTERATIONS) + REPEATS - 1) * ITEMS - 25


def test_labels_are_judged_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe(tmp_path, ["[[5]]"])
    monkeypatch.setattr(judge_check, "open_chat", lambda *_: Reader())
    labels = [
        LabelledAnswer(
            id=str(at),
            category="stem",
            turns=(Turn(role="user", content=f"topic {at} turn 0"), Turn(role="assistant", content=said)),
            score=score,
        )
        for at in range(3)
        for said, score in ((f"topic {at} turn 0", 9.0), ("topic 77 turn 0", 3.0))
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(one.model_dump_json() + "\n" for one in labels), encoding="utf-8")
    judge_check.run(recipe, ITEMS, "base", file)
    text = (recipe.folder("judge-check") / "card.md").read_text(encoding="utf-8")
    assert "| answers with both | 6/6 |" in text
    assert "| same order of two answers to one query | 1.00 [1.00, 1.00] |" in text
    assert "| judge minus label | -1.00 [-1.00, -1.00] |" in text  # 8 for 9, 2 for 3


def test_what_cannot_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = _recipe(tmp_path, ["[[5]]"])
    with pytest.raises(UserError, match="no such model"):
        judge_check.run(recipe, ITEMS, "nobody", None)
    silent = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"judge": None})})
    with pytest.raises(UserError, match="the recipe has no judge"):
        judge_check.run(silent, ITEMS, None, None)
    (recipe.folder("eval") / "manifest.json").unlink()
    with pytest.raises(UserError, match="stage eval has no finished result"):
        judge_check.run(recipe, ITEMS, None, None)
