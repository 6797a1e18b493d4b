"""The collection loop: every stop rule by hand, failed calls, and exactly-once after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from parrot_lite.chat.meter import Metered
from parrot_lite.collect import loop, seeds
from parrot_lite.errors import StageChanged, UserError
from parrot_lite.recipe_file import load
from parrot_lite.store import RunFolder, read
from parrot_lite.types import Dialogue, Rejected, Reply
from tests.chat.loopback import completion, loopback
from tests.collect.speakers import DEMO, FunctionChat, recipe_in, said, script

SEED = "How do bees find flowers?"
LAPSES = {"role drift", "repeated query", "short query", "thanks", "answers itself"}
FOLLOW_UPS = ["Which colours attract them most?", "Do wasps behave similarly there?", "Could robots pollinate instead?"]
ELSEWHERE = ["Does it ever freeze?", "Who fishes there now?"]  # asked where the session did not open with SEED


def records(recipe):
    folder = recipe.folder("collect")
    return list(read(folder / "dialogues.jsonl", Dialogue)), list(read(folder / "rejected.jsonl", Rejected))


def manifest(recipe):
    return json.loads((recipe.folder("collect") / "manifest.json").read_text())


def settings(tmp_path, *overrides, seeds=(SEED,), turns=3):
    (tmp_path / "seeds.txt").write_text("\n".join(seeds) + "\n", encoding="utf-8")
    return recipe_in(
        tmp_path,
        f"collect.seeds={tmp_path / 'seeds.txt'}",
        f"collect.sessions={len(seeds)}",
        f"collect.min_turns={turns}",
        f"collect.max_turns={turns}",
        f"collect.asker={script(tmp_path / 'asker.jsonl', FOLLOW_UPS)}",
        f"collect.answerer={script(tmp_path / 'answerer.jsonl', ['They see ultraviolet.'])}",
        *overrides,
    )


def play(monkeypatch, recipe, ask, answer):
    """Run with functions as speakers; returns them."""
    asker, answerer = FunctionChat(ask), FunctionChat(answer, "answerer")

    def open_chat(spec, _, meter):
        return Metered(asker if spec == recipe.collect.asker else answerer, meter)

    monkeypatch.setattr(loop, "open_chat", open_chat)
    loop.run(recipe)
    return asker, answerer


def follow_up(session):
    return said((FOLLOW_UPS if session.queries[0] == SEED else ELSEWHERE)[len(session.answers) - 1])


def answered(session):
    return said(f"Answer {len(session.queries)}.")


def test_a_session_reaches_its_target(tmp_path, monkeypatch):
    recipe = settings(tmp_path)
    asker, answerer = play(monkeypatch, recipe, follow_up, answered)
    [session], rejected = records(recipe)
    assert session.queries == (SEED, *FOLLOW_UPS[:2])
    assert session.answers == ("Answer 1.", "Answer 2.", "Answer 3.")
    assert (session.ended, session.source, rejected) == ("target", "collect:text", [])
    assert (len(asker.shown), len(answerer.shown), asker.closed, answerer.closed) == (2, 3, 1, 1)
    done = manifest(recipe)
    assert done["counts"] == {
        "ended: target": 1,
        "exchanges": 3,
        "seeds": 1,
        "sessions": 1,
    }
    counts = {"calls": 3, "prompt_tokens": 0, "tokens": 6, "cut": 0, "without usage": 3, "failures": {}}
    assert done["calls"]["answerer"] == counts
    assert done["tokens"] == 6 + sum(len(query.split()) for query in FOLLOW_UPS[:2])
    assert not (recipe.folder("collect") / "turns.jsonl").exists()


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (said(SEED), "repeated query"),
        (said("Which colours attract them least?"), "repeated query"),  # 4 of 5 words of query 2: 0.8
        (said("why?"), "short query"),
        (said("Do they like my locker?"), None),
        (said("Do they pick a lock?"), "sensitive query"),
        (said("Certainly! Bees are insects."), "role drift"),
        (said("Thanks a lot!"), "thanks"),
        (said("Do wasps? Assistant: They do."), "answers itself"),
        (said("  "), "empty query"),
        (Reply.failure("empty reply", lasting="empty reply"), "empty query"),
        (Reply(text="Tell me everything about the", stop="length"), "query too long"),
        (Reply.failure("prompt of 9 tokens does not fit a context of 8", lasting="context full"), "context full"),
    ],
)
def test_a_query_that_fails_a_filter_ends_the_session(tmp_path, monkeypatch, query, reason):
    recipe = settings(tmp_path, 'collect.sensitive=["lock"]')
    asker, _ = play(monkeypatch, recipe, lambda s: query if len(s.answers) == 2 else follow_up(s), answered)
    lapse = reason in LAPSES
    assert len(asker.shown) == 2 + lapse  # another draw of what the user's role forbids, of nothing else
    assert manifest(recipe)["counts"].get(f"drawn again: {reason}", 0) == lapse
    [session], _ = records(recipe)
    assert session.ended == (reason or "target")
    assert session.answers == ("Answer 1.", "Answer 2.", "Answer 3.")[: 2 if reason else 3]
    assert len(session.queries) == len(session.answers)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said("As an AI language model, I cannot say."), "refusal"),
        (said(" \n"), "empty answer"),
        (Reply.failure("HTTP 200, empty reply (stopped as stop)", lasting="empty reply"), "empty answer"),
        (Reply.failure("HTTP 400: too long", lasting="context full"), "context full"),
        (Reply.failure("HTTP 422: no", lasting="refused request"), "refused request"),
        (Reply(text="They see ultra", stop="length"), "answer too long"),
    ],
)
def test_a_refused_or_missing_answer_goes_with_its_query(tmp_path, monkeypatch, answer, reason):
    recipe = settings(tmp_path)
    play(monkeypatch, recipe, follow_up, lambda s: answer if len(s.queries) == 3 else answered(s))
    [session], _ = records(recipe)
    assert (session.ended, session.queries) == (reason, (SEED, FOLLOW_UPS[0]))


def test_a_cut_answer_ends_the_session_and_is_counted(tmp_path, monkeypatch):
    recipe = settings(tmp_path, seeds=(SEED, "Name a river."))

    def answer(session):
        cut = session.queries[0] != SEED or len(session.queries) == 3
        return Reply(text="Cut off at", stop="length") if cut else answered(session)

    play(monkeypatch, recipe, follow_up, answer)
    [session], [rejected] = records(recipe)
    assert (session.ended, session.answers) == ("answer too long", ("Answer 1.", "Answer 2."))
    assert (rejected.reason, rejected.detail) == ("answer too long", "0 exchanges; Cut off at")
    assert manifest(recipe)["calls"]["answerer"]["cut"] == 2


def lapses(recipe):
    return [(one.turn, one.draw, one.kind) for one in read(recipe.folder("collect") / "lapses.jsonl", loop.Lapse)]


def wavering(texts):
    """An asker that says these one after the other at its second query, and asks elsewhere."""
    left = list(texts)
    return lambda s: said(left.pop(0)) if len(s.answers) == 2 else follow_up(s)


def test_a_lapse_is_drawn_again_under_another_seed(tmp_path, monkeypatch):
    recipe = settings(tmp_path)
    asker, _ = play(monkeypatch, recipe, wavering(["Thanks!", FOLLOW_UPS[1]]), answered)
    [session], _ = records(recipe)
    assert (session.ended, session.queries[2]) == ("target", FOLLOW_UPS[1])
    assert lapses(recipe) == [(3, 0, "thanks")]
    first, second = asker.shown[1:]
    assert first == second
    assert asker.seeds[0] == asker.seeds[1] != asker.seeds[2]


@pytest.mark.parametrize(("redraws", "ended", "drawn"), [(0, "thanks", 0), (1, "short query", 1), (2, "target", 2)])
def test_as_many_draws_as_the_recipe_says(tmp_path, monkeypatch, redraws, ended, drawn):
    recipe = settings(tmp_path, f"collect.redraws={redraws}")
    play(monkeypatch, recipe, wavering(["Thanks!", "why?", FOLLOW_UPS[1]]), answered)
    [session], _ = records(recipe)
    assert session.ended == ended
    assert lapses(recipe) == [(3, 0, "thanks"), (3, 1, "short query")][:drawn]


def test_a_kill_behind_a_lapse_makes_no_second_one(tmp_path, monkeypatch):
    recipe = settings(tmp_path)
    uninterrupted = settings(tmp_path, f"run.folder={tmp_path / 'other'}")
    play(monkeypatch, uninterrupted, wavering(["Thanks!", FOLLOW_UPS[1]]), answered)

    def dies(session):
        if lapses(recipe):
            raise KeyboardInterrupt
        return said("Thanks!") if len(session.answers) == 2 else follow_up(session)

    with pytest.raises(KeyboardInterrupt):
        play(monkeypatch, recipe, dies, answered)
    asker, answerer = play(monkeypatch, recipe, wavering([FOLLOW_UPS[1]]), answered)
    assert lapses(recipe) == lapses(uninterrupted) == [(3, 0, "thanks")]
    assert records(recipe) == records(uninterrupted)
    assert (len(asker.shown), len(answerer.shown)) == (1, 1)  # what was said before the kill was kept


OPENINGS = ("Name a river.", "Who painted that ceiling?", "Recommend some soup.", "How tall are giraffes?")
# By place in the order of sessions: the second loses its last exchange, the third all but its first, the fourth asks
# again what the third alone had asked, and the second's opening.
SAID = (
    ("Is it long?", "Any bridges there?"),
    ("Who fishes now?", "Is it long?"),
    ("Any bridges there?", "Why so cold?"),
)


def across(tmp_path, monkeypatch):
    """Play OPENINGS; returns the recipe and the queries that the files must hold, in order."""
    recipe = settings(tmp_path, "collect.keep_turns=2", seeds=OPENINGS)
    order = [session.queries[0] for session in seeds.draw(recipe, RunFolder(tmp_path, "collect"))]
    lines = dict(zip(order, (*SAID, ("Why so cold?", order[1])), strict=True))
    chats = FunctionChat(lambda s: said(lines[s.queries[0]][len(s.answers) - 1])), FunctionChat(answered)
    monkeypatch.setattr(loop, "open_chat", lambda spec, *_: chats[spec != recipe.collect.asker])
    return recipe, [(order[0], *SAID[0]), (order[1], SAID[1][0]), (order[3], "Why so cold?")]


def check_across(recipe, expected):
    sessions, [rejected] = records(recipe)
    assert [session.queries for session in sessions] == expected
    assert [session.ended for session in sessions] == ["target", loop.REPEATED, loop.REPEATED]
    assert all(len(session.answers) == len(session.queries) for session in sessions)
    assert (rejected.reason, rejected.detail) == (loop.REPEATED, "1 exchanges; Any bridges there?")
    counts = manifest(recipe)["counts"]
    assert (counts["sessions"], counts[f"ended: {loop.REPEATED}"], counts[f"rejected: {loop.REPEATED}"]) == (3, 2, 1)


def test_a_query_of_an_earlier_session_cuts_the_later_one(tmp_path, monkeypatch):
    recipe, expected = across(tmp_path, monkeypatch)
    loop.run(recipe)
    check_across(recipe, expected)


@pytest.mark.parametrize("moment", ["before", "behind"])
def test_a_kill_around_the_cut_across_sessions_changes_nothing(tmp_path, monkeypatch, moment):
    recipe, expected = across(tmp_path, monkeypatch)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "before":  # rejected.jsonl is written, dialogues.jsonl not replaced; replacements in order go on
            patch.setattr(loop, "os", SimpleNamespace(replace=dies))
        else:
            patch.setattr(loop, "_count", dies)
        with pytest.raises(KeyboardInterrupt):
            loop.run(recipe)
    assert len(records(recipe)[0]) == (4 if moment == "before" else 3)
    loop.run(recipe)
    check_across(recipe, expected)


def test_too_few_exchanges_are_rejected_with_the_reason(tmp_path, monkeypatch):
    recipe = settings(tmp_path, 'collect.sensitive=["gun"]', seeds=(SEED, "Where is my gun now?", "Name a river."))

    def answer(session):
        return said("I'm sorry, but I can't help with that.") if session.queries[0] == SEED else answered(session)

    _, answerer = play(monkeypatch, recipe, follow_up, answer)
    [session], rejected = records(recipe)
    assert session.queries[0] == "Name a river."
    assert sorted(record.reason for record in rejected) == ["refusal", "sensitive query"]
    assert all("gun" not in shown.queries[0] for shown in answerer.shown)
    counts = manifest(recipe)["counts"]
    assert (counts["rejected: refusal"], counts["rejected: sensitive query"], counts["sessions"]) == (1, 1, 1)


def test_every_session_rejected_is_an_error_not_a_result(tmp_path, monkeypatch):
    recipe = settings(tmp_path)
    with pytest.raises(UserError, match="all 1 sessions were rejected, 1 as 'empty answer'"):
        play(monkeypatch, recipe, follow_up, lambda s: said(" "))
    assert not (recipe.folder("collect") / "manifest.json").exists()


def test_failed_calls_never_enter_a_dialogue_and_are_retried(tmp_path, monkeypatch):
    recipe = settings(tmp_path, seeds=(SEED, "Name a river."))

    def failing(session):
        broken = session.queries[0] == SEED and len(session.queries) == 2
        return Reply.failure("timeout: nothing within 1 s") if broken else answered(session)

    with pytest.raises(UserError, match=r"1 of 2 sessions have failed calls.*timeout.*again to retry"):
        play(monkeypatch, recipe, follow_up, failing)
    sessions, rejected = records(recipe)
    assert ([session.queries[0] for session in sessions], rejected) == (["Name a river."], [])
    _, answerer = play(monkeypatch, recipe, follow_up, answered)
    assert {shown.queries[0] for shown in answerer.shown} == {SEED}
    assert [len(shown.queries) for shown in answerer.shown] == [2, 3]  # the session goes on where it failed
    sessions, _ = records(recipe)
    assert sorted(session.queries[0] for session in sessions) == [SEED, "Name a river."]
    assert all(session.ended == "target" for session in sessions)


def test_a_run_that_nobody_answers_gives_up(tmp_path, monkeypatch):
    seeds = [f"Name river number {number}." for number in range(200)]
    recipe = settings(tmp_path, "collect.in_flight=8", seeds=seeds)
    asker, answerer = FunctionChat(follow_up), FunctionChat(lambda s: Reply.failure("connection: refused"))
    monkeypatch.setattr(loop, "open_chat", lambda spec, *_: asker if spec == recipe.collect.asker else answerer)
    with pytest.raises(UserError, match="64 of 200 sessions have failed calls, stopped after"):
        loop.run(recipe)
    assert len(answerer.shown) == 64


def test_the_budget_of_calls_holds_over_attempts_and_loses_nothing(tmp_path):
    seeds = [f"Name river number {number}." for number in range(6)]

    def capped(calls, folder="runs"):
        budget = f"budget.calls={calls}"
        return settings(tmp_path, budget, f"run.folder={tmp_path / folder}", "collect.keep_turns=1", seeds=seeds)

    def usage(recipe):
        return json.loads((recipe.folder("collect") / "usage.json").read_text())["scripted"]["calls"]

    for calls in (5, 12):
        with pytest.raises(
            UserError, match=rf"the budget is spent: {calls} of {calls} calls \(budget.calls\)"
        ) as caught:
            loop.run(capped(calls))
        assert "Raise that key and run parrot collect again" in str(caught.value)
        assert usage(capped(calls)) == calls
    loop.run(capped("none"))
    loop.run(capped("none", "other"))
    assert records(capped("none")) == records(capped("none", "other"))
    assert manifest(capped("none"))["calls"] == manifest(capped("none", "other"))["calls"]  # none was made twice


def test_money_is_capped_by_prices_and_needs_them(tmp_path):
    def usual(request):
        return completion("It is.", usage={"prompt_tokens": 1000, "completion_tokens": 500})

    seeds = [f"Name river number {number}." for number in range(20)]
    with loopback(usual) as server:
        spec = f'{{ kind = "server", base_url = "{server.address}", model = "m", concurrency = 1 }}'
        money = [f"collect.answerer={spec}", "budget.money=0.01"]
        with pytest.raises(UserError, match=r"the model m has no price.*\[prices.\"m\"\]"):
            loop.run(settings(tmp_path, *money, turns=2))
        assert not (tmp_path / "runs").exists()
        money.append("prices.m={input=1, output=2}")  # 0.002 a call: 5 calls
        with pytest.raises(UserError, match=r"the budget is spent: 0.0100 of 0.01 after .* calls \(budget.money\)"):
            loop.run(settings(tmp_path, *money, seeds=seeds, turns=2))
        assert len(server.requests) == 5
        server.usual = lambda request: completion("It is.")
        with pytest.raises(UserError, match="m does not say what it used"):
            loop.run(settings(tmp_path, *money, "budget.money=1", seeds=seeds, turns=2))
        assert len(server.requests) == 6
        loop.run(settings(tmp_path, *money, "budget.money=none", seeds=seeds, turns=2))
    calls = manifest(settings(tmp_path))["calls"]["m"]
    assert (calls["calls"], calls["prompt_tokens"], calls["tokens"]) == (len(server.requests), 5000, 2500)
    assert (calls["money"], calls["without usage"]) == (0.01, len(server.requests) - 5)


def test_a_prompted_asker_is_shown_flipped_roles_behind_its_instruction(tmp_path, monkeypatch):
    recipe = settings(tmp_path, "collect.prompted=true", turns=2)

    def ask(shown):
        assert shown.due == "assistant"
        return said(FOLLOW_UPS[0])

    asker, answerer = play(monkeypatch, recipe, ask, answered)
    [shown] = asker.shown
    assert shown.answers == (SEED,)
    assert "You play the human user" in shown.queries[0]
    assert shown.queries[1] == "Answer 1."
    assert shown.id != answerer.shown[0].id  # or one model in both roles would share seeds and prefixes
    [session], _ = records(recipe)
    assert session.queries == (SEED, FOLLOW_UPS[0])
    text = (recipe.folder("collect") / "recipe.toml").read_text()
    assert "prompt: asker" in text


def test_one_chat_for_both_where_the_specs_are_equal(tmp_path, monkeypatch):
    both = script(tmp_path / "both.jsonl", ["unused"])
    recipe = settings(tmp_path, f"collect.asker={both}", f"collect.answerer={both}")
    opened = []

    def open_chat(spec, *_):
        opened.append(FunctionChat(lambda s: follow_up(s) if s.due == "user" else answered(s)))
        return opened[-1]

    monkeypatch.setattr(loop, "open_chat", open_chat)
    loop.run(recipe)
    assert [chat.closed for chat in opened] == [1]


def test_bundled_seeds_and_drawn_targets(tmp_path):
    recipe = settings(tmp_path, "collect.seeds=bundled", "collect.min_turns=1", "collect.sessions=40", turns=3)
    sessions = [loop._target(Dialogue(id=str(number), source="x"), recipe) for number in range(40)]
    assert set(sessions) == {1, 2, 3}
    loop.run(recipe)
    sessions, rejected = records(recipe)
    assert len(sessions) + len(rejected) == 40
    assert all(session.id.startswith("collect-") for session in sessions)


def test_first_queries_of_the_logs_as_seeds(tmp_path):
    recipe = settings(tmp_path, "collect.seeds=logs")
    with pytest.raises(UserError, match="stage logs has no finished result"):
        loop.run(recipe)
    logs = recipe.folder("logs")
    logs.mkdir(parents=True)
    session = Dialogue(id="a", source="s").say("Name a river.").say("The Tagus.").say("Is it long?")
    (logs / "train.jsonl").write_text(session.model_dump_json() + "\n")
    (logs / "manifest.json").write_text("{}")
    loop.run(recipe)
    assert [session.queries[0] for session in records(recipe)[0]] == ["Name a river."]


def test_turn_bounds_that_contradict_each_other(tmp_path):
    with pytest.raises(UserError, match="min_turns = 5 is above max_turns = 3"):
        settings(tmp_path, "collect.min_turns=5", turns=3)


def test_other_seeds_are_another_run(tmp_path):
    recipe = settings(tmp_path)
    loop.run(recipe)
    (tmp_path / "seeds.txt").write_text("Name a river.\n")
    with pytest.raises(StageChanged):
        loop.run(recipe)
    loop.run(recipe, rerun=True)
    assert records(recipe)[0][0].queries[0] == "Name a river."


FILES = ("dialogues.jsonl", "rejected.jsonl")
ASKER = [
    "Which colours attract them most?",
    "Do wasps behave similarly there?",
    "Could robots pollinate instead?",
    "Tell me about the price.",
    "And in cold winters?",
    "why?",
    "Certainly! I can do that.",
    "How long does one last?",
    "Who wrote about this first?",
    "Is there some shorter way?",
]
# Of few lines most would be cut across sessions, and the other ends not be reached.
ANIMALS = ("ants", "bats", "cats", "dogs", "eels", "frogs", "gnats", "hens")
ASKER += [f"Where do {animal} {what}?" for animal in ANIMALS for what in ("eat", "rest", "hide")]
ANSWERER = [
    "It depends on the soil.",
    "Seven of them.",
    "I'm sorry, but I can't help with that.",
    "Yes, by far.",
    "No.",
]
SLOW = """
import sys, time
from parrot_lite.chat.scripted import ScriptedChat
from parrot_lite.collect import loop
from parrot_lite.recipe_file import load
quick = ScriptedChat.reply
def reply(self, *given):
    time.sleep(float(sys.argv[1]))
    return quick(self, *given)
