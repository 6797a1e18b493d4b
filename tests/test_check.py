import json
import random
from pathlib import Path

import pytest

from parrot_lite import check
from parrot_lite.check import BASELINES, Judged, LabelledQuery, figures, load, sample, session_of
from parrot_lite.errors import UserError
from parrot_lite.recipe_file import load as load_recipe
from tests.collect.speakers import script
from tests.test_cli import DEMO, parrot

GOLD = Path(__file__).parents[2] / "shared" / "data" / "context_gold"
needs_gold = pytest.mark.skipif(not GOLD.exists(), reason=f"needs the labelled queries in {GOLD}")


def row(id_="a_2", turn=2, query="Why is it?", rewrite="Why is Ulm?", label=1, strict=1, history=("Ulm?", "A town.")):
    roles = ("user", "assistant")
    return {
        "id": id_,
        "source": "test",
        "turn": turn,
        "history": [{"role": roles[i % 2], "content": text} for i, text in enumerate(history)],
        "query": query,
        "rewrite": rewrite,
        "label": label,
        "label_strict": strict,
        "added_content_words": ["kept", "out"],
    }


def write(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def judged(query, rewrite, strict=1, id_="a_2", rewritten="Why is Ulm?"):
    return Judged(
        LabelledQuery.model_validate_json(json.dumps(row(id_, strict=strict, rewrite=rewritten))), query, rewrite
    )


class TestFigures:
    def test_by_hand(self):
        found = figures(
            "test",
            "x",
            [
                judged(True, False, id_="a_2"),  # right on both
                judged(True, True, id_="a_3"),  # a tie
                judged(False, False, id_="b_2"),  # a tie
                judged(False, True, id_="b_3"),  # the reverse
                judged(True, None, strict=0, id_="b_4"),
                judged(False, None, strict=0, id_="b_5"),
                judged(False, None, strict=0, id_="b_6"),
                judged(None, True, id_="b_7"),  # no verdict: counts nowhere
            ],
        )
        assert (found.rows, found.silent, found.pairs) == (8, 1, 4)
        assert (found.precision, found.recall) == (2 / 3, 2 / 4)
        assert found.specificity == 2 / 3
        assert found.f1 == pytest.approx(4 / 7)
        assert found.paired == (1 + 0.5 + 0.5 + 0) / 4
        assert found.strict == 1 / 4
        # Dialogue a has 0.75, b has 0.25, two values each: standard error 0.25, one degree of freedom.
        assert (found.low, found.high) == pytest.approx((0.5 - 12.7062 * 0.25, 0.5 + 12.7062 * 0.25), rel=1e-5)

    def test_one_dialogue_has_no_interval_and_no_rows_have_no_ratio(self):
        found = figures("test", "x", [judged(False, False)])
        assert (found.paired, found.low, found.high) == (0.5, None, None)
        assert (found.precision, found.specificity, found.f1) == (None, None, None)

    def test_a_rewrite_that_says_the_same_is_no_pair(self):
        assert judged(True, True, rewritten="Why is it?").paired is None
        assert judged(True, False, strict=0).paired is None

    def test_swapping_query_and_rewrite_mirrors_the_paired_accuracy(self):
        drawn = random.Random(1)
        both = [(drawn.random() < 0.6, drawn.random() < 0.3, f"{i // 3}_{i}") for i in range(60)]
        one = figures("test", "x", [judged(q, r, id_=name) for q, r, name in both])
        other = figures("test", "x", [judged(r, q, id_=name) for q, r, name in both])
        assert one.paired + other.paired == pytest.approx(1)
        assert one.low + other.high == pytest.approx(1, abs=1e-9)


class TestLoading:
    def test_what_is_left_out_is_counted(self, tmp_path):
        rows = [row("a_1", 1, history=()), row("a_2"), row("a_3", 3, strict=None), row("b_2", strict=0, label=0)]
        gold = load([write(tmp_path / "rows.jsonl", rows)], None)
        assert [one.id for one in gold.rows] == ["a_2", "b_2"]
        assert gold.left_out == {"first turn": 1, "no strict label": 1}

    def test_halves_split_whole_dialogues_and_lose_nothing(self, tmp_path):
        path = write(tmp_path / "rows.jsonl", [row(f"talk_{i}_{turn}", turn) for i in range(200) for turn in (2, 3)])
        dev, test = (load([path], half) for half in ("dev", "test"))
        names = [{one.dialogue for one in gold.rows} for gold in (dev, test)]
        assert len(names[0] | names[1]) == 200
        assert not names[0] & names[1]
        assert 80 < len(names[0]) < 120
        assert dev.left_out == {"other half": len(test.rows)}

    def test_a_sample_is_drawn_by_seed_and_keeps_its_order(self, tmp_path):
        rows = load([write(tmp_path / "rows.jsonl", [row(f"talk_{i}_2") for i in range(50)])], None).rows
        drawn = sample(rows, 10, 0)
        assert drawn == [one for one in rows if one in drawn] == sample(rows, 10, 0) != sample(rows, 10, 1)
        assert sample(rows, 99, 0) == rows

    def test_the_answer_comes_from_a_later_row(self, tmp_path):
        rows = [row("a_2"), row("a_3", 3, history=("Ulm?", "A town.", "Why is it?", "Trade.")), row("b_2")]
        gold = load([write(tmp_path / "rows.jsonl", rows)], None)
        first, second = (check._asked(one, one.query, gold.sessions) for one in gold.rows[:2])
        assert (first.answer, [turn.content for turn in first.history]) == ("Trade.", ["Ulm?", "A town."])
        assert second.answer is None  # nobody wrote down what came behind the last query

    def test_a_history_without_answers_makes_no_session(self, tmp_path):
        silent = row("a_3", 3)
        silent["history"] = [{"role": "user", "content": "Ulm?"}, {"role": "user", "content": "Why is it?"}]
        gold = load([write(tmp_path / "rows.jsonl", [silent])], None)
        assert session_of(gold.rows[0]) is None
        assert check._asked(gold.rows[0], "Why?", gold.sessions).history == ()

    @pytest.mark.parametrize(
        ("broken", "line"),
        [
            ({"turn": "two"}, r"rows.jsonl:2: not a labelled query: 'turn' should be a valid integer"),
            ({"label_strict": 2}, r"rows.jsonl:2: not a labelled query: 'label_strict' should be 0 or 1"),
            ({"id": "a_2"}, r"a second row 'a_2'. Name every row once"),
        ],
    )
    def test_a_broken_row_is_one_clear_line(self, tmp_path, broken, line):
        path = write(tmp_path / "rows.jsonl", [row("a_2"), {**row("b_2"), **broken}])
        done = parrot("context-check", str(path), str(DEMO))
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        with pytest.raises(UserError, match=line):
            load([path], None)

    def test_nothing_to_check(self, tmp_path):
        path = write(tmp_path / "rows.jsonl", [row("a_1", 1)])
        with pytest.raises(UserError, match="nothing to check: 1 x first turn"):
            load([path], None)


def test_the_verb_prints_and_writes_the_same_figures(tmp_path):
    rows = [row("a_2"), row("a_3", 3, query="Describe Ulm.", rewrite="Describe Ulm.", label=0, strict=0), row("b_2")]
    out = tmp_path / "figures.json"
    done = parrot("context-check", str(write(tmp_path / "rows.jsonl", rows)), "--out", str(out), DEMO, "run.seed=3")
    assert done.returncode == 0, done.stderr
    told = json.loads(out.read_text())
    assert [one["detector"] for one in told["figures"]] == 2 * ["detector: rules", *BASELINES]
    (rules,) = [one for one in told["figures"] if (one["source"], one["detector"]) == ("all", "detector: rules")]
    assert (rules["rows"], rules["precision"], rules["recall"], rules["specificity"]) == (3, 1, 1, 1)
    assert (rules["pairs"], rules["paired"], rules["strict"]) == (2, 1, 1)
    line = next(line for line in done.stdout.splitlines() if line.startswith("detector: rules"))
    assert line.split()[2:] == ["3", "1.000", "1.000", "1.000", "1.000", "2", "1.000", "1.000-1.000", "1.000"]
    assert "half: both; left out: nothing" in done.stdout


def test_the_rules_need_no_recipe(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", [row("a_2"), row("a_3", 3, strict=0, label=0), row("b_2")])
    check.run([path], None, "rules", None, 2, tmp_path / "without.json")
    check.run([path], load_recipe(DEMO), "rules", None, 2, tmp_path / "with.json")
    assert (tmp_path / "without.json").read_text() == (tmp_path / "with.json").read_text()


def test_a_judge_that_gives_no_verdict_is_shown_as_coverage(tmp_path, capsys):
    judge = script(tmp_path / "judge.jsonl", ["perhaps"])
    recipe = load_recipe(DEMO, [f"negatives.dependence.judge={judge}"])
    path = write(tmp_path / "rows.jsonl", [row("a_2"), row("b_2")])
    check.run([path], recipe, "judge", None, None, tmp_path / "figures.json")
    told = json.loads((tmp_path / "figures.json").read_text())["figures"][0]
    assert (told["rows"], told["silent"], told["precision"], told["paired"]) == (2, 2, None, None)
    shown = capsys.readouterr()
    assert "0/2" in shown.out
    assert "judge gave no verdict on 4 of 4 texts: neither yes nor no" in shown.err


@needs_gold
class TestGold:
    """The figures that are known of the labelled files, later turns, strict labels."""

    @pytest.mark.parametrize(
        ("file", "baseline", "precision", "recall", "specificity"),
        [
            ("cast2019", "always dependent", 0.794, 1.0, 0.0),
            ("cast2019", "third-person pronouns", 0.973, 0.534, 0.943),
            ("cast2019", "with demonstratives", 0.974, 0.546, 0.943),
            ("gecor", "third-person pronouns", 0.774, 0.177, 0.933),
            ("gecor", "with demonstratives", 0.628, 0.237, 0.818),
        ],
    )
    def test_baselines(self, file, baseline, precision, recall, specificity):
        rows = load([GOLD / f"{file}.jsonl"], None).rows
        rule = BASELINES[baseline]
        found = figures(file, baseline, [Judged(one, rule(one.query), rule(one.rewrite)) for one in rows])
        assert found.precision == pytest.approx(precision, abs=0.0006)
        assert found.recall == pytest.approx(recall, abs=0.0006)
        assert found.specificity == pytest.approx(specificity, abs=0.0006)

    def test_the_rules_beat_every_baseline_in_every_family_on_the_half_they_were_not_designed_on(self, tmp_path):
        files = [GOLD / f"{name}.jsonl" for name in ("cast2019", "cast2020", "gecor")]
        out = tmp_path / "figures.json"
        check.run(files, load_recipe(DEMO, ["eval.resamples=1"]), "rules", "test", None, out)
        told = json.loads(out.read_text())["figures"]
        for source in ("cast_2019_eval", "cast_2020_eval", "gecor_camrest", "all"):
            rules, *baselines = [one for one in told if one["source"] == source]
            assert rules["detector"] == "detector: rules"
            assert all(rules["paired"] > one["paired"] for one in baselines), source
            assert all(rules["strict"] > one["strict"] for one in baselines), source
