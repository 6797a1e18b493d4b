"""The ways in which negatives are written: what each shows its author, and what it writes down of that."""

import hashlib
import json
import shutil

import pytest

from parrot_lite.collect import negatives
from parrot_lite.collect.prompts import PLACEHOLDERS, load, prompt_of
from parrot_lite.errors import StageChanged, UserError
from parrot_lite.recipe import Local
from parrot_lite.store import locate
from parrot_lite.train.packing import pack
from parrot_lite.types import KINDS, Rejected, Reply, SessionTree
from tests.collect.speakers import FunctionChat, said
from tests.collect.test_negatives import (
    ALL,
    BEES,
    DEPENDENT,
    PERU,
    RIVER,
    data,
    prompt,
    result,
    saw,
    settings,
    talk,
    write,
)
from tests.lm.test_template import shared

PROMPTS = locate("package:parrot_lite/data/prompts")
POLICY = "negatives.policy={kind='scripted', path='policy'}"
HISTORY = [turn.content for turn in BEES.turns[:4]]
GUESS = "Why is Lake Baikal so cold?"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def last_turn(tmp_path, *overrides):
    """A recipe for the last turn of the bees alone."""
    files = [data(tmp_path, "a", BEES, PERU)]
    return settings(tmp_path, files, "negatives.turns_per_session=1", "negatives.max_length_ratio=99.0", *overrides)


def answer(dialogue):
    return said(GUESS if dialogue.id.endswith("/guess") else f"Answer to {dialogue.id}")


def write_by(monkeypatch, recipe, writer, policy):
    """Run the stage with two speakers; they are returned."""
    chats = FunctionChat(writer), FunctionChat(policy)
    chats[1].name = "policy"
    monkeypatch.setattr(negatives, "inputs_of", lambda *_: {})
    monkeypatch.setattr(negatives, "open_chat", lambda spec, *_: chats[spec == recipe.negatives.policy])
    negatives.run(recipe)
    return chats


def branches(recipe):
    """The branches of the only tree by kind and way."""
    [tree] = result(recipe, "trees.jsonl", SessionTree)
    return {(branch.negative.kind, branch.negative.how): branch for branch in tree.branches}


def test_prompted_shows_what_the_paper_shows_and_says_what_to_do(tmp_path, monkeypatch):
    recipe = last_turn(tmp_path, 'negatives.how=["prompted"]')
    writer = write(monkeypatch, recipe, answer)
    found = branches(recipe)
    assert set(found) == {(kind, "prompted") for kind in KINDS}
    asked = {kind: prompt(f"negative-{kind}.txt", DEPENDENT) for kind in KINDS}
    assert len(set(asked.values())) == 3
    assert all(DEPENDENT in text for text in asked.values())
    assert saw(found["neglect", "prompted"]) == [asked["neglect"]]
    assert saw(found["hallucination", "prompted"]) == [asked["hallucination"]]
    assert saw(found["misunderstanding", "prompted"]) == [*HISTORY, asked["misunderstanding"]]
    # What the records say is all that there was: no guess, and nothing of the history where it is withheld.
    assert {dialogue.id: dialogue.turns for dialogue in writer.shown} == {
        f"bees/3/{kind}/prompted": found[kind, "prompted"].negative.saw for kind in KINDS
    }
    for kind in ("neglect", "hallucination"):
        [text] = saw(found[kind, "prompted"])
        assert not any(message in text for message in HISTORY if message != DEPENDENT)
    for kind in KINDS:
        assert found[kind, "prompted"].negative.prompt == sha256(PROMPTS / f"negative-{kind}.txt")
    assert {kind: found[kind, "prompted"].negative.done for kind in KINDS} == {
        "neglect": "history withheld, neglect asked for",
        "hallucination": "history withheld, a guess asked for",
        "misunderstanding": "full history shown, misunderstanding asked for",
    }


