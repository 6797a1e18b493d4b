"""Whether negatives are worse: a judge's verdicts by hand, likelihoods against rows of their own, and what is kept."""

import doctest
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from parrot_lite.chat.meter import Metered
from parrot_lite.collect import negatives, scorer, verdicts, worse
from parrot_lite.collect.prompts import load as load_prompt
from parrot_lite.collect.scorer import laid_down
from parrot_lite.collect.verdicts import Verdict, branch_id, render
from parrot_lite.errors import UserError
from parrot_lite.lm.model import load_for_inference, load_renderer
from parrot_lite.recipe import Local
from parrot_lite.recipe_file import load
from parrot_lite.types import Branch, Negative, Rejected, Reply, SessionTree
from tests import tiny
from tests.collect.speakers import DEMO, FunctionChat, said, script
from tests.collect.test_negatives import BEES, DEPENDENT, PERU, RIVER, data, result, settings, talk
from tests.lm.test_template import shared
from tests.lm.tokenizers import TEMPLATES
from tests.rows import score

JUDGE = ("negatives.check_worse=judge", "negatives.judge={kind='scripted', path='judge'}")
A, B = said("Because of the first. [[A]]"), said("Because of the second. [[B]]")


def test_doctests():
    assert doctest.testmod(verdicts).failed == 0


def answer(dialogue):
    return said(f"Answer to {dialogue.id}")


def write(monkeypatch, recipe, judge, writer=answer):
    """Run the stage with a judge; it is returned."""
    chats = FunctionChat(writer), FunctionChat(judge)
    monkeypatch.setattr(negatives, "inputs_of", lambda *_: {})
    monkeypatch.setattr(negatives, "open_chat", lambda *_: chats[0])
    monkeypatch.setattr(worse, "open_chat", lambda spec, recipe, meter: Metered(chats[1], meter))
    negatives.run(recipe)
    return chats[1]


def sees_through(dialogue):
    """A judge that prefers the session's own answer, wherever it stands."""
    a, b = (dialogue.turns[0].content.split(f"[Answer {x}]\n")[1].split(f"\n\n[End of answer {x}]")[0] for x in "AB")
    assert a.startswith("Answer to") != b.startswith("Answer to")
    return B if a.startswith("Answer to") else A


def counts(recipe):
    return json.loads((recipe.folder("negatives") / "manifest.json").read_text())["counts"]


def test_a_judge_is_asked_in_both_orders_and_worse_is_what_both_say(tmp_path, monkeypatch):
    kinds = 'negatives.kinds=["neglect", "misunderstanding", "same-writer", "degraded", "random"]'
    recipe = settings(tmp_path, [data(tmp_path, "a", BEES, PERU)], "negatives.turns_per_session=1", kinds, *JUDGE)

    def judge(dialogue):
        kind, order = dialogue.id.split("/")[2], dialogue.id.split("/")[-1]
        if kind == "neglect":
            return A if order == "chosen-first" else B
        if kind == "misunderstanding":
            return B if order == "chosen-first" else A
        if kind == "same-writer":
            return A
        if kind == "degraded":
            return A if order == "chosen-first" else said("Both are [[C]].")
        return A if order == "chosen-first" else Reply(text="[[B]] and", stop="length")

    asked = write(monkeypatch, recipe, judge)
    [tree] = result(recipe, "trees.jsonl", SessionTree)
    assert {branch.negative.kind: branch.negative.worse for branch in tree.branches} == {
        "neglect": True,
        "misunderstanding": False,
        "same-writer": False,
        "degraded": None,
        "random": None,
    }
    found = {one.id.split("/")[2]: one for one in result(recipe, "verdicts.jsonl", Verdict)}
    assert {kind: one.reason for kind, one in found.items()} == {
        "neglect": None,
        "misunderstanding": "the negative preferred",
        "same-writer": "the two orders disagree",
        "degraded": "no verdict",
        "random": "cut at max_tokens",
    }
    assert found["neglect"].judge == (A.text, B.text)
    assert {d.id for d in asked.shown if "neglect" in d.id} == {
        "bees/3/neglect/structural/chosen-first",
        "bees/3/neglect/structural/negative-first",
    }
    assert counts(recipe)["neglect, structural: kept, worse"] == 1
    assert counts(recipe)["misunderstanding, structural: kept, not worse"] == 1
    assert counts(recipe)["degraded, prompted: kept, no verdict"] == 1
    assert counts(recipe)["same-writer, structural: kept"] == 1  # counted, not left out
    calls = json.loads((recipe.folder("negatives") / "manifest.json").read_text())["calls"]["function"]
    assert (calls["calls"], calls["cut"]) == (10, 1)


