"""The table: what is missing stays missing, coverage is printed, screen and file agree."""

from __future__ import annotations

import doctest
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest
from markupsafe import escape

from parrot_lite.errors import UserError
from parrot_lite.evaluate import estimates, report
from parrot_lite.evaluate.context_use import Cell, choice_tables, chosen_likelier, per_token, pmi
from parrot_lite.evaluate.estimates import Numbers
from parrot_lite.evaluate.records import Choice, Likelihood, Phenomenon, Played
from parrot_lite.evaluate.report import build, run, size
from parrot_lite.recipe import Recipe, dump
from parrot_lite.recipe_file import load
from parrot_lite.table import Table
from parrot_lite.types import Condition, Dialogue, How, Judgment, Kind, Record

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load(DEMO, [f"run.folder={tmp_path / 'runs'}", "eval.resamples=200"])


def _finish(recipe: Recipe, judgments: Iterable[Judgment], likelihoods: Iterable[Likelihood] = ()) -> None:
    folder = recipe.folder("eval")
    folder.mkdir(parents=True)
    played = [
        Played(model=model, category="math", dialogue=Dialogue(id=id, source="bench").say("q").say("a"), tokens=3)
        for model in recipe.eval.models
        for id in ("1", "2")
    ]
    files: dict[str, Iterable[Record]] = {
        "answers.jsonl": played,
        "judgments.jsonl": judgments,
        "likelihoods.jsonl": likelihoods,
    }
    for name, records in files.items():
        (folder / name).write_text("".join(one.model_dump_json(exclude_none=True) + "\n" for one in records))
    (folder / "recipe.toml").write_text(dump({**recipe.resolved("eval"), "inputs": {"bench": "abc"}}))
    (folder / "manifest.json").write_text("{}")


def _judgment(model: str, dialogue: str, turn: int, score: float | None) -> Judgment:
    reason = None if score else "no verdict"
    return Judgment(
        model=model, dialogue=dialogue, category="math", turn=turn, judge="j-135M@single", score=score, reason=reason
    )


def _likelihoods(model: str, session: str, turn: int, rule: str | None, **nats: float) -> list[Likelihood]:
    return [
        Likelihood(model=model, dialogue=session, turn=turn, rule=rule, condition=condition, nll=nll, tokens=10)
        for condition in get_args(Condition)
        if (nll := nats.get(condition)) is not None
    ]


def _tables(recipe: Recipe) -> dict[str, Table]:
    return {table.title: table for table in build(recipe).tables}


def test_doctests() -> None:
    assert doctest.testmod(report).failed == doctest.testmod(estimates).failed == 0


def test_scores_coverage_and_paired_difference(recipe: Recipe) -> None:
    base = [_judgment("base", "1", 1, 4), _judgment("base", "1", 2, 2), _judgment("base", "2", 1, 5)]
    sft = [_judgment("sft", "1", 1, 5), _judgment("sft", "1", 2, None), _judgment("sft", "2", 1, 6)]
    _finish(recipe, [*base, _judgment("base", "2", 2, 3), *sft, _judgment("sft", "2", 2, 4)])
    tables = _tables(recipe)
    rows = {row[0]: row for row in tables["Judge score, 1 to 10"].rows}
    assert list(rows) == ["base", "sft", "capo"]
    assert rows["base"][1:] == ("3.50 [-2.85, 9.85]", "4/4 judged", "3")  # 3 and 4 in mean: 3.5 -+ 12.706 x 0.5
    assert rows["sft"][1].startswith("5.00 [")
    assert rows["sft"][2] == "3/4 judged"
    assert rows["capo"][1:] == ("-", "0/0 judged", "3")
    difference = tables["Judge score: differences"]
    assert difference.rows == (
        ("sft minus base", "+1.00 [+1.00, +1.00]", "-", "-", "-", "-", "3/4"),  # no spread: nothing to be told
    )
    assert not any("cannot show anything" in note for note in difference.notes)
    by_turn = tables["Judge score by turn"]
    assert by_turn.head == ("Turn", "base", "sft", "capo")
    assert by_turn.rows == (
        ("1", "4.50 [-1.85, 10.85] 2/2", "5.50 [-0.85, 11.85] 2/2", "- 0/0"),
        ("2", "2.50 [-3.85, 8.85] 2/2", "4.00 [-, -] 1/2", "- 0/0"),
        ("all", "3.50 [-2.85, 9.85] 4/4", f"{rows['sft'][1]} 3/4", "- 0/0"),
    )
    (note,) = (note for note in by_turn.notes if "are missing" in note)
    assert "base 4/4, sft 3/4, capo 0/4): the models' means are over different turns" in note
    assert any("1 x no verdict" in note for note in tables["Judge score, 1 to 10"].notes)


