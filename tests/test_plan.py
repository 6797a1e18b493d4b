"""The plan by hand: what a prompt holds, what is measured where, and what is left open."""

import json
import sys
from pathlib import Path

import pytest

from parrot_lite import estimate, plan
from parrot_lite.collect import negatives
from parrot_lite.estimate import Assumed, Calls, Lengths, Shape, shapes
from parrot_lite.recipe import Server, dump
from parrot_lite.recipe_file import load
from parrot_lite.types import KINDS, Dialogue
from tests.test_cli import imported_by, parrot, run
from tests.train.test_dose import hung

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "recipes" / "demo.toml"
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
STAGES = ["logs", "train-ask", "collect", "negatives", "train-sft", "train-capo", "eval"]
ASSUMED = Assumed(query_tokens=40, answer_tokens=270, verdict_tokens=150, call_seconds=5)
SERVER = Server(kind="server", base_url="http://127.0.0.1:1/v1", model="m", concurrency=10)
M = '{ kind = "server", base_url = "http://127.0.0.1:1/v1", model = "m", concurrency = 10 }'
OTHER = M.replace('"m"', '"n"')
EVERYWHERE = [f"{key}={M}" for key in ("collect.asker", "collect.answerer", "negatives.writer", "eval.judge.chat")]


def outlook(folder, *overrides, path=DEMO):
    return plan.Outlook(load(path, [f"run.folder={json.dumps(str(folder))}", *overrides]), ASSUMED)


def planned(look, stage):
    return plan.STAGES[stage](look)


def figures(calls):
    return round(calls.number), round(calls.prompt), round(calls.generated)


def warned(look):
    return list(plan.warnings(look, {stage: planned(look, stage) for stage in STAGES}))


class TestConversations:
    def test_the_papers_sessions_by_hand(self):
        # 6, 7, 8, 9 or 10 turns. Answer i reads i queries and i - 1 answers: 21, 28, 36, 45, 55 queries and
        # 15, 21, 28, 36, 45 answers a session, 37 and 29 in the mean, each message with 4 tokens around it.
        lengths = Lengths(40, 270, shapes(range(6, 11)))
        answers = estimate.answers("answerer", SERVER, lengths, 40_000, 1024)
        assert figures(answers) == (320_000, 40_000 * (37 * 44 + 29 * 274), 320_000 * 270)
        assert round(answers.prompt / 1e6) == 383
        # Query i, from the second one on, reads i - 1 exchanges: 15, 21, 28, 36, 45.
        queries = estimate.queries("asker", SERVER, lengths, 40_000, 128, told=100)
        assert figures(queries) == (280_000, 40_000 * 29 * 318 + 280_000 * 100, 280_000 * 40)

    def test_a_session_played_message_by_message(self):
        shape, said = Shape(5, ()), []
        reads = {"answer": 0, "query": 0}
        for turn in range(1, shape.turns + 1):
            if turn > 1:
                reads["query"] += sum(said)
            said.append(31 + estimate.MESSAGE)
            reads["answer"] += sum(said)
            said.append(97 + estimate.MESSAGE)
        lengths = Lengths(31, 97, (shape,))
        assert estimate.answers("a", SERVER, lengths, 1, 999).prompt == reads["answer"]
        assert estimate.queries("q", SERVER, lengths, 1, 999, 0).prompt == reads["query"]
        assert lengths.session(shape) == sum(said)

    def test_no_reply_is_longer_than_it_may_be(self):
        lengths = Lengths(40, 270, shapes([3]))
        assert estimate.answers("a", SERVER, lengths, 10, 100).generated == 30 * 100
        assert estimate.queries("q", SERVER, lengths, 10, 8, 0).generated == 20 * 8