def test_what_the_judge_reads_by_hand(tmp_path):
    (tmp_path / "which-fits.txt").write_text("<{history}> <{a}> <{b}>\n")
    prompt = load_prompt(str(tmp_path), "which-fits")
    context = talk("t", "Where is {a}?", "In [[A]], they say.", "And [[[B]]]?")
    assert render(prompt, context, "The [[B]].", "The {b}.") == (
        "<User: Where is {a}?\n\nAssistant: In [ [A]], they say.\n\nUser: And [ [ [B]]]?> <The [ [B]].> <The {b}.>"
    )
    shipped = load_prompt("package:parrot_lite/data/prompts", "which-fits")
    assert verdicts.parse(render(shipped, context, "The [[B]].", "[[[A]]]")[: shipped.text.index("Which of")]) is None


def test_the_judge_sees_the_true_history_and_the_chosen_answer_of_the_pair(tmp_path, monkeypatch):
    recipe = settings(
        tmp_path, [data(tmp_path, "a", RIVER)], 'negatives.kinds=["neglect"]', "negatives.chosen=writer", *JUDGE
    )

    def writer(dialogue):
        return said("Springs do it." if "/chosen/" in dialogue.id else "Answer to it.")

    asked = write(monkeypatch, recipe, sees_through, writer)
    text = asked.shown[0].turns[0].content
    assert f"User: Name a river.\n\nAssistant: The Tagus.\n\nUser: {DEPENDENT}\n" in text
    assert "[Answer A]\nSprings do it.\n\n[End of answer A]" in text
    assert "[Answer B]\nAnswer to it.\n\n[End of answer B]" in text
    [tree] = result(recipe, "trees.jsonl", SessionTree)
    assert tree.branches[0].negative.worse is True


def test_what_is_not_worse_is_left_out_where_the_recipe_says_so_but_for_controls(tmp_path, monkeypatch):
    files = [data(tmp_path, "a", BEES, RIVER)]
    kinds = 'negatives.kinds=["neglect", "same-writer"]'

    def judge(dialogue):  # no verdict on the bees' last answer, and the river's are as good as the chosen one
        if dialogue.id.startswith("river"):
            return A
        return said("Who knows?") if dialogue.id.startswith("bees/3/neglect") else sees_through(dialogue)

    recipe = settings(tmp_path, files, kinds, "negatives.drop_not_worse=true", *JUDGE)
    write(monkeypatch, recipe, judge)
    trees = result(recipe, "trees.jsonl", SessionTree)
    assert {branch_id(tree, b): b.negative.worse for tree in trees for b in tree.branches} == {
        "bees/2/neglect/structural": True,
        "bees/2/same-writer/structural": True,
        "bees/3/neglect/structural": None,
        "bees/3/same-writer/structural": True,
        "river/2/same-writer/structural": False,
    }
    [skipped] = result(recipe, "skipped.jsonl", Rejected)
    assert (skipped.id, skipped.reason) == ("river/2/neglect/structural", "not worse than the chosen answer")
    assert counts(recipe) == {
        "trees": 2,
        "turns": 3,
        "rule: pronoun": 3,
        "neglect, structural: wanted": 3,
        "neglect, structural: checked": 3,
        "neglect, structural: kept": 2,
        "neglect, structural: kept, worse": 1,
        "neglect, structural: kept, no verdict": 1,
        "neglect, structural: skipped, not worse than the chosen answer": 1,
        "same-writer, structural: wanted": 3,
        "same-writer, structural: checked": 3,
        "same-writer, structural: kept": 3,
        "same-writer, structural: kept, worse": 2,
        "same-writer, structural: kept, not worse": 1,
    }


def test_a_session_of_which_nothing_is_worse_is_rejected(tmp_path, monkeypatch, capsys):
    files = [data(tmp_path, "a", BEES, RIVER)]
    recipe = settings(tmp_path, files, 'negatives.kinds=["neglect"]', "negatives.drop_not_worse=true", *JUDGE)
    write(monkeypatch, recipe, lambda d: A if d.id.startswith("river") else sees_through(d))
    assert [tree.id for tree in result(recipe, "trees.jsonl", SessionTree)] == ["bees"]
    [rejected] = result(recipe, "rejected.jsonl", Rejected)
    assert (rejected.id, rejected.reason) == ("river", "no negative left")
    line = (
        "neglect, structural: 2 of 3 kept, 2 worse, 0 not worse, 0 no verdict; 3 words against the chosen answer's 2.5"
    )
    assert line in capsys.readouterr().err


