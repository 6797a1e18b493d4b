"""Negatives by hand: what each kind's writer saw, what is skipped, and failed calls."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parrot_lite.chat.meter import Metered
from parrot_lite.collect import negatives
from parrot_lite.collect.shown import irrelevant
from parrot_lite.context import dependence
from parrot_lite.errors import UserError
from parrot_lite.recipe_file import load
from parrot_lite.store import locate, read
from parrot_lite.types import Dialogue, Rejected, Reply, SessionTree
from tests.collect.speakers import DEMO, FunctionChat, recipe_in, said, script

DEPENDENT = "Why is it so cold?"
INDEPENDENT = "Name the capital of Peru."
ALL = '["neglect", "hallucination", "misunderstanding", "same-writer", "degraded", "random"]'


def talk(name, *messages):
    session = Dialogue(id=name, source="test")
    for message in messages:
        session = session.say(message)
    return session


BEES = talk("bees", "Do bees sleep at night?", "They do.", DEPENDENT, "The hive is outside.", DEPENDENT, "Winter.")
PERU = talk("peru", "Where is Peru?", "In South America.", INDEPENDENT, "Lima.")
RIVER = talk("river", "Name a river.", "The Tagus.", DEPENDENT, "Springs are.", "Unanswered?")


def test_the_queries_below_are_what_the_tests_take_them_for():
    assert dependence(DEPENDENT, 2) == "pronoun"
    assert dependence(INDEPENDENT, 2) is None


def data(folder, name, *sessions):
    path = folder / name
    path.write_text("".join(session.model_dump_json(exclude_none=True) + "\n" for session in sessions))
    return str(path)


def settings(folder, files, *overrides):
    writer = script(folder / "writer.jsonl", ["A scripted answer."])
    return recipe_in(
        folder, f"negatives.data={json.dumps(files)}", f"negatives.writer={writer}", "negatives.sessions=9", *overrides
    )


def write(monkeypatch, recipe, answer):
    writer = FunctionChat(answer)
    monkeypatch.setattr(negatives, "open_chat", lambda spec, recipe, meter: Metered(writer, meter))
    negatives.run(recipe)
    return writer


def result(recipe, name, kind):
    return list(read(recipe.folder("negatives") / name, kind))


def saw(branch):
    return [turn.content for turn in branch.negative.saw]


def prompt(name, query, words=None):
    text = locate(f"package:parrot_lite/data/prompts/{name}").read_text(encoding="utf-8")
    return text.strip().replace("{query}", query).replace("{words}", str(words))


def test_each_kind_at_a_late_turn_by_hand(tmp_path, monkeypatch):
    recipe = settings(
        tmp_path, [data(tmp_path, "a", BEES, PERU)], f"negatives.kinds={ALL}", "negatives.turns_per_session=1"
    )
    asked = prompt("guess-referent.txt", DEPENDENT)

    def answer(dialogue):
        if dialogue.turns[-1].content == asked:
            return said('"Why is Lake Baikal so cold?"\nIt is deep.')
        return said(f"Answer to {dialogue.id}")

    writer = write(monkeypatch, recipe, answer)
    [tree] = result(recipe, "trees.jsonl", SessionTree)
    assert tree.dialogue == BEES
    assert {(branch.turn, branch.rule) for branch in tree.branches} == {(3, "pronoun")}
    by_kind = {branch.negative.kind: branch for branch in tree.branches}
    history = [turn.content for turn in BEES.turns[:4]]
    assert saw(by_kind["neglect"]) == [DEPENDENT]
    assert saw(by_kind["hallucination"]) == ["Why is Lake Baikal so cold?"]
    assert saw(by_kind["misunderstanding"]) == ["Do bees sleep at night?", "They do.", DEPENDENT]
    assert saw(by_kind["same-writer"]) == [*history, DEPENDENT]
    assert saw(by_kind["degraded"]) == [*history, prompt("degraded-answer.txt", DEPENDENT, words=1)]
    assert saw(by_kind["random"]) in (["Where is Peru?"], ["Where is Peru?", "In South America.", INDEPENDENT])
    assert by_kind["random"].negative.text in PERU.answers
    assert {kind: branch.negative.done for kind, branch in by_kind.items() if kind != "random"} == {
        "neglect": "history withheld",
        "hallucination": "history withheld; referent guessed",
        "misunderstanding": "an irrelevant exchange of the session shown: bees turn 1",
        "same-writer": "full history shown",
        "degraded": "full history shown, a poor answer asked for",
    }
    assert {kind for kind, branch in by_kind.items() if branch.negative.how == "prompted"} == {"degraded"}
    assert by_kind["neglect"].negative.text == "Answer to bees/3/neglect/structural"
    assert by_kind["neglect"].negative.writer == "function"
    # What a record says that the writer saw is what the writer saw.
    contexts = {dialogue.id: dialogue.turns for dialogue in writer.shown}
    assert len(contexts) == len(writer.shown) == 6  # five kinds, and the guess
    for kind in set(by_kind) - {"random"}:
        assert contexts[f"bees/3/{kind}/{by_kind[kind].negative.how}"] == by_kind[kind].negative.saw
    [rejected] = result(recipe, "rejected.jsonl", Rejected)
    assert (rejected.id, rejected.reason) == ("peru", "no dependent turn")


def test_misunderstanding_shows_the_earlier_exchange_that_is_least_like_the_query_and_its_answer(tmp_path, monkeypatch):
    session = talk(
        "trip",
        *("Which rivers cross Lisbon?", "The Tagus river."),
        *("Who wrote the Lusiads?", "Camoens, a poet."),
        *("How wide is the Tagus?", "Two kilometres."),
        *("And where does it rise?", "The Tagus river rises in Spain."),
    )
    assert [irrelevant(session, turn) for turn in (2, 3, 4)] == [None, 1, 2]  # the one before is never it
    recipe = settings(
        tmp_path,
        [data(tmp_path, "a", session)],
        'negatives.kinds=["misunderstanding"]',
        "negatives.turns_per_session=1",
    )
    write(monkeypatch, recipe, lambda d: said("He was born in Lisbon, I think."))
    [tree] = result(recipe, "trees.jsonl", SessionTree)
    [branch] = tree.branches
    assert saw(branch) == ["Who wrote the Lusiads?", "Camoens, a poet.", "And where does it rise?"]
    assert branch.negative.done == "an irrelevant exchange of the session shown: trip turn 2"


def test_a_misunderstanding_that_may_not_borrow_is_left_out(tmp_path, monkeypatch):
    kinds = 'negatives.kinds=["misunderstanding", "neglect"]'
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER, PERU)], kinds, "negatives.borrow=false")
    write(monkeypatch, recipe, lambda d: said("x"))
    [skipped] = result(recipe, "skipped.jsonl", Rejected)
    assert skipped.id == "river/2/misunderstanding/structural"
    assert skipped.reason == "no irrelevant exchange in the session"


def test_misunderstanding_at_turn_two_borrows_from_another_session(tmp_path, monkeypatch):
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER, PERU)], 'negatives.kinds=["misunderstanding"]')
    write(monkeypatch, recipe, lambda d: said("x"))
    [tree] = result(recipe, "trees.jsonl", SessionTree)
    assert tree.dialogue == RIVER.complete()
    [branch] = tree.branches
    turn = PERU.queries.index(saw(branch)[0]) + 1
    assert saw(branch) == [PERU.queries[turn - 1], PERU.answers[turn - 1], DEPENDENT]
    assert branch.negative.done == f"an exchange of another session shown: peru turn {turn}"


def test_counts_are_those_of_the_files(tmp_path, monkeypatch):
    recipe = settings(tmp_path, [data(tmp_path, "a", BEES, PERU, RIVER)])
    write(monkeypatch, recipe, lambda d: said("Springs are." if d.id == "river/2/neglect/structural" else f"To {d.id}"))
    done = json.loads((recipe.folder("negatives") / "manifest.json").read_text())
    assert done["counts"] == {
        "trees": 2,
        "turns": 3,
        "rule: pronoun": 3,
        "neglect, structural: wanted": 3,
        "neglect, structural: checked": 3,
        "neglect, structural: kept": 2,
        "neglect, structural: skipped, equals the chosen answer": 1,
        "hallucination, structural: wanted": 3,
        "hallucination, structural: checked": 3,
        "hallucination, structural: kept": 3,
        "misunderstanding, structural: wanted": 3,
        "misunderstanding, structural: checked": 3,
        "misunderstanding, structural: kept": 3,
        "misunderstanding, structural: an irrelevant exchange of the session shown": 1,
        "misunderstanding, structural: an exchange of another session shown": 2,
        "rejected: no dependent turn": 1,
    }
    # Chosen at the three turns: "The hive is outside.", "Winter.", "Springs are."; at the last no neglect is left.
    assert done["mean_words"]["neglect, structural"] == {"negative": 2, "chosen": 2.5}
    assert done["mean_words"]["misunderstanding, structural"] == {"negative": 2, "chosen": 2.3}
    assert done["calls"]["function"]["calls"] == 12  # 3 turns x (3 kinds + a guess)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (said(" Springs are.\n"), "equals the chosen answer"),
        (said(" "), "empty reply"),
        (Reply.failure("empty", lasting="empty reply"), "empty reply"),
        (Reply.failure("prompt of 9 tokens does not fit a context of 8", lasting="context full"), "context full"),
        (Reply.failure("HTTP 422: no", lasting="refused request"), "refused request"),
        (Reply(text="Because it", stop="length"), "cut at max_tokens"),
    ],
)
def test_what_is_no_negative_is_skipped_and_counted(tmp_path, monkeypatch, reply, reason):
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER)], 'negatives.kinds=["neglect", "same-writer"]')
    write(monkeypatch, recipe, lambda d: reply if "neglect" in d.id else said("Another."))
    [skipped] = result(recipe, "skipped.jsonl", Rejected)
    assert (skipped.id, skipped.reason) == ("river/2/neglect/structural", reason)
    [tree] = result(recipe, "trees.jsonl", SessionTree)
    assert [branch.negative.kind for branch in tree.branches] == ["same-writer"]


def test_a_cut_answer_may_end_behind_its_last_whole_sentence(tmp_path, monkeypatch):
    keys = ("negatives.shorten=true", 'negatives.kinds=["neglect", "hallucination", "same-writer"]')
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER)], *keys)
    endless = {"neglect": "Rivers are wet. They", "hallucination": "Rivers are and are"}

    def reply(d):
        if d.id.endswith("guess"):
            return said("What is a lake?")
        text = next((text for name, text in endless.items() if f"/{name}/" in d.id), None)
        return said("Another.") if text is None else Reply(text=text, stop="length")

    write(monkeypatch, recipe, reply)
    [tree] = result(recipe, "trees.jsonl", SessionTree)
    kept = {branch.negative.kind: branch.negative for branch in tree.branches}
    assert (kept["neglect"].text, kept["neglect"].shortened, kept["neglect"].words) == ("Rivers are wet.", True, 3)
    assert (kept["same-writer"].text, kept["same-writer"].shortened) == ("Another.", False)
    [skipped] = result(recipe, "skipped.jsonl", Rejected)  # there is no whole sentence to keep
    assert (skipped.id, skipped.reason) == ("river/2/hallucination/structural", "cut at max_tokens")


def test_a_guess_that_guesses_nothing_is_skipped(tmp_path, monkeypatch):
    kinds = 'negatives.kinds=["hallucination", "same-writer"]'
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER)], kinds)
    write(monkeypatch, recipe, lambda d: said(DEPENDENT.upper() if d.id.endswith("guess") else "Another."))
    [skipped] = result(recipe, "skipped.jsonl", Rejected)
    assert (skipped.id, skipped.reason) == ("river/2/hallucination/structural", "nothing guessed")


def test_a_cut_guess_is_skipped(tmp_path, monkeypatch):
    kinds = 'negatives.kinds=["hallucination", "same-writer"]'
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER)], kinds)
    cut = Reply(text="Why is the lake so", stop="length")
    write(monkeypatch, recipe, lambda d: cut if d.id.endswith("guess") else said("Another."))
    [skipped] = result(recipe, "skipped.jsonl", Rejected)
    assert (skipped.id, skipped.reason) == ("river/2/hallucination/structural", "cut at max_tokens")


def test_no_negative_at_all_is_an_error(tmp_path, monkeypatch):
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER)], 'negatives.kinds=["random"]')
    with pytest.raises(UserError, match="no session has a negative: 1 x no negative left"):
        write(monkeypatch, recipe, lambda d: said("unused"))
    [skipped] = result(recipe, "skipped.jsonl", Rejected)
    assert skipped.reason == "no other session"


def test_failed_calls_leave_the_session_unfinished_and_are_retried(tmp_path, monkeypatch):
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER, BEES)], 'negatives.kinds=["neglect", "same-writer"]')
    path = recipe.folder("negatives")

    def failing(dialogue):
        if dialogue.id == "river/2/neglect/structural":
            return said("Springs are.")
        return (
            Reply.failure("timeout") if dialogue.id == "river/2/same-writer/structural" else said(f"To {dialogue.id}")
        )

    with pytest.raises(UserError, match="1 of 2 sessions have failed calls"):
        write(monkeypatch, recipe, failing)
    assert [tree.id for tree in result(recipe, "trees.jsonl", SessionTree)] == ["bees"]
    assert not (path / "manifest.json").exists()
    writer = write(monkeypatch, recipe, lambda d: said(f"To {d.id}"))
    # The skipped negative stays skipped: it is not asked for again, so it is not counted twice.
    assert [dialogue.id for dialogue in writer.shown] == ["river/2/same-writer/structural"]
    assert [tree.id for tree in result(recipe, "trees.jsonl", SessionTree)] == ["river", "bees"]
    assert len(result(recipe, "skipped.jsonl", Rejected)) == 1


def test_a_budget_stops_the_stage_and_a_larger_one_goes_on(tmp_path):
    files = [data(tmp_path, "a.jsonl", BEES, PERU, RIVER)]
    with pytest.raises(UserError, match=r"the budget is spent: 5 of 5 calls \(budget.calls\)"):
        negatives.run(settings(tmp_path, files, "negatives.chunk=1", "budget.calls=5"))
    recipe = settings(tmp_path, files, "negatives.chunk=1")
    negatives.run(recipe)
    assert len(result(recipe, "trees.jsonl", SessionTree)) == 2
    done = json.loads((recipe.folder("negatives") / "manifest.json").read_text())
    assert done["calls"]["scripted"]["calls"] == 5 + 12  # the session in hand is begun again


def test_the_latest_turns_and_every_file_in_turn(tmp_path, monkeypatch):
    long = talk("long", "Name a river.", *["It flows.", DEPENDENT] * 5, "End.")
    files = [data(tmp_path, "a", long, PERU, BEES), data(tmp_path, "b", RIVER, talk("late", *["Hello", "Hi"] * 2))]
    recipe = settings(tmp_path, files, "negatives.sessions=2", "negatives.turns_per_session=2")
    write(monkeypatch, recipe, lambda d: said(f"To {d.id}"))
    trees = result(recipe, "trees.jsonl", SessionTree)
    assert [tree.id for tree in trees] == ["long", "river"]
    assert sorted({branch.turn for branch in trees[0].branches}) == [5, 6]
    assert result(recipe, "rejected.jsonl", Rejected) == []  # nobody looked further than needed


def test_an_id_in_two_files_is_an_error(tmp_path, monkeypatch):
    recipe = settings(tmp_path, [data(tmp_path, "a", RIVER), data(tmp_path, "b", RIVER)])
    with pytest.raises(UserError, match="'river' occurs twice"):
        write(monkeypatch, recipe, lambda d: said("x"))


SLOW = """
import sys, time
from parrot_lite.chat.scripted import ScriptedChat
from parrot_lite.collect import negatives
from parrot_lite.recipe_file import load
quick = ScriptedChat.reply
def reply(self, *given):
    time.sleep(0.03)
    return quick(self, *given)
