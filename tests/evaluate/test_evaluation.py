"""The whole stage with scripted speakers: play, judge, probe, table; killed and resumed."""

from __future__ import annotations

import json
import re
import types
from pathlib import Path

import pytest

from parrot_lite.errors import UserError
from parrot_lite.evaluate import evaluation
from parrot_lite.evaluate.records import Comparison, Likelihood, Played
from parrot_lite.recipe import Budget, Recipe
from parrot_lite.recipe_file import load
from parrot_lite.store import RunFolder, read
from parrot_lite.types import Dialogue, Judgment

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"
ANSWERS = ["Certainly.", "It depends on the tart, [[10]].", "Forty-one years.", "| a | table |"]
VERDICTS = ["Fits. Rating: [[7]]", "Vague. Rating: [[4]]", "It ignores the history.\nRating: [[2]]", "Rather good."]


def _script(path: Path, lines: list[str | None]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _recipe(tmp_path: Path, *, probe: bool = False, judge: list[str | None] | None = None) -> Recipe:
    overrides = [f"run.folder={tmp_path / 'runs'}", "eval.resamples=200", "eval.sessions=8"]
    for number, name in enumerate(("base", "sft", "capo")):
        path = _script(tmp_path / f"{name}.jsonl", [*ANSWERS[number:], *ANSWERS[:number]])
        overrides.append(f'eval.models.{name}={{kind="scripted", path="{path}"}}')
    path = _script(tmp_path / "judge.jsonl", judge or [*VERDICTS])
    overrides.append(f'eval.judge.chat={{kind="scripted", path="{path}"}}')
    recipe = load(DEMO, overrides)
    if probe:
        return recipe
    return recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"probe": None})})


def _judgments(recipe: Recipe) -> dict[tuple[str, str, int], Judgment]:
    records = list(read(recipe.folder("eval") / "judgments.jsonl", Judgment))
    found = {(one.model, one.dialogue, one.turn): one for one in records}
    assert len(found) == len(records)
    return found


def test_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = _recipe(tmp_path)
    evaluation.run(recipe)
    folder = recipe.folder("eval")
    played = list(read(folder / "answers.jsonl", Played))
    assert len(played) == 3 * 8
    assert all(one.failed is None and len(one.dialogue.answers) == 8 for one in played)
    judgments = _judgments(recipe)
    assert len(judgments) == 3 * 64
    assert {one.score for one in judgments.values()} == {7.0, 4.0, 2.0, None}
    for one in judgments.values():
        assert (one.score is None) == (one.reason == "no verdict")
        assert one.judge in ("scripted@score", "scripted@score-reference")
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    judged = sum(one.score is not None for one in judgments.values())
    assert counts == {"sessions": 24, "turns": 192, "judged": judged}
    assert 0 < judged < 192

    table = capsys.readouterr().out
    for model in ("base", "sft", "capo"):
        own = sum(one.score is not None for one in judgments.values() if one.model == model)
        assert f"{own}/64 judged" in table
    evaluation.run(recipe)  # finished: nothing is done again, the table is printed
    assert capsys.readouterr().out == table