def test_failed_calls_to_the_judge_are_made_again_and_those_alone(tmp_path, monkeypatch):
    files = [data(tmp_path, "a", BEES, RIVER)]
    recipe = settings(tmp_path, files, 'negatives.kinds=["neglect", "same-writer"]', *JUDGE)

    def down(dialogue):
        lost = dialogue.id == "river/2/neglect/structural/negative-first"
        return Reply.failure("timeout") if lost else sees_through(dialogue)

    with pytest.raises(UserError, match=r"1 of 2 sessions have failed calls \(first reason: timeout\)"):
        write(monkeypatch, recipe, down)
    assert not (recipe.folder("negatives") / "manifest.json").exists()

    def nobody(dialogue):
        raise AssertionError("all negatives were written")

    asked = write(monkeypatch, recipe, sees_through, nobody)
    orders = ("chosen-first", "negative-first")
    assert [dialogue.id for dialogue in asked.shown] == [f"river/2/neglect/structural/{order}" for order in orders]
    assert all(b.negative.worse for tree in result(recipe, "trees.jsonl", SessionTree) for b in tree.branches)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    with tiny.tiny_model(tmp_path_factory.mktemp("base") / "tiny") as folder:
        yield folder


def tree_of(session, turns=(2, 3)):
    """A session with two negatives at each turn, one of them against a chosen answer of its own."""
    texts = (("neglect", "Nobody could say.", None), ("same-writer", "It depends on the wind.", "As ever."))
    return SessionTree(
        dialogue=session,
        branches=tuple(
            Branch(
                turn=turn,
                rule="pronoun",
                negative=Negative(kind=kind, text=text, how="structural", writer="w", done="d", saw=session.turns[:1]),
                chosen=chosen,
            )
            for turn in turns
            for kind, text, chosen in texts
        ),
    )


def test_likelihoods_are_those_of_rows_of_their_own(base, tmp_path):
    recipe = tiny.recipe(tmp_path, base)
    tree = tree_of(tiny.first_turns(1, 3)[0])
    scored = scorer.by_likelihood(recipe, Local(kind="local"))
    model, renderer = load_for_inference(recipe.model, None), load_renderer(recipe.model)
    found = scored(tree)
    assert [one.id for one in found] == [branch_id(tree, branch) for branch in tree.branches]
    for one, branch in zip(found, tree.branches, strict=True):
        rows = [score(model, renderer, tree.context(branch), t) for t in (tree.chosen(branch), branch.negative.text)]
        alone = [-nll / tokens for nll, tokens in rows]
        assert one.log_probs == pytest.approx(alone, abs=1e-4)
        assert one.worse == (alone[1] < alone[0])
    assert {one.worse for one in found} == {True, False}  # neither always the one nor always the other


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_session_is_laid_down_once(template):
    session = talk("s", "Why is ice cold?", "Because heat leaves.", "And snow?", "It too.", "Why?", "Heat leaves.")
    tree, renderer = tree_of(session), shared(template)
    token_tree, places = laid_down(renderer, tree, 10_000)
    assert len(token_tree.answers) == 8  # two pairs at each of two turns, nothing shared here
    for branch in tree.branches:
        context = tree.context(branch)
        for place, text in zip(
            places[branch_id(tree, branch)], (tree.chosen(branch), branch.negative.text), strict=True
        ):
            row = token_tree.way(token_tree.answers[place]).tolist()
            prompt = renderer.prompt(context)
            assert row == [*prompt, *renderer.answer(context, prompt, text)]
    # The session's own answer to the second query is a part of the third one's history.
    prompt, said = len(renderer.prompt(session.before(3))), renderer.row(session.before(2), "It too.")[1]
    assert len(token_tree) == prompt + sum(map(len, token_tree.answers)) - len(said)


def test_what_is_too_long_for_the_scorer_has_no_verdict_and_hinders_nobody(base, tmp_path):
    short = tiny.first_turns(1, 3)[0]
    long = short.turns[3].model_copy(update={"content": "river " * tiny.CONTEXT + "end"})  # the answer of turn 2
    tree = tree_of(short.model_copy(update={"turns": (*short.turns[:3], long, *short.turns[4:])}))
    tree = tree.model_copy(update={"branches": tree.branches[1:]})  # without the pair whose chosen answer that is
    scored = scorer.by_likelihood(tiny.recipe(tmp_path, base), Local(kind="local"))
    first, *others = scored(tree)
    assert {(one.worse, one.reason) for one in others} == {(None, "longer than the scorer's context")}
    [alone] = scored(tree.model_copy(update={"branches": tree.branches[:1]}))
    assert first.worse is not None
    assert first.log_probs == pytest.approx(alone.log_probs)
    assert scored(tree.model_copy(update={"branches": tree.branches[1:]})) == others  # nothing is left to score