class TestNegatives:
    LENGTHS = Lengths(10, 100, (Shape(4, (2, 4)), Shape(2, ())))  # an exchange is 118, a query 14

    def count(self, kinds, turns, how="structural", chosen=False):
        wanted = [(kind, how) for kind in kinds]
        return figures(estimate.negatives("writer", SERVER, self.LENGTHS, 5, wanted, chosen, turns, 80, told=50))

    def test_each_kind_by_hand(self):
        # 5 sessions, each with the latest dependent turn, 4, or with 2 and 4.
        assert self.count(["neglect"], 1) == (5, 5 * 14, 5 * 80)
        assert self.count(["hallucination"], 1) == (10, 5 * (50 + 14 + 14), 5 * (10 + 80))
        assert self.count(["misunderstanding"], 9) == (10, 10 * (118 + 14), 10 * 80)  # one exchange alone
        assert self.count(["same-writer"], 9) == (10, 5 * (118 + 14 + 3 * 118 + 14), 10 * 80)
        assert self.count(["degraded"], 1) == (5, 5 * (3 * 118 + 14 + 50), 5 * 80)
        assert self.count(["random"], 9) == (0, 0, 0)

    def test_what_is_prompted_is_told_what_to_do(self):
        assert self.count(["neglect"], 1, "prompted") == (5, 5 * (14 + 50), 5 * 80)
        assert self.count(["hallucination"], 1, "prompted") == (5, 5 * (14 + 50), 5 * 80)
        assert self.count(["misunderstanding"], 1, "prompted") == (5, 5 * (3 * 118 + 14 + 50), 5 * 80)

    def test_a_chosen_answer_is_written_once_for_all_kinds_of_a_turn(self):
        alone, both = self.count(KINDS, 2), self.count(KINDS, 2, chosen=True)
        assert tuple(b - a for a, b in zip(alone, both, strict=True)) == (10, 5 * (118 + 14 + 3 * 118 + 14), 10 * 80)

    def test_kinds_add_up(self):
        whole = self.count(KINDS, 2)
        assert whole == tuple(map(sum, zip(*(self.count([kind], 2) for kind in KINDS), strict=True)))

    def test_a_judge_sees_every_pair_in_both_orders(self):
        looks = estimate.comparisons(SERVER, self.LENGTHS, 5, 3, turns=1, verdict=20, told=50)
        assert figures(looks) == (30, 30 * (50 + 3 * 118 + 14 + 2 * 100), 30 * 20)

    def test_writer_policy_and_judge_have_rows_of_their_own(self, tmp_path):
        look = outlook(tmp_path, 'negatives.how=["structural", "on-policy"]', 'negatives.kinds=["neglect", "random"]')
        assert [calls.role for calls in planned(look, "negatives").calls] == ["writer", "policy"]
        keys = 'negatives.how=["prompted"]', "negatives.check_worse=judge", f"negatives.judge={M}"
        assert [calls.role for calls in planned(outlook(tmp_path, *keys), "negatives").calls] == ["writer", "judge"]

    def test_only_sessions_with_a_dependent_turn_are_used(self, tmp_path):
        data = tmp_path / "data.jsonl"
        write(data, *[talk(f"a{i}", "Name a town.", "Rome.", "How old is it?", "Very old.") for i in range(3)])
        with data.open("a") as file:
            file.write(
                talk("b", "Name a town.", "Rome.", "Name a river in Peru.", "The Amazon.").model_dump_json() + "\n"
            )
        look = outlook(tmp_path, f'negatives.data=["{data}"]', f"negatives.writer={M}")
        row = planned(look, "negatives")
        assert row.sessions == 3
        assert row.calls[0].number == 3 * 4  # one dependent turn, three kinds, one of them in two calls


def talk(name, *messages):
    session = Dialogue(id=name, source="test")
    for message in messages:
        session = session.say(message)
    return session


def write(path, *sessions):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(session.model_dump_json(exclude_none=True) + "\n" for session in sessions))


def leave(look, stage, manifest=None, **settings):
    """A folder of ``stage`` as a run of this recipe leaves it; without a manifest it is begun."""
    folder = look.recipe.folder(stage)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(dump({**look.recipe.resolved(stage), "inputs": {"x": "0"}}))
    if manifest is not None:
        section = getattr(look.recipe, plan.SECTION[stage]).model_dump(mode="json", exclude_none=True)
        manifest = {"attempts": 1, "settings": {**section, **settings}, **manifest}
        (folder / "manifest.json").write_text(json.dumps(manifest))