def test_all_ways_at_once_give_a_negative_each(tmp_path, monkeypatch):
    recipe = last_turn(
        tmp_path, f"negatives.kinds={ALL}", 'negatives.how=["structural", "on-policy", "prompted"]', POLICY
    )
    writer, policy = write_by(monkeypatch, recipe, answer, answer)
    found = branches(recipe)
    assert set(found) == {
        *((kind, how) for kind in KINDS for how in ("structural", "prompted", "on-policy")),
        ("same-writer", "structural"),
        ("same-writer", "on-policy"),
        ("degraded", "prompted"),
        ("degraded", "on-policy"),
        ("random", "structural"),
    }
    for (kind, how), branch in found.items():
        author = "test" if kind == "random" else "policy" if how == "on-policy" else "function"
        assert branch.negative.writer == author
    # The policy sees what a structural writer sees, and asks nobody else for its guess.
    for kind in (*KINDS, "same-writer"):
        assert saw(found[kind, "on-policy"]) == saw(found[kind, "structural"])
    assert saw(found["degraded", "on-policy"]) == saw(found["degraded", "prompted"])
    assert {dialogue.id for dialogue in policy.shown} == {
        "bees/3/hallucination/on-policy/guess",
        *(f"bees/3/{kind}/on-policy" for kind in (*KINDS, "same-writer", "degraded")),
    }
    assert "bees/3/hallucination/structural/guess" in {dialogue.id for dialogue in writer.shown}
    assert not any("on-policy" in dialogue.id for dialogue in writer.shown)
    assert policy.closed == writer.closed == 1
    # Where a context alone does it, no prompt is named.
    assert {pair for pair, branch in found.items() if branch.negative.prompt is None} == {
        *((kind, how) for kind in ("neglect", "misunderstanding") for how in ("structural", "on-policy")),
        ("same-writer", "structural"),
        ("same-writer", "on-policy"),
        ("random", "structural"),
    }
    assert found["hallucination", "structural"].negative.prompt == sha256(PROMPTS / "guess-referent.txt")


def test_on_policy_alone_opens_no_writer(tmp_path, monkeypatch):
    recipe = last_turn(tmp_path, 'negatives.how=["on-policy"]', 'negatives.kinds=["neglect", "random"]', POLICY)
    writer, policy = write_by(monkeypatch, recipe, answer, answer)
    assert set(branches(recipe)) == {("neglect", "on-policy"), ("random", "structural")}
    assert writer.shown == []
    assert [dialogue.id for dialogue in policy.shown] == ["bees/3/neglect/on-policy"]


def test_on_policy_is_by_default_the_sft_model_which_has_to_be_there(tmp_path):
    recipe = last_turn(tmp_path, 'negatives.how=["on-policy"]')
    assert recipe.negatives.policy == Local(kind="local", adapter="train-sft")
    assert "model" in recipe.resolved("negatives")
    with pytest.raises(UserError, match="stage train-sft has no finished result"):
        negatives.run(recipe)
    other = last_turn(tmp_path)
    assert other.negatives.policy is None
    assert "model" not in other.resolved("negatives")  # what does not decide its results does not undo them


def test_a_degraded_answer_is_asked_for_at_the_length_of_the_chosen_one(tmp_path, monkeypatch):
    session = talk("talk", "Name a river.", "The Tagus.", DEPENDENT, "Springs are, and the  deep ones\nmore than most.")
    recipe = settings(tmp_path, [data(tmp_path, "a", session)], 'negatives.kinds=["degraded"]')
    write(monkeypatch, recipe, lambda d: said("In general such things are as they are."))
    [branch] = branches(recipe).values()
    assert "of about 9 words" in saw(branch)[-1]
    assert saw(branch) == ["Name a river.", "The Tagus.", prompt("degraded-answer.txt", DEPENDENT, words=9)]
    assert (branch.negative.words, branch.negative.chosen_words) == (8, 9)