def test_every_model_is_compared_with_the_first_and_the_one_before(recipe: Recipe) -> None:
    given = {"base": (2, 4), "sft": (3, 7), "capo": (4, 9)}
    judgments = [
        _judgment(model, id, 1, score) for model in given for id, score in zip("12", given[model], strict=True)
    ]
    records = [
        record
        for number, model in enumerate(given)
        for session, true in (("a", 15), ("b", 25 - 2 * number))
        for record in _likelihoods(model, session, 2, "pronoun", true=true, swapped=30, withheld=30)
    ]
    _finish(recipe, judgments, records)
    tables = _tables(recipe)
    pairs = ["sft minus base", "capo minus base", "capo minus sft"]
    # Two sessions: t with one degree of freedom, and no way to exchange models that gives a p below 0.5.
    assert tables["Judge score: differences"].rows == (
        ("sft minus base", "+2.00 [-10.71, +14.71]", "0.500", "1.000", "-", "395", "2/2"),
        ("capo minus base", "+3.50 [-15.56, +22.56]", "0.500", "1.000", "-", "885", "2/2"),
        ("capo minus sft", "+1.50 [-4.85, +7.85]", "0.500", "1.000", "-", "101", "2/2"),
    )
    assert any("2 sessions cannot show anything" in note for note in tables["Judge score: differences"].notes)
    context = tables["Context use of the session's answers, context-dependent turns: differences"].rows
    assert [row[0] for row in context] == [f"PMI-swap: {pair}" for pair in pairs]
    assert context[1] == ("PMI-swap: capo minus base", "+0.200 [-2.341, +2.741]", "1.000", "1.000", "-", "700", "2")
    notes = " ".join(tables["Context use of the session's answers, context-dependent turns: differences"].notes)
    assert "Holm p: corrected for the 3 tested" in notes


def test_categories_are_told_apart_where_there_are_several(recipe: Recipe) -> None:
    judgments = [_judgment("base", "1", 1, 4), _judgment("base", "1", 2, 8)]
    other = _judgment("base", "2", 1, 5).model_copy(update={"category": "coding"})
    _finish(recipe, [*judgments, other])
    table = _tables(recipe)["Judge score by category"]
    assert table.head == ("Category", "base", "sft", "capo")
    assert table.rows == (
        ("coding", "5.00 [-, -] 1/1", "- 0/0", "- 0/0"),
        ("math", "6.00 [-, -] 2/2", "- 0/0", "- 0/0"),
    )


def test_one_category_needs_no_table_of_its_own(recipe: Recipe) -> None:
    _finish(recipe, [_judgment("base", "1", 1, 4)])
    assert "Judge score by category" not in _tables(recipe)


def test_turns_missing_for_all_models_alike_are_told(recipe: Recipe) -> None:
    _finish(
        recipe, [_judgment(model, "1", turn, {1: 5.0}.get(turn)) for model in recipe.eval.models for turn in (1, 2)]
    )
    note = _tables(recipe)["Judge score by turn"].notes[-1]
    assert "base 1/2, sft 1/2, capo 1/2): every mean leaves them out" in note
    assert "no answer" not in note


def test_unanswered_turns_are_told(recipe: Recipe) -> None:
    missing = _judgment("capo", "1", 2, None).model_copy(update={"reason": "no answer: context full"})
    _finish(recipe, [*(_judgment(model, "1", 1, 5) for model in recipe.eval.models), missing])
    note = _tables(recipe)["Judge score by turn"].notes[-1]
    assert "1 had no answer: hardly at random" in note