ScriptedChat.reply = reply
negatives.run(load(sys.argv[1], sys.argv[2:]))
"""


def kill_overrides(folder: Path) -> list[str]:
    folder.mkdir()
    sessions = [
        talk(f"s{n}", "Name a river.", "Seven.", DEPENDENT if n % 3 else INDEPENDENT, "Yes.", "And that one?", "No.")
        for n in range(60)
    ]
    return [
        f"run.folder={folder / 'runs'}",
        f"negatives.data={json.dumps([data(folder, 'a', *sessions)])}",
        f"negatives.writer={script(folder / 'writer.jsonl', ['Yes.', 'No.', 'Perhaps.', 'Under the bridge.'])}",
        f"negatives.kinds={ALL}",
        "negatives.sessions=60",
        "negatives.chunk=2",
    ]


def test_kill_minus_nine_changes_no_record(tmp_path):
    expected = load(DEMO, kill_overrides(tmp_path / "undisturbed"))
    negatives.run(expected)
    overrides = kill_overrides(tmp_path / "killed")
    recipe = load(DEMO, overrides)
    trees = recipe.folder("negatives") / "trees.jsonl"
    for _ in range(2):
        before = trees.stat().st_size if trees.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(DEMO), *overrides], stderr=subprocess.DEVNULL, cwd=DEMO.parents[1]
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            if trees.exists() and trees.stat().st_size > before:
                break
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with trees.open("a") as file:
        file.write('{"dialogue":{"id":"s')
    negatives.run(recipe)
    for name in ("trees.jsonl", "rejected.jsonl", "skipped.jsonl"):
        there, here = expected.folder("negatives") / name, recipe.folder("negatives") / name
        assert here.read_bytes() == there.read_bytes()
    assert result(recipe, "skipped.jsonl", Rejected)