def test_pairs_are_compared_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = ["[[A]] and rated [[7]]", "[[B]] and rated [[4]]", "[[C]] and rated [[2]]"]
    recipe = _recipe(tmp_path, judge=[*verdicts])
    judge = recipe.eval.judge
    assert judge is not None
    judge = judge.model_copy(update={"pairs": (("capo", "sft"), ("capo", "base"))})
    recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"judge": judge})})
    evaluation.run(recipe)
    folder = recipe.folder("eval")
    found = list(read(folder / "comparisons.jsonl", Comparison))
    assert len(found) == 2 * 64
    assert json.loads((folder / "manifest.json").read_text())["counts"]["comparisons"] == 128
    assert {one.outcome for one in found} == {"a", "b", "tie"}
    table = capsys.readouterr().out
    for rival in ("sft", "base"):
        assert f"capo against {rival}" in table
    assert table.count("64/64") >= 2

    whole = (folder / "comparisons.jsonl").read_bytes()
    (folder / "manifest.json").unlink()
    (folder / "comparisons.jsonl").write_bytes(whole[: len(whole) // 2])
    evaluation.run(recipe)
    assert (folder / "comparisons.jsonl").read_bytes() == whole


def test_resume_after_a_kill_gives_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole, killed = _recipe(tmp_path / "whole"), _recipe(tmp_path / "killed")
    evaluation.run(whole)
    evaluation.run(killed)
    folder = killed.folder("eval")
    (folder / "manifest.json").unlink()
    for name, kept in (("answers.jsonl", 24), ("judgments.jsonl", 50)):
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join(lines[:kept]) + b"".join(lines[kept : kept + 1])[:40])
    evaluation.run(killed)
    for name in ("answers.jsonl", "judgments.jsonl"):
        assert (folder / name).read_bytes() == (whole.folder("eval") / name).read_bytes()

    (folder / "manifest.json").unlink()
    (folder / "judgments.jsonl").unlink()
    answers = (folder / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "answers.jsonl").write_bytes(b"".join(answers[:10]) + answers[10][:99])
    evaluation.run(killed)
    assert (folder / "answers.jsonl").read_bytes() == b"".join(answers)
    assert _judgments(killed) == _judgments(whole)


def test_a_budget_stops_the_stage_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    capped = recipe.model_copy(update={"budget": Budget(calls=200)})  # 192 answers, 8 verdicts
    with pytest.raises(UserError, match=r"the budget is spent: 200 of 200 calls \(budget.calls\)"):
        evaluation.run(capped)
    assert len(list(read(recipe.folder("eval") / "answers.jsonl", Played))) == 24
    evaluation.run(recipe)
    assert len(_judgments(recipe)) == 192
    manifest = json.loads((recipe.folder("eval") / "manifest.json").read_text())
    assert manifest["calls"]["scripted"]["calls"] >= 384  # and one more where a verdict had to be repaired


def test_every_history_is_played_judged_and_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [{"kinds": ["self-contained"]}, {"kinds": ["anaphora"], "leans_on": 1, "entity": ["tart"]}]
    rows = [
        {
            "question_id": id,
            "category": "math",
            "turns": ["A tart.", "What is it?"],
            "labels": labels,
            "reference": given,
        }
        for id, given in (("a", ["R."]), ("b", ["R.", "R."]), ("c", []))
    ]
    bench = tmp_path / "bench.jsonl"
    bench.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys: dict[str, object] = {"bench": str(bench), "sessions": None, "history": ("own", "reference", "hidden")}
    recipe = _recipe(tmp_path)
    assert recipe.eval.judge is not None
    keys["judge"] = recipe.eval.judge.model_copy(update={"pairs": (("sft", "base"),)})
    recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update=keys)})
    evaluation.run(recipe)
    folder = recipe.folder("eval")
    compared = [(one.model_a, one.model_b, one.dialogue) for one in read(folder / "comparisons.jsonl", Comparison)]
    modes = {"": "abc", " (reference history)": "ab", " (history hidden)": "abc"}
    assert sorted(compared) == sorted(
        (f"sft{mode}", f"base{mode}", id) for mode, ids in modes.items() for id in ids for _ in (1, 2)
    )
    played = {(one.model, one.dialogue.id): one for one in read(folder / "answers.jsonl", Played)}
    names = [f"{model}{mode}" for model in ("base", "sft", "capo") for mode in ("", " (history hidden)")]
    wanted = {(name, id) for name in names for id in "abc"}
    wanted |= {(f"{model} (reference history)", id) for model in ("base", "sft", "capo") for id in "ab"}
    assert played.keys() == wanted
    assert {one.fed for one in played.values() if one.history == "reference"} == {("R.",)}
    assert _judgments(recipe).keys() == {(*key, turn) for key in wanted for turn in (1, 2)}
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert (counts["sessions"], counts["turns"], counts["sessions without a reference history"]) == (24, 48, 1)
    captured = capsys.readouterr()
    assert "1 of 3 sessions have no reference history and are left out" in captured.err
    for text in ("sft (reference history)", "own, reference, hidden"):
        assert text in captured.out
    whole = (recipe.folder("report") / "table.md").read_text(encoding="utf-8")
    assert "Entity named where it had to be resolved" in whole
    assert "Entity named" not in captured.out  # only the main tables are printed, and it says so
    assert re.search(r"\d+ more tables: .*table\.md, or parrot report", captured.err)

    lines = (folder / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "manifest.json").unlink()
    (folder / "answers.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:40])
    evaluation.run(recipe)
    assert (folder / "answers.jsonl").read_bytes() == b"".join(lines)

    bench.write_text(json.dumps(rows[2]) + "\n")
    with pytest.raises(UserError, match="no session of the benchmark has a reference answer"):
        evaluation.run(recipe, rerun=True)


def test_failed_verdicts_stop_the_stage_and_are_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe(tmp_path, judge=[*VERDICTS[:2], None])
    with pytest.raises(UserError, match="verdicts failed, the first because: scripted failure"):
        evaluation.run(recipe)
    kept = _judgments(recipe)
    assert 0 < len(kept) < 192
    assert {one.score for one in kept.values()} == {7.0, 4.0}  # a failed call is no line, so it can become no 0
    assert not (recipe.folder("eval") / "manifest.json").exists()

    opened: list[str] = []
    real = evaluation.open_chat

    def mended(spec: object, recipe: Recipe, _: object) -> object:
        opened.append(spec.path)  # type: ignore[attr-defined]
        chat = real(spec, recipe)  # type: ignore[arg-type]
        chat._replies = tuple(reply or "Rating: [[9]]" for reply in chat._replies)  # type: ignore[attr-defined]
        return chat

    monkeypatch.setattr(evaluation, "open_chat", mended)
    evaluation.run(recipe)
    assert [Path(path).name for path in opened] == ["judge.jsonl"]  # no model is opened for nothing
    scores = _judgments(recipe)
    assert len(scores) == 192
    assert {key: scores[key] for key in kept} == kept
    assert {one.score for key, one in scores.items() if key not in kept} == {9.0}
    assert " 64/64 judged" in capsys.readouterr().out


def test_a_judge_that_never_answers_is_given_up(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, judge=[None])
    with pytest.raises(UserError, match="64 of 192 verdicts failed"):
        evaluation.run(recipe)


def test_failed_answers_stop_the_stage_before_judging(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    _script(tmp_path / "sft.jsonl", [*ANSWERS, None])
    with pytest.raises(UserError, match=r"of 24 benchmark sessions failed, the first because: scripted failure"):
        evaluation.run(recipe)
    played = list(read(recipe.folder("eval") / "answers.jsonl", Played))
    assert {one.model for one in played} >= {"base", "capo"}
    assert all(one.failed is None for one in played)
    assert not (recipe.folder("eval") / "judgments.jsonl").exists()


def test_probe_runs_where_the_recipe_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def key(one: Likelihood) -> object:
        return one.model, one.dialogue, one.turn, one.condition

    def probe(recipe: Recipe, folder: RunFolder) -> None:
        with folder.journal("likelihoods.jsonl", Likelihood, key) as journal:
            for number, model in enumerate(recipe.eval.models):
                for session in range(4):
                    for turn, rule in ((2, "pronoun"), (3, None)):
                        true = 15.0 + session
                        for condition, more in (("true", 0.0), ("swapped", 4.0 + number), ("withheld", 2.0)):
                            record = {"model": model, "dialogue": f"s{session}", "turn": turn, "rule": rule}
                            record |= {"condition": condition, "nll": true + more, "tokens": 10}
                            journal.append(Likelihood.model_validate(record))

    monkeypatch.setattr(
        "parrot_lite.evaluate.probe", types.SimpleNamespace(run=probe, check=lambda *_: None), raising=False
    )
    recipe = _recipe(tmp_path, probe=True)
    with pytest.raises(UserError, match=r"the probe scores models of kind local, and eval.models has none"):
        evaluation.run(recipe)
    monkeypatch.setattr(evaluation, "_check_local", lambda _: None)
    with pytest.raises(UserError, match="logs has no finished result"):
        evaluation.run(recipe)
    logs = recipe.folder("logs")
    logs.mkdir(parents=True)
    (logs / "manifest.json").write_text("{}")
    line = Dialogue(id="a", source="test").say("q").say("a").model_dump_json(exclude_none=True) + "\n"
    (logs / "heldout.jsonl").write_text(line)
    with pytest.raises(UserError, match="needs two"):
        evaluation.run(recipe)
    assert not recipe.folder("eval").exists()  # told before anything is played
    (logs / "heldout.jsonl").write_text(line + line.replace('"id":"a"', '"id":"b"'))
    evaluation.run(recipe)
    table = capsys.readouterr().out
    assert "0.600 [0.600, 0.600]" in table  # PMI-swap of capo: 6 nats of 10 tokens, in every session
    assert "+0.200 [+0.200, +0.200]" in table