def test_many_models_with_long_names_keep_the_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"a-model-with-quite-a-long-name-{number}-of-seven" for number in range(7)]
    models = [f'eval.models.{name}={{kind="local"}}' for name in names]
    recipe = load(DEMO, [f"run.folder={tmp_path / 'runs'}", "eval.resamples=200", *models])
    _finish(recipe, [_judgment(name, id, t, 10) for name in recipe.eval.models for id in "12" for t in range(1, 9)])
    run(recipe)
    screen = capsys.readouterr().out
    assert max(map(len, screen.splitlines())) <= 100
    assert screen.count("10.00 [10.00, 10.00] 16/16") == len(recipe.eval.models)
    assert "Judge score by turn, part 4 of 4" in screen
    assert "\u2026" not in screen


def test_what_only_the_report_uses_needs_no_rerun(recipe: Recipe, tmp_path: Path) -> None:
    _finish(recipe, [_judgment("base", "1", 1, 5)])
    other = load(
        DEMO, [f"run.folder={tmp_path / 'runs'}", "eval.resamples=300", "eval.effect=1", "eval.probe.effect=1"]
    )
    assert "(all ways up to 12 sessions, 300 random ones beyond)" in dict(build(other).facts)["p values"]


def test_per_token_measures_by_hand() -> None:
    cells: dict[tuple[str, int], dict[Condition, Cell]] = {
        ("a", 1): {"true": (10.0, 10), "swapped": (16.0, 10)},
        ("a", 2): {"true": (50.0, 30), "swapped": (52.0, 30), "withheld": (53.0, 30)},
        ("b", 1): {"true": (4.0, 4)},
    }
    assert per_token(cells, "true") == {"a": {0: 1.5}, "b": {0: 1.0}}
    assert pmi(cells, "swapped") == {"a": {0: pytest.approx(8 / 40)}}
    assert pmi(cells, "withheld") == {"a": {0: pytest.approx(3 / 30)}}  # turn 1 has no such condition: left out of both


def test_context_use_by_hand(recipe: Recipe) -> None:
    records = [
        *_likelihoods("base", "a", 1, None, true=30),
        *_likelihoods("base", "a", 2, "pronoun", true=15, swapped=20, withheld=18),
        *_likelihoods("base", "b", 2, "pronoun", true=25, swapped=28, withheld=26),
        *_likelihoods("base", "b", 3, None, true=10, swapped=11, shortened=14, scrambled=12, withheld=9),
        *_likelihoods("sft", "a", 1, None, true=31),
        *_likelihoods("sft", "a", 2, "pronoun", true=14, swapped=21, withheld=18),
        *_likelihoods("sft", "b", 3, None, true=12, swapped=15, shortened=14, scrambled=12, withheld=9),
    ]
    _finish(recipe, [], records)
    tables = _tables(recipe)
    levels = {row[0]: row[1:] for row in tables["Context use of the session's answers"].rows}
    assert list(levels) == [
        f"PMI-{n}: {m}" for n in ("swap", "last", "scramble", "none") for m in ("base", "sft", "capo")
    ]
    # base: at dependent turns a 0.5 and b 0.3; at the other b 0.1, which is 0.2 less than its own 0.3.
    assert levels["PMI-swap: base"] == ("0.400 [-0.871, 1.671]", "0.100 [-, -]", "+0.200 [-, -]", "2 + 1")
    assert levels["PMI-swap: sft"] == ("0.700 [-, -]", "0.300 [-, -]", "-", "1 + 1")  # no session has both kinds
    assert levels["PMI-swap: capo"] == ("-", "-", "-", "-")
    assert levels["PMI-last: base"] == ("-", "0.400 [-, -]", "-", "0 + 1")
    assert levels["PMI-scramble: base"][1] == "0.200 [-, -]"
    assert levels["PMI-none: base"][:2] == ("0.200 [-1.071, 1.471]", "-0.100 [-, -]")
    assert tables["Context use of the session's answers, context-dependent turns: differences"].rows == (
        ("PMI-swap: sft minus base", "+0.200 [-, -]", "-", "-", "-", "-", "1"),
    )
    others = tables["Context use of the session's answers: other differences"].rows
    assert [(row[0], row[1], row[-1]) for row in others] == [
        ("PMI-none: sft minus base", "+0.100 [-, -]", "1"),
        ("PMI-swap, self-contained: sft minus base", "+0.200 [-, -]", "1"),
        ("PMI-last, self-contained: sft minus base", "-0.200 [-, -]", "1"),
    ]
    by_turn = tables["PMI-swap of the session's answers by turn"]
    assert by_turn.head == ("Turn", "base", "sft", "capo")
    assert by_turn.rows == (
        ("2", "0.400 [-0.871, 1.671] 2", "0.700 [-, -] 1", "- 0"),
        ("3", "0.100 [-, -] 1", "0.300 [-, -] 1", "- 0"),
    )
    assert [row[0] for row in tables["PMI-last of the session's answers by turn"].rows] == ["3"]
    costs = tables["NLL under the true history"]
    assert costs.head == ("Model", "Session's answers [95%]", "First answers [95%]")
    assert costs.rows[0] == ("base", "1.625 [0.037, 3.213]", "3.000 [-, -]")  # a: 15/10, b: 35/20
    # Over the turns of both: a falls by 0.1, b rises by 0.2.
    differences = tables["NLL under the true history: differences"]
    assert [(row[0], row[1], row[-1]) for row in differences.rows] == [
        ("Session's answers: sft minus base", "+0.050 [-1.856, +1.956]", "2"),
        ("First answers: sft minus base", "+0.100 [-, -]", "1"),
    ]
    assert differences.notes[:2] == (
        "1 of 2 are above the guard of +0.05: First answers: sft minus base.",
        "Below the guard of +0.05, but not their intervals: Session's answers: sft minus base.",
    )