def test_an_author_writes_the_chosen_answer_under_the_true_history(tmp_path, monkeypatch):
    recipe = last_turn(
        tmp_path,
        'negatives.kinds=["neglect", "degraded", "random"]',
        'negatives.how=["structural", "on-policy"]',
        "negatives.chosen=writer",
        POLICY,
    )

    def by(name):
        def reply(dialogue):
            if "/chosen/" in dialogue.id:
                assert [turn.content for turn in dialogue.turns] == [*HISTORY, DEPENDENT]
                return said(f"It is {name} and the wind.")
            return answer(dialogue)

        return reply

    writer, policy = write_by(monkeypatch, recipe, by("winter"), by("night"))
    found = branches(recipe)
    assert {pair: branch.chosen for pair, branch in found.items()} == {
        ("neglect", "structural"): "It is winter and the wind.",
        ("neglect", "on-policy"): "It is night and the wind.",
        ("degraded", "prompted"): "It is winter and the wind.",
        ("degraded", "on-policy"): "It is night and the wind.",
        ("random", "structural"): "It is winter and the wind.",
    }
    assert "of about 6 words" in saw(found["degraded", "prompted"])[-1]
    for chat, author in ((writer, "writer"), (policy, "policy")):  # asked once a turn, not once a negative
        assert [d.id for d in chat.shown if "/chosen/" in d.id] == [f"bees/3/chosen/{author}"]


def test_an_own_chosen_answer_is_what_training_prefers(tmp_path, monkeypatch):
    recipe = last_turn(tmp_path, 'negatives.kinds=["neglect", "same-writer"]', "negatives.chosen=writer")
    write(monkeypatch, recipe, lambda d: said("It is winter." if "/chosen/" in d.id else f"Answer to {d.id}"))
    [tree] = result(recipe, "trees.jsonl", SessionTree)
    renderer = shared("chatml")
    one = pack(renderer, tree, tree.branches)
    context = BEES.before(3)
    own, session = (renderer.render(context.say(text)).ids for text in ("It is winter.", "Winter."))
    rows = [one.tree.way(answer).tolist() for answer in one.tree.answers]
    assert len(one.contrasts) == 2
    for contrast, branch in zip(one.contrasts, tree.branches, strict=True):
        rejected = renderer.render(context.say(branch.negative.text)).ids
        assert rows[contrast.chosen] == list(own[: len(rows[contrast.chosen])])
        assert rows[contrast.rejected] == list(rejected[: len(rows[contrast.rejected])])
    assert not any(row == list(session[: len(row)]) for row in rows)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(text="It is", stop="length"), "chosen: cut at max_tokens"),
        (said(" "), "chosen: empty reply"),
        (Reply.failure("empty", lasting="empty reply"), "chosen: empty reply"),
        (said("I'm sorry, but I can't answer that."), "chosen: refusal"),
    ],
)
def test_a_chosen_answer_that_fails_skips_its_pairs(tmp_path, monkeypatch, reply, reason):
    files = [data(tmp_path, "a", BEES, RIVER)]
    recipe = settings(tmp_path, files, "negatives.chosen=writer", "negatives.max_length_ratio=99.0")
    write(
        monkeypatch,
        recipe,
        lambda d: reply if d.id == "river/2/chosen/writer" else said("Yes.") if "/chosen/" in d.id else answer(d),
    )
    skipped = result(recipe, "skipped.jsonl", Rejected)
    assert [(one.id, one.reason) for one in skipped] == [(f"river/2/{kind}/structural", reason) for kind in KINDS]
    assert [tree.id for tree in result(recipe, "trees.jsonl", SessionTree)] == ["bees"]
    [rejected] = result(recipe, "rejected.jsonl", Rejected)
    assert (rejected.id, rejected.reason) == ("river", "no negative left")