class TestWhatIsMeasured:
    TALKS = (talk("a", "one two three", "1 2 3 4 5 6", "why is it so", "7 8"), talk("b", "five", "9 10 11 12"))

    def test_lengths_of_sessions_in_words(self, tmp_path):
        write(tmp_path / "x.jsonl", *self.TALKS, talk("c", "unanswered"))
        found = estimate.measured(tmp_path / "x.jsonl")
        assert found.query == pytest.approx(8 / 3 * 4 / 3)
        assert found.answer == pytest.approx(4 * 4 / 3)
        assert found.shapes == (Shape(2, (2,)), Shape(1, ()))

    def test_a_file_that_is_being_written(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_text('{"id": "a", "sour')
        assert estimate.measured(path) is None
        write(path, *self.TALKS)
        with path.open("a") as file:
            file.write('{"id": "a", "sour')
        assert len(estimate.measured(path).shapes) == 2

    def test_a_begun_collection_tells_lengths_and_a_finished_one_turns(self, tmp_path):
        turns = "collect.min_turns=4", "collect.max_turns=6"
        assumed = outlook(tmp_path, *turns).lengths(["collect"])
        assert (assumed.query, assumed.answer, assumed.measured) == (40, 270, None)
        write(tmp_path / "demo" / "collect" / "dialogues.jsonl", *self.TALKS)
        leave(outlook(tmp_path, *turns), "collect")
        begun = outlook(tmp_path, *turns).lengths(["collect"])
        assert begun.answer == pytest.approx(4 * 4 / 3)
        assert [shape.turns for shape in begun.shapes] == [4, 5, 6]
        leave(outlook(tmp_path, *turns), "collect", {"counts": {"sessions": 2}, "seconds": 9.0})
        look = outlook(tmp_path, *turns)
        assert [shape.turns for shape in look.lengths(["collect"]).shapes] == [2, 1]
        assert look.sessions(["collect"]) == 2
        more = outlook(tmp_path, "collect.sessions=40000").lengths(["collect"])  # after a pilot
        assert more.answer == pytest.approx(4 * 4 / 3)
        assert [shape.turns for shape in more.shapes] == [2, 3, 4]
        assert outlook(tmp_path, *turns, f"collect.answerer={M}").lengths(["collect"]) == assumed

    def test_states(self, tmp_path):
        look = outlook(tmp_path)
        leave(look, "logs", {"train": 7, "seconds": 1.0})
        leave(look, "train-ask")
        leave(look, "collect", {"seconds": 1.0})
        now = outlook(tmp_path, "collect.max_turns=9")
        assert [now.past[stage].state for stage in STAGES[:4]] == ["finished", "begun", "changed", "to do"]
        assert now.sessions(["logs"]) == 7
        assert any("collect: its folder belongs to another recipe" in line for line in warned(now))

    def test_a_pilot_gives_the_pace_of_its_speakers(self, tmp_path):
        data = tmp_path / "data.jsonl"
        write(data, *[talk(f"s{i}", "Name a town.", "Rome.", "How old is it?", "Very old.") for i in range(20)])
        script = tmp_path / "writer.jsonl"
        script.write_text('"A guess."\n')
        writer = f'negatives.writer={{kind="scripted", path="{script}"}}'
        keys = [f'negatives.data=["{data}"]', writer]
        pilot = outlook(tmp_path, *keys, "negatives.sessions=2")
        negatives.run(pilot.recipe)
        file = pilot.recipe.folder("negatives") / "manifest.json"
        manifest = json.loads(file.read_text())
        assert sum(one["calls"] for one in manifest["calls"].values()) == 8
        assert planned(pilot, "negatives").calls[0].number == 8
        file.write_text(json.dumps({**manifest, "seconds": 36.0}))
        look = outlook(tmp_path, *keys, "negatives.sessions=20")
        assert look.past["negatives"].state == "changed"
        hours = plan.hours_of(look, "negatives", planned(look, "negatives"))
        assert hours == plan.Hours(pytest.approx(80 * 36 / 8 / 3600), measured=True)

        script.rename(tmp_path / "other.jsonl")
        other = [keys[0], writer.replace("writer.jsonl", "other.jsonl"), "negatives.sessions=20"]
        look = outlook(tmp_path, *other)
        assert plan.hours_of(look, "negatives", planned(look, "negatives")) is None  # not a server: nothing is assumed
        file.write_text(json.dumps({**manifest, "seconds": 36.0, "attempts": 2}))
        look = outlook(tmp_path, *keys, "negatives.sessions=20")
        assert plan.hours_of(look, "negatives", planned(look, "negatives")) is None  # of the last attempt alone

    def test_training_at_the_rate_of_another_of_its_kind(self, tmp_path):
        same = "sft.batch=2", "sft.accumulation=2", 'sft.data=["logs"]', "sft.epochs=2"
        look = outlook(tmp_path, *same)
        assert plan.hours_of(look, "train-sft", planned(look, "train-sft")) is None
        leave(look, "train-ask", {"tokens": 9000, "seconds": 90.0})
        look = outlook(tmp_path, *same)
        row = planned(look, "train-sft")
        assert row.steps == 32
        assert row.tokens == 32 * 4 * 512  # 64 sessions twice, each longer than max_tokens
        assert plan.hours_of(look, "train-sft", row) == plan.Hours(pytest.approx(32 * 4 * 512 / 100 / 3600), True)
        for key in ("sft.batch=1", "sft.checkpointing=true", "model.load_in_4bit=false"):
            look = outlook(tmp_path, *same, key)
            assert plan.hours_of(look, "train-sft", planned(look, "train-sft")) is None
        look = outlook(tmp_path, *same)
        assert plan.hours_of(look, "train-capo", planned(look, "train-capo")) is None

    def test_a_finished_stage_took_what_it_took(self, tmp_path):
        look = outlook(tmp_path, *EVERYWHERE)
        leave(
            look, "collect", {"counts": {"sessions": 3}, "seconds": 7200.0, "calls": {"m": {"calls": 5, "tokens": 7}}}
        )
        look = outlook(tmp_path, *EVERYWHERE, "budget.calls=1", "prices={m={input=1.0, output=1.0}}")
        assert plan.hours_of(look, "collect", planned(look, "collect")) == plan.Hours(2.0, measured=True)
        assert not any(line.startswith("collect") for line in warned(look))


class TestHours:
    def test_of_servers_by_concurrency(self, tmp_path):
        look = outlook(tmp_path, *EVERYWHERE, "collect.sessions=1000")
        row = planned(look, "collect")
        assert [calls.number for calls in row.calls] == [2000, 3000]
        assert plan.hours_of(look, "collect", row) == plan.Hours(pytest.approx(5000 * 5 / 10 / 3600), measured=False)

    def test_of_batches(self, tmp_path):
        writer = M.replace(" }", ", batch = true }")
        for kinds, hours in (('["neglect"]', 24), ('["neglect", "hallucination"]', 48)):  # the guesses come first
            look = outlook(tmp_path, f"negatives.writer={writer}", f"negatives.kinds={kinds}")
            assert plan.hours_of(look, "negatives", planned(look, "negatives")) == plan.Hours(hours, measured=False)

    def test_at_least_those_of_the_servers_where_this_machine_works_too(self, tmp_path):
        look = outlook(tmp_path, f"collect.answerer={M}", "collect.sessions=1000")  # the asker is local
        row = planned(look, "collect")
        hours = plan.hours_of(look, "collect", row)
        assert hours == plan.Hours(pytest.approx(3000 * 5 / 10 / 3600), measured=False, whole=False)
        models = [f"eval.models.{name}={M}" for name in ("base", "sft", "capo")]
        look = outlook(tmp_path, *EVERYWHERE, *models)
        assert plan.hours_of(look, "eval", planned(look, "eval")).whole is False  # the probe
        look = outlook(tmp_path, *EVERYWHERE, *models, "eval.probe=none")
        assert plan.hours_of(look, "eval", planned(look, "eval")).whole

    def test_unknown_where_this_machine_does_everything(self, tmp_path):
        look = outlook(tmp_path)
        assert plan.hours_of(look, "collect", planned(look, "collect")) is None
        assert plan.hours_of(look, "eval", planned(look, "eval")) is None


def test_playing_and_judging_by_hand(tmp_path):
    bench = tmp_path / "bench.jsonl"
    bench.write_text(json.dumps({"question_id": 1, "category": "writing", "turns": ["a b c", "a b c d e f"]}) + "\n")
    look = outlook(tmp_path, f"eval.bench={bench}", "eval.max_tokens=100", f"eval.judge.chat={M}")
    row = planned(look, "eval")
    read = (4 + 4) + (4 + 4 + 100 + 4 + 8 + 4)  # 3 words are 4 tokens, 4 more around a message
    assert [figures(calls) for calls in row.calls[:3]] == [(2, read, 200)] * 3
    told = len((ROOT / "parrot_lite/data/prompts/judge-score.txt").read_text().split()) * 4 / 3
    assert figures(row.calls[3]) == (6, round(3 * (read + 200) + 6 * told), 0)  # weighed, not written
    written = planned(outlook(tmp_path, f"eval.bench={bench}", "eval.judge.verdict=written"), "eval")
    assert written.calls[3].generated == 6 * 150
    pairs = 'eval.judge.pairs=[["capo", "sft"]]'
    compared = planned(outlook(tmp_path, f"eval.bench={bench}", "eval.max_tokens=100", pairs), "eval").calls[4]
    told = len((ROOT / "parrot_lite/data/prompts/judge-pair-only.txt").read_text().split()) * 4 / 3
    several = tmp_path / "prompts.jsonl"
    several.write_text("one two three\none two three four five\n")
    family = planned(
        outlook(tmp_path, f"eval.bench={bench}", "eval.max_tokens=100", f"eval.judge.prompt={several}"), "eval"
    )
    assert figures(family.calls[3]) == (6, round(3 * (read + 200) + 6 * 4 * 4 / 3), 0)  # four words each on the average
    assert figures(compared) == (4, round(4 * (read + 200) + 4 * told), 0)  # two turns, both orders, two sessions each
    assert planned(outlook(tmp_path, "eval.bench=/nonexistent"), "eval").reads == "/nonexistent: no such file or folder"


def test_the_same_writers_answers_are_calls(tmp_path):
    keys = ("logs.heldout=3", 'eval.probe.answers=["same-writer"]', f"eval.probe.writer={M}")
    look = outlook(tmp_path, *keys, "eval.probe.decoding.max_tokens=20", "eval.probe.turns_per_session=1")
    calls = planned(look, "eval").calls[-1]
    lengths = look.lengths(("logs",))
    read = sum(lengths.prompt(shape.turns) for shape in lengths.shapes) / len(lengths.shapes)  # the last turn of each
    assert calls.role == "same writer"
    assert min(shape.turns for shape in lengths.shapes) >= 2
    assert figures(calls) == (3, round(3 * read), 60)


def test_every_history_is_a_play_of_its_own(tmp_path):
    bench = tmp_path / "bench.jsonl"
    rows = [
        {"question_id": 1, "category": "writing", "turns": ["a b c", "a b c d e f"], "reference": ["x y z"]},
        {"question_id": 2, "category": "writing", "turns": ["a b c", "a b c"]},
    ]
    bench.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = (f"eval.bench={bench}", "eval.max_tokens=100", f"eval.judge.chat={M}")
    row = planned(outlook(tmp_path, *keys, "eval.history=['own', 'hidden', 'reference']"), "eval")
    own = (8 + (8 + 104 + 12)) + (8 + (8 + 104 + 8))
    hidden = (8 + 12) + (8 + 8)
    reference = 8 + (8 + 8 + 12)  # of the only session that has one; 3 words are 4 tokens, 4 more around a message
    assert [figures(calls) for calls in row.calls[:3]] == [(10, own + hidden + reference, 1000)] * 3
    told = len((ROOT / "parrot_lite/data/prompts/judge-score.txt").read_text().split()) * 4 / 3
    # A judge reads of a session without history what the model has answered so far, as with its own.
    assert figures(row.calls[3]) == (30, round(3 * (2 * own + reference + 1000) + 30 * told), 0)
    assert row.size == "10 turns a model, own and hidden and reference history"
    pairs = 'eval.judge.pairs=[["capo", "sft"]]'
    compared = planned(outlook(tmp_path, *keys, "eval.history=['own', 'hidden', 'reference']", pairs), "eval").calls[4]
    told = len((ROOT / "parrot_lite/data/prompts/judge-pair-only.txt").read_text().split()) * 4 / 3
    assert figures(compared) == (20, round(2 * 2 * (2 * own + reference + 1000) + 20 * told), 0)  # over each history


class TestMoney:
    PRICES = "prices={m={input=2.0, output=3.0}}"

    def test_cost_by_hand(self, tmp_path):
        look = outlook(tmp_path, self.PRICES)
        assert plan.cost_of(look.recipe, Calls("r", SERVER, 1, 1e6, 2e6)) == 2 + 6
        assert plan.cost_of(look.recipe, Calls("r", look.recipe.eval.models["base"], 1, 1e6, 1e6)) == 0
        assert plan.cost_of(outlook(tmp_path).recipe, Calls("r", SERVER, 1, 1e6, 1e6)) is None

    def test_the_caps_are_of_a_stage(self, tmp_path):
        calls = 16 * (2 + 3)  # of collect: 3 turns in the mean
        keys = [*EVERYWHERE, self.PRICES]
        assert warned(outlook(tmp_path, *keys, "budget.calls=200")) == []  # all stages together make more
        look = outlook(tmp_path, *keys, f"budget.calls={calls}")
        assert not any(line.startswith("collect") for line in warned(look))
        look = outlook(tmp_path, *keys, f"budget.calls={calls - 1}")
        assert "collect: 80 calls exceed budget.calls = 79" in warned(look)
        cost = sum(plan.cost_of(look.recipe, one) for one in planned(look, "collect").calls)
        over = [line for line in warned(outlook(tmp_path, *keys, f"budget.money={cost - 0.01}")) if "collect" in line]
        assert over == [f"collect: a cost of {cost:.2f} exceeds budget.money = {cost - 0.01:.2f}"]

    def test_a_missing_price_is_named_where_there_are_prices(self, tmp_path):
        assert warned(outlook(tmp_path, *EVERYWHERE)) == []
        (line,) = warned(outlook(tmp_path, *EVERYWHERE, f"negatives.writer={OTHER}", self.PRICES))
        assert line == 'no price of n: the costs lack it. Add [prices."n"]'
        assert warned(outlook(tmp_path, f"negatives.writer={OTHER}", "budget.money=5.0")) == [line]


NONE = "no such file or folder"
LACKING = {
    "logs.path=data/nosuch.json": f"logs.path = data/nosuch.json: {NONE}",
    "logs.source=messages": "logs.path is not set: source 'messages' needs it",
    "model.base=/nosuch": f"model.base = /nosuch: {NONE}",
    "model.base=recipes/x.gguf": f"model.base = recipes/x.gguf: {NONE}",
    "model.base=package:parrot_lite/x": "model.base = package:parrot_lite/x: the package parrot_lite holds no x. "
    "Name a file that it holds",
    "sft.data=['recipes/dem.toml']": f"sft.data = recipes/dem.toml: {NONE}. Did you mean recipes/demo.toml?",
    "negatives.data=['logs', 'nosuch.jsonl']": f"negatives.data = nosuch.jsonl: {NONE}",
    "negatives.prompts=/nosuch": f"negatives.prompts = /nosuch: {NONE}",
    "negatives.dependence.judge={kind='gguf', path='/nosuch'}": f"negatives.dependence.judge.path = /nosuch: {NONE}",
    "eval.models.sft.adapter=/nosuch": f"eval.models.sft.adapter = /nosuch: {NONE}",
    "collect.answerer.path=/nosuch": f"collect.answerer.path = /nosuch: {NONE}",
    "collect.seeds=/nosuch": f"collect.seeds.path = /nosuch: {NONE}",
    "collect.benchmarks=['/nosuch']": f"collect.benchmarks = /nosuch: {NONE}",
    "eval.bench=/nosuch": f"eval.bench = /nosuch: {NONE}",
    "eval.judge.prompt=/nosuch.txt": f"eval.judge.prompt = /nosuch.txt: {NONE}",
    "eval.judge.references=/nosuch.jsonl": f"eval.judge.references = /nosuch.jsonl: {NONE}",
}


class TestMissing:
    @pytest.mark.parametrize(("override", "line"), LACKING.items(), ids=LACKING)
    def test_each_file_that_a_stage_reads(self, override, line, tmp_path, monkeypatch):
        monkeypatch.chdir(ROOT)
        assert list(plan.missing(outlook(tmp_path))) == []
        assert list(plan.missing(outlook(tmp_path, override))) == [line]

    def test_a_hub_id_is_not_looked_for(self, tmp_path):
        seeds = "collect.seeds=[{source='hub', path='a/b'}]"
        assert list(plan.missing(outlook(tmp_path, "model.base=meta-llama/Llama-2-7b-hf", seeds))) == []

    def test_a_finished_stage_reads_nothing_more(self, tmp_path):
        keys = "logs.path=/nosuch", 'sft.data=["/nosuch"]'
        leave(outlook(tmp_path, *keys), "logs", {"train": 7, "seconds": 1.0})
        assert [line.split()[0] for line in plan.missing(outlook(tmp_path, *keys))] == ["sft.data"]

    def test_the_last_lines_name_it(self, tmp_path):
        done = parrot("plan", str(DEMO), f"run.folder={tmp_path}", "model.base=/nosuch")
        assert done.returncode == 0  # a plan may come before its data
        assert done.stdout.splitlines()[-1] == "model.base = /nosuch: no such file or folder"
        assert "/nosuch in NF4 (not there)" in done.stdout
        assert done.stderr == ""


# By hand: epochs x (sessions / (batch x accumulation), rounded up), at most max_steps.
REAL_STEPS = {"train-ask": "6,564", "train-sft": "3,750", "train-capo": "1,000"}
STEPS = {
    "demo": {"train-ask": "16", "train-sft": "16", "train-capo": "6"},
    "mini": {"train-ask": "16", "train-sft": "20", "train-capo": "30"},
}


class TestPrinted:
    @pytest.mark.parametrize("prices", ["{}", "{'Qwen/Qwen2.5-7B-Instruct' = {input = 99.0, output = 99.0}}"])
    def test_no_figure_is_cut_in_80_columns(self, prices, tmp_path):
        keys = [f"run.folder={tmp_path}", f"prices={prices}", "sft.epochs=1"]
        command = sys.executable, "-m", "parrot_lite", "plan", "recipes/parrot-40k.toml"
        done = run(*command, *keys, COLUMNS="80")
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        assert max(map(len, lines)) <= 80
        assert "…" not in done.stdout
        head = next(line for line in lines if line.startswith("stage"))
        assert head.split() == ["stage", "sessions", "calls", "prompt", "output", "cost", "steps", "hours"]
        rows = {line.split()[0]: line.split() for line in lines if " to do " in line}
        assert list(rows) == STAGES
        # 320,000 answers of 5 s, 64 at once; how long the local asker takes, nobody knows.
        assert rows["collect"][-3:] == [">", "6.9", "a"]
        (total,) = [line.split() for line in lines if line.startswith("to come")]
        assert total[-2:] == [">", "7.9"]
        asked = next(line.split() for line in lines if line.startswith("  answerer"))
        # 40,000 x (37 x 44 + 29 x 274) tokens read and 320,000 x 270 written, at 99 a million
        assert asked[-1] == ("—" if prices == "{}" else "46,466.64")
        assert "cost: — = [prices] has no price of that model" in lines  # of the judge at least
        assert "1 epochs" not in done.stdout
        assert "(logs)" in done.stdout

    @pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
    def test_each_shipped_recipe(self, path, tmp_path):
        data = f"logs.path={path}"  # a file that is there
        output, imported = imported_by("plan", str(path), f"run.folder={tmp_path / 'runs'}", data)
        assert imported == []
        assert not (tmp_path / "runs").exists()
        rows = {line.split()[0]: line.split() for line in output if " to do " in line}
        assert list(rows) == STAGES
        steps = {stage: rows[stage][-2] for stage in STAGES if stage.startswith("train")}
        assert steps == STEPS.get(path.stem, REAL_STEPS)
        assert {rows[stage][-1] for stage in steps} == {"—"}

    def test_prices_caps_and_options(self, tmp_path):
        keys = [f"run.folder={tmp_path}", "prices={m={input=0.5, output=1.5}}", f"collect.answerer={M}"]
        keys += [f"negatives.writer={OTHER}", "budget.calls=50"]
        done = parrot("plan", str(DEMO), *keys, "--answer-tokens", "100", "--query-tokens", "20")
        assert done.returncode == 0, done.stderr
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        (answerer,) = [line.split() for line in lines if line.startswith("  answerer")]
        # 2, 3 or 4 turns: 19/3 queries of 24 and 10/3 answers of 104 are read a session.
        prompt = 16 * (19 * 24 + 10 * 104) / 3
        assert answerer == [
            "answerer",
            "m",
            "48",
            f"{prompt:,.0f}",
            "4,800",
            f"{(prompt * 0.5 + 4800 * 1.5) / 1e6:.2f}",
        ]
        assert "collect: 80 calls exceed budget.calls = 50" in lines
        assert 'no price of n: the costs lack it. Add [prices."n"]' in lines
        assert any(line.startswith("collect: 20 tokens a query, 100 an answer (assumed") for line in lines)

    def test_an_unknown_number_of_sessions(self, tmp_path):
        done = parrot(
            "plan",
            str(ROOT / "recipes/llama-2-7b-24gb.toml"),
            "logs.sessions=none",
            "logs.source=bundled",
            "logs.path=none",
            f"run.folder={tmp_path}",
        )
        assert done.returncode == 0, done.stderr
        rows = [line.split() for line in done.stdout.splitlines() if " to do " in line]
        assert rows[:2] == [["logs", "to", "do", "?"], ["train-ask", "to", "do", "?"]]

    def test_what_train_capo_would_do_in_either_layout(self, tmp_path):
        # Sessions of collect have 2, 3 or 4 turns, those of logs 4: the latest 2 of 1, 2, 3, 3, 3 dependent ones.
        expected = {
            ("capo.layout=tree",): (12, 6, "up to 65 pairs, at most 1,536 tokens a session, 1 epoch"),
            ("capo.layout=tree", "capo.pairs=10"): (10, 5, "up to 10 pairs, at most 1,536 tokens a session, 1 epoch"),
            ("capo.layout=pairs",): (12, 33, "up to 65 pairs, at most 2 x 768 tokens a pair, 1 epoch"),
            ("capo.layout=pairs", "capo.pairs=10"): (10, 5, "up to 10 pairs, at most 2 x 768 tokens a pair, 1 epoch"),
        }
        for overrides, wanted in expected.items():
            row = planned(outlook(tmp_path, *overrides), "train-capo")
            assert (row.sessions, row.steps, row.size) == wanted

    def test_what_is_written_is_counted_as_train_capo_will_use_it(self, tmp_path):
        kinds = 'negatives.kinds=["neglect","random"]', 'capo.turns_with=["neglect","random"]', 'capo.kinds=["random"]'
        look = outlook(tmp_path, *kinds)
        leave(look, "negatives", {"counts": {"trees": 3, "turns": 4}})
        both = hung((2, ("neglect", "random")), (3, ("neglect", "random"))), hung((4, ("random", "neglect")))
        write(look.recipe.folder("negatives") / "trees.jsonl", *both, hung((2, ("random",))))
        row = planned(outlook(tmp_path, *kinds), "train-capo")
        assert (row.sessions, row.size.split(",")[0]) == (2, "up to 3 pairs")

    def test_an_override_in_the_recipes_place_is_one_of_the_demo(self, tmp_path):
        done = parrot("plan", "capo.accumulation=1", f"run.folder={tmp_path}")
        assert done.stdout.startswith("demo: ")
        (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("train-capo")][:1]
        assert row[-2] == "12"
