import json
from collections import Counter

import pytest

from parrot_lite.collect import negatives, selection
from parrot_lite.collect.selection import Agreement, detector_inputs, kappa, mark, observed
from parrot_lite.context import Asked, Verdict
from parrot_lite.errors import UserError
from parrot_lite.recipe import Dependence
from parrot_lite.types import Rejected, Reply, SessionTree
from tests.collect.speakers import FunctionChat, recipe_in, said, script
from tests.collect.test_negatives import BEES, INDEPENDENT, PERU, RIVER, data, result, settings

BOTH = '["rules", "judge"]'


def verdict(detector, dependent, why="x"):
    return Verdict(detector=detector, session="s", turn=2, dependent=dependent, why=why)


@pytest.mark.parametrize(
    ("rules", "judge", "likelihood", "all_", "any_", "majority"),
    [
        (True, True, True, "pronoun+judge+likelihood", "pronoun+judge+likelihood", "pronoun+judge+likelihood"),
        (True, False, True, None, "pronoun+likelihood", "pronoun+likelihood"),
        (False, True, None, None, "judge", None),  # no verdict is not a yes
        (False, False, False, None, None, None),
    ],
)
def test_how_verdicts_combine(rules, judge, likelihood, all_, any_, majority):
    said = {
        "rules": verdict("rules", rules, "pronoun" if rules else "no rule"),
        "judge": verdict("judge", judge),
        "likelihood": verdict("likelihood", likelihood),
    }
    for wanted, expected in (("all", all_), ("any", any_), ("majority", majority)):
        assert mark(said, Dependence(detectors=tuple(said), wanted=wanted)) == expected


def test_two_of_two_are_a_majority_and_one_is_not():
    said = {"rules": verdict("rules", True, "cue"), "judge": verdict("judge", False)}
    assert mark(said, Dependence(detectors=("rules", "judge"), wanted="majority")) is None


def test_kappa_by_hand():
    # 50 turns: both yes 20, only the first 5, only the second 10, neither 15. Observed 35/50 = 0.7; by chance
    # 25/50 * 30/50 + 25/50 * 20/50 = 0.5; kappa = 0.2 / 0.5.
    agreement = Agreement(["rules", "judge"])
    for first, second, times in ((True, True, 20), (True, False, 5), (False, True, 10), (False, False, 15)):
        for _ in range(times):
            agreement.add({"rules": verdict("rules", first), "judge": verdict("judge", second)})
    agreement.add({"rules": verdict("rules", True), "judge": verdict("judge", None)})
    assert agreement.facts() == {
        "verdicts": {"rules": {"yes": 26, "no": 25, "none": 0}, "judge": {"yes": 30, "no": 20, "none": 1}},
        "agreement": [
            {
                "detectors": ["rules", "judge"],
                "turns": 50,
                "both": 20,
                "first": 5,
                "second": 10,
                "neither": 15,
                "observed": 0.7,
                "kappa": 0.4,
            }
        ],
    }


def test_agreement_that_chance_would_reach_has_no_kappa():
    assert kappa(Counter({(True, True): 9})) is None
    assert kappa(Counter()) is observed(Counter()) is None
    assert observed(Counter({(True, True): 9})) == 1
    assert kappa(Counter({(True, False): 1, (False, True): 1})) == -1


def test_a_detector_named_twice_is_asked_once(tmp_path, monkeypatch):
    recipe = settings(
        tmp_path, [data(tmp_path, "data.jsonl", BEES)], 'negatives.dependence.detectors=["rules","rules"]'
    )
    monkeypatch.setattr(negatives, "open_chat", lambda *_: FunctionChat(lambda dialogue: said("Made up.")))
    negatives.run(recipe)
    assert recipe.folder("negatives").joinpath("manifest.json").exists()


def asked_of(dialogue):
    return dialogue.turns[-1].content.rpartition("Message: ")[2]