def test_the_true_history_alone_has_costs_and_no_context_use(recipe: Recipe) -> None:
    _finish(recipe, [], _likelihoods("base", "s1", 2, None, true=10) + _likelihoods("base", "s2", 2, None, true=12))
    titles = [title for title in _tables(recipe) if "Context use" in title or "NLL" in title]
    assert titles == ["NLL under the true history"]


def test_all_below_the_guard_is_said(recipe: Recipe) -> None:
    records = [
        record
        for number, model in enumerate(("base", "sft"))
        for session in range(9)
        for record in _likelihoods(model, f"s{session}", 2, None, true=10 - number * (1 + session / 10), swapped=14)
    ]
    _finish(recipe, [], records)
    notes = _tables(recipe)["NLL under the true history: differences"].notes
    assert notes[0] == "All are below the guard of +0.05, and so are their intervals."


def test_kinds_of_turns_apart_are_of_sessions_that_have_both(recipe: Recipe) -> None:
    records = [
        record
        for number, model in enumerate(("base", "sft"))
        for session in "ab"
        for turn, rule, swapped in ((2, "pronoun", 14 + 3 * number), (3, None, 12 + number))
        for record in _likelihoods(model, session, turn, rule, true=10, swapped=swapped)
    ]
    _finish(recipe, [], [*records, *_likelihoods("sft", "c", 2, "pronoun", true=10, swapped=50)])
    tables = _tables(recipe)
    levels = {row[0]: row[1:] for row in tables["Context use of the session's answers"].rows}
    assert [(levels[f"PMI-swap: {model}"][2][:6], levels[f"PMI-swap: {model}"][3]) for model in ("base", "sft")] == [
        ("+0.200", "2 + 2"),
        ("+0.400", "3 + 2"),
    ]
    rows = {row[0]: row for row in tables["Context use of the session's answers: other differences"].rows}
    assert rows["PMI-swap, apart: sft minus base"][1].startswith("+0.200 [")
    assert rows["PMI-swap, apart: sft minus base"][-1] == "2 + 2"


def test_answers_of_several_writers_and_labels(recipe: Recipe) -> None:
    (own, other) = _likelihoods("base", "a", 2, None, true=10, swapped=14)
    kinds: dict[int, tuple[Phenomenon, ...]] = {2: ("anaphora", "ellipsis"), 3: ("self-contained", "shift")}
    labelled = [
        one.model_copy(update={"answer": "played", "phenomena": kinds[turn]})
        for turn, swapped in ((2, 16), (3, 12))
        for one in _likelihoods("base", "1", turn, "pronoun", true=10, swapped=swapped)
    ]
    written = [one.model_copy(update={"answer": "same-writer", "nll": one.nll + 1}) for one in (own, other)]
    _finish(recipe, [], [own, other, *written, *labelled])
    (recipe.folder("eval") / "manifest.json").write_text(
        '{"counts": {"probe: sessions": 2, "probe, left out: same-writer, empty reply": 3}}'
    )
    tables = _tables(recipe)
    assert tables["Context use of the same writer's answers"].rows[0][1:3] == ("-", "0.400 [-, -]")
    # By label, whatever the rule says.
    assert tables["Context use of the played answers"].rows[0][1:3] == ("0.600 [-, -]", "0.200 [-, -]")
    by_phenomenon = tables["PMI-swap of the played answers by phenomenon"]
    assert [row[:2] for row in by_phenomenon.rows] == [
        ("anaphora", "0.600 [-, -] 1"),
        ("ellipsis", "0.600 [-, -] 1"),
        ("shift", "0.200 [-, -] 1"),
        ("self-contained", "0.200 [-, -] 1"),
    ]
    assert tables["Context use of the session's answers"].notes[-1] == "Left out: 3 x same-writer, empty reply."
    costs = tables["NLL under the true history"]
    assert costs.head[1:] == ("Session's answers [95%]", "Same writer's answers [95%]")
    assert costs.rows[0][1:] == ("1.000 [-, -]", "1.100 [-, -]")