def test_the_stage_scores_by_the_bare_base_and_says_so(base, tmp_path):
    files = json.dumps([data(tmp_path, "a", *(one.model_copy(update={"id": f"s{n}"}) for n, one in enumerate(TALKS)))])
    writer = script(tmp_path / "writer.jsonl", ["Under the bridge it is, as ever.", "No one could say.", "Rather not."])
    recipe = tiny.recipe(
        tmp_path,
        base,
        f"negatives.data={files}",
        f"negatives.writer={writer}",
        "negatives.check_worse=likelihood",
        'negatives.kinds=["neglect", "same-writer"]',
    )
    assert recipe.negatives.scorer == Local(kind="local")
    negatives.run(recipe)
    trees = result(recipe, "trees.jsonl", SessionTree)
    found = {one.id: one for one in result(recipe, "verdicts.jsonl", Verdict)}
    branches = {branch_id(tree, branch): branch for tree in trees for branch in tree.branches}
    assert set(found) == set(branches)
    assert {branch.negative.worse for branch in branches.values()} == {True, False}
    for name, branch in branches.items():
        chosen, negative = found[name].log_probs
        assert branch.negative.worse == found[name].worse == (negative < chosen)
    manifest = tiny.manifest(recipe.folder("negatives"))
    assert "base" in manifest["inputs"]
    for name in ("neglect, structural", "same-writer, structural"):
        judged = [manifest["counts"].get(f"{name}: kept, {how}", 0) for how in ("worse", "not worse")]
        assert sum(judged) == manifest["counts"][f"{name}: kept"]


TALKS = [
    talk(f"s{n}", "Name a river.", "Seven.", DEPENDENT, text, "And that one?", "No, it is not.")
    for n, text in enumerate(["Yes.", "In winter the springs freeze.", "Nobody knows.", "It rains a lot there."])
]

SLOW = """
import sys, time
from parrot_lite.chat.scripted import ScriptedChat
from parrot_lite.collect import negatives
from parrot_lite.recipe_file import load
quick = ScriptedChat.reply
def reply(self, *given):
    time.sleep(0.02)
    return quick(self, *given)
ScriptedChat.reply = reply
negatives.run(load(sys.argv[1], sys.argv[2:]))
"""


def kill_overrides(folder):
    folder.mkdir()
    sessions = [one.model_copy(update={"id": f"s{n}"}) for n, one in enumerate(TALKS * 8)]
    lines = ["Yes.", "No one could say so.", "Perhaps.", "Under the bridge it is.", "I'm sorry, but I can't help."]
    return [
        f"run.folder={folder / 'runs'}",
        f"negatives.data={json.dumps([data(folder, 'a', *sessions)])}",
        f"negatives.writer={script(folder / 'writer.jsonl', lines)}",
        f"negatives.policy={script(folder / 'policy.jsonl', lines[::-1])}",
        'negatives.how=["structural", "prompted", "on-policy"]',
        "negatives.chosen=writer",
        "negatives.check_worse=judge",
        f"negatives.judge={script(folder / 'judge.jsonl', ['[[A]]', '[[B]]', 'Neither.'])}",
        "negatives.drop_not_worse=true",
        "negatives.sessions=32",
        "negatives.chunk=2",
    ]


@pytest.mark.parametrize("grows", ["trees.jsonl", "verdicts.jsonl"])
def test_kill_minus_nine_while_writing_and_while_judging_changes_no_record(tmp_path, grows):
    expected = load(DEMO, kill_overrides(tmp_path / "undisturbed"))
    negatives.run(expected)
    overrides = kill_overrides(tmp_path / "killed")
    recipe = load(DEMO, overrides)
    file = recipe.folder("negatives") / grows
    for _ in range(2):
        before = file.stat().st_size if file.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(DEMO), *overrides], stderr=subprocess.DEVNULL, cwd=DEMO.parents[1]
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            if file.exists() and file.stat().st_size > before:
                break
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    negatives.run(recipe)
    for name in ("trees.jsonl", "rejected.jsonl", "skipped.jsonl", "verdicts.jsonl"):
        there, here = expected.folder("negatives") / name, recipe.folder("negatives") / name
        assert here.read_bytes() == there.read_bytes()
    kinds = {one.reason for one in result(recipe, "skipped.jsonl", Rejected)}
    assert "not worse than the chosen answer" in kinds


def test_a_kill_behind_the_verdicts_finds_the_same_again(tmp_path, monkeypatch):
    expected = load(DEMO, kill_overrides(tmp_path / "undisturbed"))
    negatives.run(expected)
    recipe = load(DEMO, kill_overrides(tmp_path / "killed"))
    apply = worse.apply

    def dying(*given):
        apply(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(worse, "apply", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            negatives.run(recipe)
    monkeypatch.setattr(worse, "apply", apply)
    negatives.run(recipe)
    for name in ("trees.jsonl", "rejected.jsonl", "skipped.jsonl"):
        assert (recipe.folder("negatives") / name).read_bytes() == (expected.folder("negatives") / name).read_bytes()
    assert counts(recipe) == counts(expected)