def test_a_chosen_answer_that_failed_on_the_way_is_asked_for_again(tmp_path, monkeypatch):
    files = [data(tmp_path, "a", BEES, RIVER)]
    recipe = settings(tmp_path, files, "negatives.chosen=writer", "negatives.max_length_ratio=99.0")
    down = Reply.failure("timeout")
    with pytest.raises(UserError, match="1 of 2 sessions have failed calls"):
        write(monkeypatch, recipe, lambda d: down if d.id == "river/2/chosen/writer" else answer(d))
    writer = write(monkeypatch, recipe, answer)
    assert {dialogue.id.split("/")[0] for dialogue in writer.shown} == {"river"}
    assert {tree.id for tree in result(recipe, "trees.jsonl", SessionTree)} == {"bees", "river"}
    assert result(recipe, "skipped.jsonl", Rejected) == []


def test_another_prompt_file_gives_another_hash_and_another_stage(tmp_path, monkeypatch):
    own = tmp_path / "prompts"
    shutil.copytree(PROMPTS, own)
    recipe = last_turn(tmp_path, 'negatives.how=["prompted"]', f"negatives.prompts='{own}'")
    write(monkeypatch, recipe, answer)
    before = branches(recipe)["neglect", "prompted"].negative
    assert before.prompt == sha256(PROMPTS / "negative-neglect.txt")  # the same bytes at another place
    inputs = json.loads((recipe.folder("negatives") / "manifest.json").read_text())["inputs"]
    assert {name for name in inputs if name.startswith("prompts/")} == {
        f"prompts/negative-{kind}.txt" for kind in KINDS
    }

    changed = own / "negative-neglect.txt"
    changed.write_text("Answer {query} {alone}".replace("{alone}", "alone."), encoding="utf-8")
    with pytest.raises(StageChanged) as caught:
        write(monkeypatch, recipe, answer)
    assert "negative-neglect.txt" in caught.value.difference
    negatives.run(recipe, rerun=True)
    after = branches(recipe)["neglect", "prompted"].negative
    assert after.prompt == sha256(changed) != before.prompt
    assert [turn.content for turn in after.saw] == [f"Answer {DEPENDENT} alone."]

    (own / "which-fits.txt").write_text("unused here")  # a prompt that takes no part undoes nothing
    writer = write(monkeypatch, recipe, answer)
    assert writer.shown == []


def test_prompt_files_that_do_not_hold(tmp_path):
    path = tmp_path / "degraded-answer.txt"
    with pytest.raises(UserError, match="no such file"):
        load(str(tmp_path), "degraded-answer")
    for text in ("{query}", "{query} {words} {answer}", "{words}"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"It has to use \{query\}, \{words\} and no other"):
            load(str(tmp_path), "degraded-answer")
    path.write_bytes(b"{query} {words} \xff")
    with pytest.raises(UserError, match="not UTF-8"):
        load(str(tmp_path), "degraded-answer")
    path.write_text('{"a": 1} {query} {words}\n')
    assert load(str(tmp_path), "degraded-answer").fill(query="{words}?", words="7") == '{"a": 1} {words}? 7'


def test_every_prompt_is_shipped_and_used():
    shipped = {name: load("package:parrot_lite/data/prompts", name) for name in PLACEHOLDERS}
    assert len({one.sha256 for one in shipped.values()}) == len(PLACEHOLDERS)
    kinds = (*KINDS, "same-writer", "degraded", "random")
    used = {prompt_of(kind, how) for kind in kinds for how in ("structural", "prompted", "on-policy")}
    assert used - {None} == set(PLACEHOLDERS) - {"which-fits"}


def test_a_prompted_misunderstanding_borrows_nothing(tmp_path, monkeypatch):
    recipe = settings(
        tmp_path, [data(tmp_path, "a", RIVER)], 'negatives.kinds=["misunderstanding"]', 'negatives.how=["prompted"]'
    )
    write(monkeypatch, recipe, lambda d: said("The Tagus is long."))
    [branch] = branches(recipe).values()
    assert saw(branch)[:2] == ["Name a river.", "The Tagus."]