def test_forced_choice_by_hand() -> None:
    def choice(model: str, session: str, turn: int, kind: Kind, how: How, negative: float) -> Choice:
        return Choice(model=model, dialogue=session, turn=turn, kind=kind, how=how, chosen=-1.0, negative=negative)

    choices = [
        choice("base", "a", 2, "neglect", "structural", -2.0),
        choice("base", "a", 2, "neglect", "prompted", -0.5),
        choice("base", "a", 3, "neglect", "structural", -2.0),
        choice("base", "b", 2, "neglect", "structural", -1.0),  # a tie is no choice for it
        choice("base", "b", 2, "random", "structural", -3.0),
    ]
    assert chosen_likelier(choices[:4]) == {"a": {2: 0.5, 3: 1.0}, "b": {2: 0.0}}
    (table,) = choice_tables(["base", "server"], choices, Numbers(100, 0))
    assert table.head == ("Negative", "base")
    # Over the turns 0.5, 1 and 0: a share ends at 0 and 1, however wide the interval of two sessions.
    assert table.rows == (("neglect", "50% [0%, 100%] 3"), ("random", "100% [-, -] 1"))
    assert choice_tables(["base"], [], Numbers(100, 0)) == []


def test_screen_and_file_say_the_same(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    judgments = [_judgment(model, id, turn, 5) for model in recipe.eval.models for id in "12" for turn in range(1, 9)]
    likelihoods = _likelihoods("base", "a", 2, "pronoun", true=15, swapped=20, withheld=18)
    _finish(recipe, judgments, likelihoods)
    run(recipe)
    screen, messages = capsys.readouterr()
    assert f"{recipe.folder('report') / 'report.html'}" in messages.replace("\n", "")
    markdown = (recipe.folder("report") / "table.md").read_text(encoding="utf-8")
    html = (recipe.folder("report") / "report.html").read_text(encoding="utf-8")
    assert max(map(len, screen.splitlines())) <= 100
    assert "are missing" not in screen
    for table in build(recipe).tables:
        for row in table.rows:
            for cell in row:
                assert all(line in screen for line in cell.split("\n")), cell
                assert cell.strip().replace("\n", "<br>") in markdown
                assert escape(cell.strip()) in html
    for text in ("5.00 [5.00, 5.00]", "16/16 judged", "j-135M@single", "a 135M judge proves the path, not the result"):
        assert text in screen
        assert text in markdown
        assert text in html


def test_markdown_cells_are_escaped() -> None:
    assert Table("t", ("a", "b"), (("x|y", "1\n2"),), ("why",)).markdown() == (
        "## t\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1<br>2 |\n\n- why\n"
    )


def test_an_evaluation_of_another_recipe_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished result"):
        build(recipe)
    _finish(recipe, [])
    other = load(DEMO, [f"run.folder={tmp_path / 'runs'}", "eval.resamples=200", "eval.max_tokens=9"])
    with pytest.raises(UserError, match="another recipe"):
        build(other)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("llama-2-13b-chat", "13b"),
        ("Qwen2.5-0.5B-Instruct", "0.5B"),
        ("Mixtral-8x7B", "7B"),
        ("phi-2.Q4_K_M", None),
        ("30b-a3b", "30b"),
    ],
)
def test_size(name: str, told: str | None) -> None:
    assert size(name) == told