class TestStage:
    """The negatives stage with rules and a judge, which is the writer here."""

    def run(self, monkeypatch, recipe, judge):
        chat = FunctionChat(judge)
        monkeypatch.setattr(selection, "open_chat", lambda *_: chat)
        monkeypatch.setattr(negatives, "open_chat", lambda *_: FunctionChat(lambda dialogue: said("Made up.")))
        negatives.run(recipe)
        return chat

    def recipe(self, folder, *overrides, sessions=(BEES, PERU, RIVER)):
        files = [data(folder, "data.jsonl", *sessions)]
        return settings(folder, files, f"negatives.dependence.detectors={BOTH}", *overrides)

    def test_what_both_call_dependent_is_used_and_all_is_recorded(self, tmp_path, monkeypatch):
        def judge(dialogue):
            return said("maybe" if dialogue.id.startswith("river/") else "No")

        recipe = self.recipe(tmp_path)
        chat = self.run(monkeypatch, recipe, judge)
        assert [asked_of(one) for one in chat.shown].count(INDEPENDENT) == 1  # every turn is put to every detector
        trees = result(recipe, "trees.jsonl", SessionTree)
        assert {(tree.id, branch.turn, branch.rule) for tree in trees for branch in tree.branches} == {
            ("bees", 2, "pronoun+judge"),
            ("bees", 3, "pronoun+judge"),
        }
        assert {(one.id, one.reason) for one in result(recipe, "rejected.jsonl", Rejected)} == {
            ("peru", "no dependent turn"),  # the judge alone
            ("river", "no dependent turn"),  # the rules alone: the judge could not be read
        }
        kept = {(one.session, one.turn): one for one in result(recipe, "dependence.jsonl", Verdict)}
        assert set(kept) == {("bees", 2), ("bees", 3), ("peru", 2), ("river", 2)}
        assert kept["river", 2].dependent is None
        manifest = json.loads((recipe.folder("negatives") / "manifest.json").read_text())
        assert manifest["dependence"]["verdicts"] == {
            "rules": {"yes": 3, "no": 1, "none": 0},
            "judge": {"yes": 3, "no": 0, "none": 1},
        }
        (pair,) = manifest["dependence"]["agreement"]
        assert (pair["turns"], pair["both"], pair["second"], pair["observed"], pair["kappa"]) == (3, 2, 1, 0.6667, 0.0)
        assert "prompts/dependence.txt" in manifest["inputs"]

    def test_any_takes_what_one_of_them_finds(self, tmp_path, monkeypatch):
        recipe = self.recipe(tmp_path, "negatives.dependence.wanted=any")
        self.run(monkeypatch, recipe, lambda dialogue: said("No" if dialogue.id.startswith("peru/") else "Yes"))
        trees = result(recipe, "trees.jsonl", SessionTree)
        assert {(tree.id, branch.rule) for tree in trees for branch in tree.branches} == {
            ("bees", "pronoun"),
            ("peru", "judge"),
            ("river", "pronoun"),
        }

    def test_a_failed_call_stops_the_stage_and_only_it_is_asked_again(self, tmp_path, monkeypatch):
        def failing(dialogue):
            return Reply.failure("timeout") if dialogue.id.startswith("peru/") else said("No")

        recipe = self.recipe(tmp_path)
        with pytest.raises(UserError, match=r"1 of 3 sessions have failed calls \(first reason: no reply: timeout\)"):
            self.run(monkeypatch, recipe, failing)
        assert not (recipe.folder("negatives") / "trees.jsonl").read_text()
        chat = self.run(monkeypatch, recipe, lambda dialogue: said("No"))
        assert [one.id for one in chat.shown] == ["peru/2/dependence"]
        assert {tree.id for tree in result(recipe, "trees.jsonl", SessionTree)} == {"bees", "river"}

    def test_a_killed_run_goes_on_with_the_verdicts_it_had(self, tmp_path, monkeypatch):
        def dying(dialogue):
            if dialogue.id.startswith("river/"):
                raise KeyboardInterrupt
            return said("No")

        recipe = self.recipe(tmp_path, "negatives.chunk=1")
        with pytest.raises(KeyboardInterrupt):
            self.run(monkeypatch, recipe, dying)
        chat = self.run(monkeypatch, recipe, lambda dialogue: said("No"))
        assert [one.id for one in chat.shown] == ["river/2/dependence"]
        whole = self.recipe(tmp_path, "negatives.chunk=1", f"run.folder={json.dumps(str(tmp_path / 'whole'))}")
        self.run(monkeypatch, whole, lambda dialogue: said("No"))
        for name in ("trees.jsonl", "dependence.jsonl"):
            assert (whole.folder("negatives") / name).read_bytes() == (recipe.folder("negatives") / name).read_bytes()

    def test_the_cap_on_sessions_spares_the_calls_for_the_rest(self, tmp_path, monkeypatch):
        recipe = self.recipe(tmp_path, "negatives.sessions=1", "negatives.chunk=1")
        chat = self.run(monkeypatch, recipe, lambda dialogue: said("No"))
        assert {one.id for one in chat.shown} == {"bees/2/dependence", "bees/3/dependence"}


def test_rules_alone_leave_no_file_of_verdicts_and_open_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "open_chat", lambda *_: pytest.fail("a speaker was opened for the rules"))
    monkeypatch.setattr(negatives, "open_chat", lambda *_: FunctionChat(lambda dialogue: said("Made up.")))
    recipe = settings(tmp_path, [data(tmp_path, "data.jsonl", BEES, RIVER)])
    negatives.run(recipe)
    assert not (recipe.folder("negatives") / "dependence.jsonl").exists()
    manifest = json.loads((recipe.folder("negatives") / "manifest.json").read_text())
    assert manifest["dependence"] == {"verdicts": {"rules": {"yes": 3, "no": 0, "none": 0}}, "agreement": []}


def test_what_a_stage_fingerprints_is_what_its_detectors_read(tmp_path):
    judge = script(tmp_path / "judge.jsonl", ["yes"])
    assert detector_inputs(recipe_in(tmp_path)) == {}
    asked = recipe_in(tmp_path, f"negatives.dependence.detectors={BOTH}", f"negatives.dependence.judge={judge}")
    assert set(detector_inputs(asked)) == {str(tmp_path / "judge.jsonl"), "prompts/dependence.txt"}
    assert "model" not in asked.resolved("negatives")
    scoring = recipe_in(tmp_path, 'negatives.dependence.detectors=["likelihood"]')
    assert "model" in scoring.resolved("negatives")


def test_without_a_judge_of_its_own_the_writer_is_asked(tmp_path):
    writer = script(tmp_path / "writer.jsonl", ["yes"])
    recipe = recipe_in(tmp_path, f"negatives.dependence.detectors={BOTH}", f"negatives.writer={writer}")
    assert str(tmp_path / "writer.jsonl") in detector_inputs(recipe)
    with selection.detector("judge", recipe, []) as detect:
        (one,) = detect([Asked("s", 2, "Why?", (), None)])
    assert one.dependent is False