ScriptedChat.reply = reply
loop.run(load(sys.argv[2], sys.argv[3:]))
"""


def kill_overrides(folder: Path) -> list[str]:
    (folder / "seeds.txt").write_text("".join(f"Name river number {n}.\n" for n in range(40)), encoding="utf-8")
    return [
        f"run.folder={folder / 'runs'}",
        f"collect.seeds={folder / 'seeds.txt'}",
        "collect.sessions=40",
        "collect.min_turns=2",
        "collect.max_turns=6",
        "collect.in_flight=4",
        f"collect.asker={script(folder / 'asker.jsonl', ASKER)}",
        f"collect.answerer={script(folder / 'answerer.jsonl', ANSWERER)}",
    ]


def test_kill_minus_nine_at_any_moment_changes_no_record(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    expected = load(DEMO, kill_overrides(undisturbed))
    loop.run(expected)
    overrides = kill_overrides(killed)
    recipe = load(DEMO, overrides)
    folder = recipe.folder("collect")
    command = [sys.executable, "-c", SLOW, "0.015", str(DEMO), *overrides]

    def written():
        return sum((folder / name).stat().st_size for name in FILES if (folder / name).exists())

    for _ in range(3):
        before = written()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=DEMO.parents[1])
        deadline = time.monotonic() + 20
        while written() <= before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (folder / "manifest.json").exists()
    with (folder / "dialogues.jsonl").open("a") as file:
        file.write('{"id":"collect-half')  # what a kill inside a write leaves
    loop.run(recipe)
    there = expected.folder("collect")
    assert (folder / "dialogues.jsonl").read_bytes() == (there / "dialogues.jsonl").read_bytes()
    assert sorted((folder / "rejected.jsonl").read_bytes().splitlines()) == sorted(
        (there / "rejected.jsonl").read_bytes().splitlines()
    )
    assert manifest(recipe)["counts"] == manifest(expected)["counts"]
    assert {session.ended for session in records(recipe)[0]} >= {"target", "role drift", "refusal", loop.REPEATED}
