"""Recipes: every shipped one is parsed; a broken one is refused in one line that names file, key and way out."""

import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from parrot_lite.errors import UserError
from parrot_lite.recipe import SECTION, Gguf, Local, Price, Recipe, Scripted, Section, Server, dump
from parrot_lite.recipe_file import load

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
DEMO = RECIPES / "demo.toml"
TOP = ["demo", "llama-2-13b-24gb", "llama-2-13b-48gb", "llama-2-7b-24gb", "mini", "paper-13b", "parrot-40k"]


PRICE = Price(input=1.0, output=2.0)


def refusal(path, *overrides):
    with pytest.raises(UserError) as caught:
        load(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def child(folder, text, name="child.toml", parent="demo.toml"):
    """A recipe in ``folder`` that extends a copy of the demo there."""
    (folder / "demo.toml").write_text(DEMO.read_text(encoding="utf-8"), encoding="utf-8")
    path = folder / name
    path.write_text(f'extends = "{parent}"\n{text}', encoding="utf-8")
    return path


class TestShippedRecipes:
    def test_their_count(self):
        assert sorted(path.stem for path in RECIPES.glob("*.toml")) == TOP
        # A table's rows are overrides, not recipes; whatever else lies deeper has to load as a recipe, too.
        deeper = {path.relative_to(RECIPES).parts[0] for path in RECIPES.rglob("*.toml")} - {f"{n}.toml" for n in TOP}
        assert deeper <= {"tables", "judges"}
        assert len(list((RECIPES / "judges").glob("*.toml"))) == 5

    @pytest.mark.parametrize("name", TOP)
    @pytest.mark.parametrize("judge", sorted((RECIPES / "judges").glob("*.toml")), ids=lambda path: path.stem)
    def test_every_judge_fits_every_recipe(self, tmp_path, name, judge):
        mine = tmp_path / "mine.toml"
        mine.write_text(f'extends = ["{RECIPES}/{name}.toml", "{judge}"]\n', encoding="utf-8")
        recipe, plain = load(mine), load(RECIPES / f"{name}.toml")
        part = tomllib.loads(judge.read_text(encoding="utf-8"))
        assert set(part) == {"eval"}
        assert set(part["eval"]) == {"judge"}
        for key, value in part["eval"]["judge"].items():
            found = recipe.eval.judge.model_dump()[key]
            assert value.items() <= found.items() if key == "chat" else found == value
        others = [one.model_dump(exclude={"name": True, "eval": {"judge"}}) for one in (recipe, plain)]
        assert others[0] == others[1]

    @pytest.mark.parametrize("name", TOP)
    def test_each_loads_and_dumps_and_loads_back(self, name):
        recipe = load(RECIPES / f"{name}.toml")
        assert recipe.name == name
        for stage in SECTION:
            resolved = recipe.resolved(stage)
            assert tomllib.loads(dump(resolved)) == resolved
            assert resolved["run"] == {"seed": 0}
            assert SECTION[stage] in resolved

    @pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: path.stem)
    def test_each_file_is_toml_that_says_what_it_is(self, path):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ")
        assert tomllib.loads(text)

    def test_13b_on_24_gb_is_7b_on_24_gb_but_for_what_it_says(self):
        small, large = (load(RECIPES / f"llama-2-{size}-24gb.toml").model_dump() for size in ("7b", "13b"))
        assert large["model"].pop("base") == "meta-llama/Llama-2-13b-hf"
        assert small["model"].pop("base") == "meta-llama/Llama-2-7b-hf"
        assert [large[section].pop("max_tokens") for section in ("ask", "sft", "capo")] == [2048, 2048, 1536]
        assert [small[section].pop("max_tokens") for section in ("ask", "sft", "capo")] == [4096, 4096, 3072]
        for recipe, batch in ((small, 4), (large, 2)):
            assert recipe["collect"]["asker"].pop("batch") == batch
            assert [model.pop("batch") for model in recipe["eval"]["models"].values()] == [batch] * 3
            recipe.pop("name")
        assert [recipe["capo"].pop("tree_tokens") for recipe in (small, large)] == [6144, 3072]
        assert small == large

    def test_parrot_40k_is_7b_with_the_papers_seeds(self):
        base, paper = (load(RECIPES / f"{name}.toml").model_dump() for name in ("llama-2-7b-24gb", "parrot-40k"))
        seeds = paper["collect"].pop("seeds")
        assert [(one["name"], one["source"], one["sessions"]) for one in seeds] == [
            ("sharegpt", "logs", 20000),
            ("ultrachat", "hub", 20000),
        ]
        assert [one["source"] for one in base["collect"].pop("seeds")] == ["logs"]
        assert {base.pop("name"), paper.pop("name")} == {"llama-2-7b-24gb", "parrot-40k"}
        assert paper == base

    def test_paper_13b_has_the_papers_sizes(self):
        paper, seeds = load(RECIPES / "paper-13b.toml"), load(RECIPES / "parrot-40k.toml").collect.seeds
        assert paper.model == load(RECIPES / "llama-2-13b-48gb.toml").model
        assert paper.collect.seeds == seeds
        assert (paper.logs.sessions, paper.collect.sessions, paper.collect.max_turns) == (70_000, 40_000, 10)
        assert {s.max_tokens for s in (paper.ask, paper.sft, paper.capo)} == {4096}
        assert {s.epochs for s in (paper.ask, paper.sft)} == {3.0}
        queries = paper.negatives.sessions * paper.negatives.turns_per_session
        assert (queries, queries * len(paper.negatives.wanted)) == (10_000, 30_000)
        assert (paper.capo.beta, paper.capo.epochs, paper.capo.sft_weight, paper.capo.dpo_weight) == (
            0.1,
            1.0,
            0.0,
            1.0,
        )

    def test_what_parrot_40k_shows_in_comments_holds(self, tmp_path):
        lines = (RECIPES / "parrot-40k.toml").read_text(encoding="utf-8").splitlines()
        shown = [line.lstrip("# ") for line in lines if re.match(r"# (\[|[a-z]+ = )", line)]
        parent, mine = json.dumps(str(RECIPES / "parrot-40k.toml")), tmp_path / "mine.toml"
        keys = [line for line in shown if not line.startswith("benchmarks")]
        assert len(keys) == len(shown) - 1
        mine.write_text("\n".join([f"extends = {parent}", *keys, "[collect]", shown[0]]), encoding="utf-8")
        recipe = load(mine)
        assert (recipe.prices["Qwen/Qwen2.5-7B-Instruct"].output, recipe.budget.money) == (0.0, 200.0)
        assert recipe.collect.benchmarks == ("data/mt_bench/question.jsonl",)
        # A budget needs the price of every server's model.
        served = {one.model for one in (recipe.collect.answerer, recipe.negatives.writer, recipe.eval.judge.chat)}
        assert set(recipe.prices) == served

    @pytest.mark.parametrize("name", [name for name in TOP if name not in ("demo", "mini")])
    def test_real_runs_take_the_papers_32_sessions_or_pairs_a_step(self, name):
        recipe = load(RECIPES / f"{name}.toml")
        assert {s.batch * s.accumulation for s in (recipe.ask, recipe.sft)} == {32}
        pairs = recipe.negatives.turns_per_session * len(recipe.negatives.kinds)
        assert recipe.capo.batch * recipe.capo.accumulation * pairs == pytest.approx(32, abs=pairs / 2)

    def test_their_adapters_are_stages_of_the_recipe(self):
        for name in TOP:
            recipe = load(RECIPES / f"{name}.toml")
            speakers = [recipe.collect.asker, recipe.collect.answerer, recipe.negatives.writer]
            speakers += recipe.eval.models.values()
            adapters = {speaker.adapter for speaker in speakers if isinstance(speaker, Local)}
            assert adapters == {None, "train-ask", "train-sft", "train-capo"}


REFUSALS = {
    "unknown key": ("capo.bta=0.2", "unknown key 'capo.bta'", "Did you mean 'capo.beta'?"),
    "unknown section": ("colect.in_flight=2", "unknown key 'colect'", "Did you mean 'collect'?"),
    "unknown key like no other": ("run.zzz=1", "unknown key 'run.zzz'", "Known here: folder, places, seed"),
    "unknown key inside a section's table": ("sft.lora.alfa=1", "unknown key 'sft.lora.alfa'", "'sft.lora.alpha'"),
    "unknown key inside an optional section": (
        "eval.judge.promt='x'",
        "unknown key 'eval.judge.promt'",
        "'eval.judge.prompt'",
    ),
    "unknown key inside a speaker": (
        "collect.asker.bach=3",
        "unknown key 'collect.asker.bach'",
        "'collect.asker.batch'",
    ),
    "unknown key inside a model": (
        "eval.models.sft.adaptr='x'",
        "unknown key 'eval.models.sft.adaptr'",
        "'eval.models.sft.adapter'",
    ),
    "unknown key inside a judge's speaker": (
        "eval.judge.chat.pth='x'",
        "unknown key 'eval.judge.chat.pth'",
        "'eval.judge.chat.path'",
    ),
    "a key of another kind": ("collect.asker.base_url='x'", "unknown key 'collect.asker.base_url'", "adapter, batch"),
    "wrong type": ("capo.beta='high'", "'capo.beta' = \"high\"", "valid number"),
    "a number in quotes": ("sft.batch='2'", "'sft.batch' = \"2\"", "valid integer"),
    "true is no number": ("run.seed=true", "'run.seed' = true", "valid integer"),
    "one is not true": ("model.load_in_4bit=1", "'model.load_in_4bit' = 1", "Write true or false"),
    "a word for true": ("model.load_in_4bit=False", "'model.load_in_4bit' = \"False\"", "Write true or false"),
    "a whole number with a point": ("budget.calls=1e6", "'budget.calls' = 1000000.0", "Write 1000000"),
    "a key of another section": ("sft.beta=0.2", "unknown key 'sft.beta'", "Write 'capo.beta'"),
    "a key without its section": ("beta=0.2", "unknown key 'beta'", "Write 'capo.beta'"),
    "a key of several sections": (
        "epochs=2",
        "unknown key 'epochs'",
        "Write 'ask.epochs', 'sft.epochs' or 'capo.epochs'",
    ),
    "a key of a section's table": ("sft.r=8", "unknown key 'sft.r'", "Write 'sft.lora.r'"),
    "a misspelt key without its section": ("betta=0.2", "unknown key 'betta'", "Did you mean 'capo.beta'?"),
    "no key of a price": ("prices.'a/b'={input=1, output=2, inptu=2}", "'prices.a/b.inptu'", "'prices.a/b.input'"),
    "a share of a whole number": ("run.seed=1.5", "'run.seed' = 1.5", "valid integer"),
    "a value for a section": ("capo=3", "'capo' = 3", "object"),
    "a string for a list": ("sft.data=logs", "'sft.data' = \"logs\": a list is wanted", 'Write ["logs"]'),
    "too low": ("capo.beta=0", "'capo.beta' = 0", "greater than 0"),
    "too high": ("sft.warmup=1.5", "'sft.warmup' = 1.5", "less than or equal to 1"),
    "no number": ("sft.learning_rate=nan", "'sft.learning_rate' = NaN", "input should be"),
    "not one of the choices": ("sft.schedule=cosin", "'sft.schedule' = \"cosin\"", "'cosine', 'linear' or 'constant'"),
    "not one of the negatives": (
        "capo.kinds=['neglct']",
        "the first of 'capo.kinds' = \"neglct\"",
        "'neglect', 'hallucination'",
    ),
    "none of the negatives": ("negatives.kinds=[]", "'negatives.kinds' = []", "at least 1"),
    "bad kind": (
        "collect.asker.kind=gpt",
        "'collect.asker': no speaker of kind 'gpt'",
        "'server', 'gguf', 'local' or 'scripted'",
    ),
    "misspelt kind": ("collect.asker.kind=servr", "no speaker of kind 'servr'", "Did you mean 'server'?"),
    "a history twice": ("eval.history=['own', 'own']", "history names one twice", "Name each once"),
    "no such history": ("eval.history=['gold']", "the first of 'eval.history' = \"gold\"", "'own', 'reference' or"),
    "no kind": ("eval.models.new={batch=2}", "'eval.models.new' has no kind", "Add kind = 'server', "),
    "no such source": (
        "collect.seeds=log",
        "'collect.seeds': \"log\" is no source",
        "Use bundled, logs, or a text file ending in .txt",
    ),
    "what a shell leaves of a list": ("collect.seeds=[{source=logs}]", "not a list or table of TOML", "quotes"),
    "what a shell leaves of a table": ("prices.m={input=1,output=x}", "not a list or table of TOML", "quotes"),
    "an entry of a list": (
        "collect.seeds=[{source='logs'}, {source='text'}]",
        "the second of 'collect.seeds': source 'text' needs a path",
        "Add path",
    ),
    "an unknown key of a list's entry": (
        "collect.seeds=[{source='logs', nam='y'}]",
        "unknown key 'nam' of the first of 'collect.seeds'",
        "Did you mean 'name'?",
    ),
    "two keys that do not go together": (
        "collect.min_turns=9",
        "[collect] min_turns = 9 is above max_turns = 4",
        "Lower it, or raise max_turns",
    ),
    "a key that needs another": (
        "negatives.check_worse=judge",
        "[negatives] check_worse = judge needs a judge",
        "Set negatives.judge",
    ),
    "a negative that nobody writes": (
        "negatives.kinds=['neglect', 'other-turn']",
        "[negatives] kinds has other-turn, which is never written",
        "Name it in capo.kinds alone",
    ),
    "a chosen answer that nobody wrote": (
        "capo={kinds=['other-turn'], chosen='same-writer'}",
        "[capo] chosen = same-writer has no answer by the writer of other-turn",
        "Leave one of them out",
    ),
    "two seeds of one name": (
        "collect.seeds=[{source='logs'}, {source='logs'}]",
        "[collect] two seeds are called 'logs'",
        "Give one of them another name",
    ),
    "misspelt data": ("sft.data=['logs', 'colect']", "the second of 'sft.data': \"colect\"", "Did you mean 'collect'?"),
    "data like no stage": ("negatives.data=['zzz']", "neither a stage with sessions nor a file", "a JSONL file"),
    "misspelt adapter": (
        "eval.models.sft.adapter=train-stf",
        "'eval.models.sft.adapter': \"train-stf\" is neither a training stage nor a folder",
        "Did you mean 'train-sft'?",
    ),
    "a string for a speaker": ("collect.asker=local", "'collect.asker' = \"local\"", "object"),
    "date": ("logs.path=2023-10-11", "a date or time stands where none can be", "Quote it"),
    "name": ("name=mine", "'name' is taken from the file's name", "rename the file"),
}


@pytest.mark.parametrize(("override", "what", "hint"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals_name_file_key_and_way_out(override, what, hint):
    message = refusal(DEMO, override)
    whole = override in ("name=mine", "logs.path=2023-10-11")  # seen before anything is validated
    assert message.startswith(f"{DEMO}: " if whole else f"override {override}: ")
    assert what in message
    assert "value error" not in message.lower()
    assert "more)" not in message  # each is one mistake
    assert hint in message


def test_a_judge_that_cannot_give_such_verdicts_is_refused_at_once():
    local = 'eval.judge.chat={kind="local"}'
    assert "verdict = json needs a server" in refusal(DEMO, local, "eval.judge.verdict=json")
    batch = 'eval.judge.chat={kind="server", base_url="http://127.0.0.1:1/v1", model="m", batch=true}'
    assert "cannot be asked for in a batch" in refusal(DEMO, batch, "eval.judge.verdict=expected")
    assert load(DEMO, [local, "eval.judge.verdict=expected"]).eval.judge.verdict == "expected"


def test_the_same_refusals_come_from_a_file(tmp_path):
    path = child(tmp_path, "[capo]\nbta = 0.2\n")
    assert refusal(path) == f"{path}: unknown key 'capo.bta'. Did you mean 'capo.beta'?"


def test_missing_keys_are_named(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text('[model]\nbase = "x"\n')
    assert refusal(path).startswith(f"{path}: 'logs' is missing (and 6 more). Add logs = ")
    message = refusal(DEMO, "collect.asker={ kind = 'gguf' }")
    assert message.endswith("}: 'collect.asker.path' is missing. Add path = ... to it")


def test_two_mistakes_are_counted():
    assert "(and 1 more)" in refusal(DEMO, "capo.bta=0.2", "sft.btch=1")
    assert "(and 1 more)" in refusal(DEMO, "negatives.kinds=['x', 'y']")


def test_what_follows_from_a_mistake_is_not_counted():
    assert "more)" not in refusal(DEMO, 'negatives.how=["prompt"]')  # two defaults wait for it, and the list is empty
    assert "more)" not in refusal(
        DEMO, "collect.asker={ kind='server', model='m', base_url=3 }"
    )  # neither text nor list


class TestWhoseMistake:
    def test_the_overrides_that_made_it(self):
        assert refusal(DEMO, "run.seed=1", "capo.betta=0.2").startswith("override capo.betta=0.2: unknown key")
        assert refusal(DEMO, "capo.beta=0", "run.seed=1").startswith("override capo.beta=0: ")
        assert refusal(DEMO, "capo={ beta=0 }").startswith("override capo={ beta=0 }: ")
        assert refusal(DEMO, "collect.asker.kind=servr").startswith("override collect.asker.kind=servr: ")
        both = refusal(DEMO, "collect.max_turns=3", "collect.min_turns=9", "collect.redraws=2")
        assert both.startswith("override collect.min_turns=9: ")

    def test_the_files_where_no_override_did(self, tmp_path):
        path = child(tmp_path, "[collect]\nmin_turns = 9\n")
        assert refusal(path, "collect.redraws=2", "capo.beta=0.2").startswith(f"{path}: [collect] min_turns = 9 ")
        assert refusal(child(tmp_path, "[capo]\nbeta = 0\n"), "capo.batch=2").startswith(f"{path}: 'capo.beta' = 0")


def test_paths_as_data_adapters_and_seeds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for override in ("sft.data=['a/b', 'c.jsonl', 'mine']", "eval.models.sft.adapter=mine", "collect.seeds=mine.txt"):
        load(DEMO, [override])  # whether a file is there is for plan and the stage to say
    assert load(DEMO, ["collect.seeds=a/b"]).collect.seeds[0].path == "a/b"
    (tmp_path / "mine").rmdir()
    assert "neither" in refusal(DEMO, "sft.data=['mine']")
    assert "neither" in refusal(DEMO, "eval.models.sft.adapter=mine")


def test_a_misspelt_key_comes_before_the_missing_one_that_it_was_meant_to_be():
    message = refusal(DEMO, "collect.answerer={ kind = 'server', base_url = 'x', modle = 'm' }")
    assert message.endswith("unknown key 'collect.answerer.modle' (and 1 more). Did you mean 'collect.answerer.model'?")


def test_a_model_that_is_named_like_a_kind_keeps_its_name():
    assert "unknown key 'eval.models.local.bach'" in refusal(DEMO, "eval.models.local={ kind = 'local', bach = 3 }")


def test_infinity_is_no_number():
    assert "'sft.learning_rate' = Infinity" in refusal(DEMO, "sft.learning_rate=inf")


def test_a_file_that_is_no_toml(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('[model]\nbase = "x\n')
    assert f"{path}: not valid TOML" in refusal(path)
    assert "line 2" in refusal(path)
    path.write_bytes(b'[model]\nbase = "\xff"\n')
    assert f"{path}: not valid TOML" in refusal(path)


def test_a_file_that_is_not_there(tmp_path):
    assert refusal(RECIPES / "dmo.toml") == f"{RECIPES / 'dmo.toml'}: no such recipe. Did you mean {DEMO}?"
    assert "no such recipe" in refusal(tmp_path / "zzz.toml")
    assert f"{tmp_path}: cannot be read" in refusal(tmp_path)


class TestExtends:
    def test_a_chain_lays_each_file_over_the_one_below(self, tmp_path):
        child(tmp_path, "[capo]\nbeta = 0.3\nbatch = 2\n", "a.toml")
        child(tmp_path, "[capo]\nbeta = 0.4\n[run]\nseed = 5\n", "b.toml", "a.toml")
        recipe = load(tmp_path / "b.toml", ["capo.batch=8"])
        demo = load(DEMO)
        assert (recipe.capo.beta, recipe.capo.batch, recipe.run.seed) == (0.4, 8, 5)
        assert recipe.name == "b"
        assert recipe.folder("logs") == Path("runs/b/logs")
        same = {"name": "demo", "capo": demo.capo, "run": demo.run}
        assert recipe.model_copy(update=same) == demo

    def test_a_file_that_only_extends_is_its_parent_under_another_name(self, tmp_path):
        recipe = load(child(tmp_path, ""))
        assert recipe.model_copy(update={"name": "demo"}) == load(DEMO)

    def test_the_path_is_relative_to_the_file_that_says_it(self, tmp_path, monkeypatch):
        (tmp_path / "below").mkdir()
        path = child(tmp_path, "", "below/child.toml", "../demo.toml")
        monkeypatch.chdir("/")
        assert load(path).name == "child"

    def test_a_list_replaces_a_list(self, tmp_path):
        assert load(child(tmp_path, '[sft]\ndata = ["collect"]\n')).sft.data == ("collect",)

    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_a_circle_is_refused(self, tmp_path, length):
        for number in range(length):
            (tmp_path / f"{number}.toml").write_text(f'extends = "{(number + 1) % length}.toml"\n')
        assert "the chain of 'extends' comes back to this file" in refusal(tmp_path / "0.toml")

    def test_a_missing_parent_is_named(self, tmp_path):
        path = child(tmp_path, "", parent="dmo.toml")
        assert str(tmp_path / "dmo.toml") in refusal(path)
        assert f"Did you mean {tmp_path / 'demo.toml'}?" in refusal(path)

    def test_extends_is_a_string(self, tmp_path):
        path = tmp_path / "x.toml"
        path.write_text("extends = 3\n")
        assert refusal(path) == f"{path}: 'extends' must be a file name in quotes, or a list of such"
        path.write_text('extends = ["demo.toml", 3]\n')
        assert refusal(path) == f"{path}: 'extends' must be a file name in quotes, or a list of such"

    def test_of_several_parents_the_later_overrides_the_earlier(self, tmp_path):
        (tmp_path / "one.toml").write_text("[run]\nseed = 1\nfolder = 'one'\n")
        (tmp_path / "two.toml").write_text("[run]\nseed = 2\n[capo]\nbeta = 0.3\n")
        path = child(tmp_path, "[capo]\nmax_tokens = 99\n")
        path.write_text(path.read_text().replace('"demo.toml"', '["demo.toml", "one.toml", "two.toml"]'))
        recipe = load(path)
        assert (recipe.run.seed, recipe.run.folder) == (2, "one")
        assert (recipe.capo.beta, recipe.capo.max_tokens) == (0.3, 99)

    def test_another_kind_replaces_the_whole_speaker(self, tmp_path):
        path = child(
            tmp_path,
            '[collect]\nanswerer = { kind = "local", batch = 2 }\n[eval]\nmodels.sft = { kind = "gguf", path = "f" }',
        )
        recipe = load(path)
        assert recipe.collect.answerer == Local(kind="local", batch=2)
        assert recipe.eval.models["sft"] == Gguf(kind="gguf", path="f")
        assert recipe.eval.models["capo"] == load(DEMO).eval.models["capo"]

    def test_the_same_kind_or_none_changes_only_what_it_says(self, tmp_path):
        for kind in ("", 'kind = "local", '):
            recipe = load(child(tmp_path, f"[collect]\nasker = {{ {kind}batch = 2 }}\n"))
            assert recipe.collect.asker == Local(kind="local", adapter="train-ask", batch=2)


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "get", "value"),
        [
            ("capo.beta=0.2", lambda r: r.capo.beta, 0.2),
            ("capo.beta=1", lambda r: r.capo.beta, 1.0),
            (" capo.beta = 2e-1", lambda r: r.capo.beta, 0.2),
            ("collect.sessions=1_000", lambda r: r.collect.sessions, 1000),
            ("model.load_in_4bit=false", lambda r: r.model.load_in_4bit, False),
            ("model.base=meta-llama/Llama-2-7b-hf", lambda r: r.model.base, "meta-llama/Llama-2-7b-hf"),
            ('model.base="a b"', lambda r: r.model.base, "a b"),
            ("model.base=./a=b.gguf", lambda r: r.model.base, "./a=b.gguf"),
            ("sft.data=['logs', 'x.jsonl']", lambda r: r.sft.data, ("logs", "x.jsonl")),
            ('prices."Qwen/Qwen2.5-7B"={input=1, output=2}', lambda r: r.prices, {"Qwen/Qwen2.5-7B": PRICE}),
            ("prices.'Qwen/Qwen2.5-7B' = {input=1, output=2}", lambda r: r.prices, {"Qwen/Qwen2.5-7B": PRICE}),
            ("sft.lora.r=64", lambda r: (r.sft.lora.r, r.sft.lora.alpha), (64, 32)),
            ("collect.asker.batch=2", lambda r: r.collect.asker, Local(kind="local", adapter="train-ask", batch=2)),
            ("eval.models.new={kind='local'}", lambda r: list(r.eval.models), ["base", "sft", "capo", "new"]),
            (
                "negatives.writer={kind='scripted', path='x'}",
                lambda r: r.negatives.writer,
                Scripted(kind="scripted", path="x"),
            ),
        ],
    )
    def test_one(self, override, get, value):
        found = get(load(DEMO, [override]))
        assert found == value
        assert type(found) is type(value)
        assert get(load(DEMO)) != value

    def test_nothing_else_changes(self):
        demo, changed = load(DEMO), load(DEMO, ["sft.lora.r=64"])
        lora = demo.sft.lora.model_copy(update={"r": 64})
        assert changed == demo.model_copy(update={"sft": demo.sft.model_copy(update={"lora": lora})})

    def test_the_last_one_wins(self):
        assert load(DEMO, ["run.seed=1", "run.seed=2"]).run.seed == 2

    def test_a_speaker_key_by_key(self):
        recipe = load(DEMO, [f"collect.asker.{text}" for text in ("kind=server", "base_url=http://x/v1", "model=m")])
        assert recipe.collect.asker == Server(kind="server", base_url="http://x/v1", model="m")

    def test_one_address_or_several(self):
        speaker = "collect.asker={{ kind = 'server', model = 'm', base_url = {} }}"
        one, two = load(DEMO, [speaker.format("'http://x'")]), load(DEMO, [speaker.format("['http://x', 'http://y']")])
        assert (one.collect.asker.addresses, two.collect.asker.addresses) == (("http://x",), ("http://x", "http://y"))
        assert one.resolved("collect") == two.resolved("collect")
        assert "base_url" in refusal(DEMO, speaker.format("[]"))

    def test_none_unsets_an_optional_key(self):
        recipe = load(DEMO, ["logs.sessions=none", "eval.probe=none", "capo.max_steps=3", "capo.max_steps=none"])
        assert (recipe.logs.sessions, recipe.eval.probe, recipe.capo.max_steps) == (None, None, None)
        assert "'model.base' = null" in refusal(DEMO, "model.base=none")

    @pytest.mark.parametrize(
        "override",
        ["capo.beta", "=0.2", "capo..beta=0.2", ".beta=0.2", "capo.=1", ""],
    )
    def test_malformed(self, override):
        assert refusal(DEMO, override) == f"override: '{override}' is not key=value. Write e.g. capo.beta=0.2"

    @pytest.mark.parametrize("override", ["#=1", "prices.a/b={input=1}", "prices.'a=1"])
    def test_malformed_by_its_signs(self, override):
        fix = "Quote what is no word, twice: 'prices.\"a/b\".input=1'"
        assert refusal(DEMO, override) == f"override: '{override}' is not key=value. {fix}"


class TestResolved:
    @pytest.mark.parametrize(
        "override",
        [
            "collect.in_flight=3",
            "collect.asker.batch=2",
            "collect.answerer.threads=1",
            "negatives.writer.cache_mb=7",
            "sft.save_every=9",
            "capo.save_every=9",
            "eval.models.sft.batch=1",
            "eval.resamples=9",
            'run.folder="elsewhere"',
        ],
    )
    def test_what_only_decides_speed_or_place_can_be_turned_in_mid_run(self, override):
        before, after = load(DEMO), load(DEMO, [override])
        assert after != before
        assert all(after.resolved(stage) == before.resolved(stage) for stage in SECTION)

    def test_a_recipe_made_of_the_dumps_decides_the_same(self):
        recipe = load(DEMO)
        everything = {"run": {"folder": recipe.run.folder}}
        for stage in SECTION:
            for section, values in tomllib.loads(dump(recipe.resolved(stage))).items():
                everything.setdefault(section, {}).update(values)
        again = Recipe.model_validate_json(json.dumps({**everything, "name": "demo"}))
        for stage in SECTION:
            assert again.resolved(stage) == recipe.resolved(stage)

    def test_it_holds_the_defaults(self, tmp_path):
        path = tmp_path / "least.toml"
        speaker = '{ kind = "local" }'
        path.write_text(
            f"""
            model.base = "x"
            logs = {{}}
            ask.data = ["logs"]
            collect = {{ asker = {speaker}, answerer = {speaker} }}
            negatives.writer = {speaker}
            sft.data = ["collect"]
            capo = {{}}
            eval.models.base = {speaker}
            """
        )
        capo = load(path).resolved("train-capo")["capo"]
        assert (capo["beta"], capo["epochs"]) == (0.1, 1.0)  # the paper's beta
        assert capo["kinds"] == ["neglect", "hallucination", "misunderstanding"]
        assert "pairs" not in capo  # none = all: TOML has no null
        assert load(path).resolved("collect")["collect"]["asker"] == {"kind": "local"}

    @pytest.mark.parametrize(
        ("override", "touched"),
        [
            ("capo.beta=0.2", {"train-capo"}),
            ("logs.sessions=7", {"logs"}),
            ("ask.epochs=2", {"train-ask"}),
            ("sft.lora.r=8", {"train-sft"}),
            ("eval.resamples=9", set()),
            ("run.seed=1", set(SECTION)),
            ("run.folder=elsewhere", set()),
            # The asker and the evaluated models are local; the writer of the demo's negatives is a GGUF file.
            ("model.template=chatml", {"train-ask", "collect", "train-sft", "train-capo", "eval"}),
        ],
    )
    def test_an_override_touches_only_the_stages_that_read_it(self, override, touched):
        demo, changed = load(DEMO), load(DEMO, [override])
        assert {stage for stage in SECTION if demo.resolved(stage) != changed.resolved(stage)} == touched

    def test_the_model_decides_a_stage_only_where_a_local_speaker_takes_part(self):
        server = "{kind='server', base_url='http://x/v1', model='m'}"
        demo, served = load(DEMO), load(DEMO, [f"collect.asker={server}", f"collect.answerer={server}"])
        assert "model" in demo.resolved("collect")
        assert "model" not in served.resolved("collect")
        assert served.resolved("train-sft") == demo.resolved("train-sft")

    def test_the_name_and_the_way_a_value_was_given_do_not_matter(self, tmp_path):
        path = child(tmp_path, "[capo]\nbeta = 0.2\n")
        for stage in SECTION:
            assert load(path).resolved(stage) == load(DEMO, ["capo.beta=0.2"]).resolved(stage)


def sections(part=Section):
    """Those of recipes: other tests may have imported other files' sections."""
    ours = [below for below in part.__subclasses__() if below.__module__ == Section.__module__]
    return [one for below in ours for one in (below, *sections(below))]


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_key_says_what_turning_it_does(section):
    """A section inside a section is described by its docstring, and so is what one of a kind is."""
    bare = {name for name, field in section.model_fields.items() if not field.description}
    assert section.__doc__
    assert {name for name in bare - {"kind"} if section.model_fields[name].annotation not in sections()} == set()


def test_a_recipe_cannot_be_changed():
    recipe = load(DEMO)
    with pytest.raises(ValueError, match="frozen"):
        recipe.capo.beta = 0.2


def test_a_broken_recipe_stops_the_program_at_once(tmp_path):
    path = child(tmp_path, "[capo]\nbta = 0.2\n")
    seconds = []
    for _ in range(3):  # the machine may be busy with something else
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "parrot_lite", "train-capo", str(path)], cwd=ROOT, capture_output=True, text=True
        )
        seconds.append(time.monotonic() - start)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr == f"parrot: {path}: unknown key 'capo.bta'. Did you mean 'capo.beta'?\n"
        if seconds[-1] < 1:
            break
    assert min(seconds) < 1


def test_none_takes_out_what_an_extended_recipe_has(tmp_path):
    server = '{ kind = "server", base_url = "http://127.0.0.1:8000/v1", model = "none" }'
    path = child(tmp_path, f'[eval]\nprobe = "none"\nmodels.sft = "none"\nmodels.mine = {server}\n')
    recipe = load(path, ["eval.models.capo=none"])
    assert list(recipe.eval.models) == ["base", "mine"]
    assert recipe.eval.models["mine"].model == "none"
    assert recipe.eval.probe is None
    with pytest.raises(UserError, match=r"'eval.models' is empty. Name at least one"):
        load(path, ["eval.models.capo=none", "eval.models.base=none", "eval.models.mine=none"])


@pytest.mark.parametrize(
    ("verdict", "prompts"),
    [("written", ("single", "pair")), ("expected", ("score", "pair-only")), ("json", ("json", "pair-json"))],
)
def test_the_judges_prompts_go_by_the_verdict(tmp_path, verdict, prompts):
    path = child(tmp_path, "[eval.judge]\n")
    judge = 'eval.judge={ chat = { kind = "scripted", path = "x" }, prompt = "single" }'
    recipe = load(path, ["eval.judge=none", judge, f"eval.judge.verdict={verdict}"])
    assert (recipe.eval.judge.prompt, recipe.eval.judge.pair_prompt) == ("single", prompts[1])
    judge = 'eval.judge={ chat = { kind = "scripted", path = "x" } }'
    recipe = load(path, ["eval.judge=none", judge, f"eval.judge.verdict={verdict}"])
    assert (recipe.eval.judge.prompt, recipe.eval.judge.pair_prompt) == prompts


class TestNeeds:
    """Which stages a stage reads, by the recipe's own keys."""

    def test_of_the_demo(self):
        recipe = load(DEMO)
        assert {stage: recipe.needs(stage) for stage in SECTION} == {
            "logs": (),
            "train-ask": ("logs",),
            "collect": ("train-ask",),
            "negatives": ("logs", "collect"),
            "train-sft": ("logs", "collect"),
            "train-capo": ("negatives", "train-sft"),
            "eval": ("logs", "train-sft", "train-capo"),
        }

    @pytest.mark.parametrize(
        ("override", "stage", "needs"),
        [
            ("collect.seeds=logs", "collect", ("logs", "train-ask")),
            ("collect.asker.adapter=none", "collect", ()),
            ('negatives.how=["on-policy"]', "negatives", ("logs", "collect", "train-sft")),
            ('sft.data=["other.jsonl"]', "train-sft", ()),
            (
                'negatives.dependence.judge={kind = "local", adapter = "train-ask"}',
                "negatives",
                ("logs", "train-ask", "collect"),
            ),
            ("eval.probe=none", "eval", ("train-sft", "train-capo")),
        ],
    )
    def test_follows_the_keys(self, override, stage, needs):
        assert load(DEMO, [override]).needs(stage) == needs


def test_changes_stand_over_overrides_and_are_named_in_errors():
    change = {"capo": {"beta": 0.3, "kinds": ["neglect"]}}
    made = load(DEMO, ["capo.beta=0.2", "capo.epochs=2"], {"row one": change})
    assert (made.capo.beta, made.capo.epochs, made.capo.kinds) == (0.3, 2.0, ("neglect",))
    for wrong, text in (
        ({"capo": {"beta": -1}}, "row two: 'capo.beta' = -1: input should be greater than 0"),
        ({"capo": {"betta": 1}}, "row two: unknown key 'capo.betta'. Did you mean 'capo.beta'?"),
        ({"capo": {"dpo_weight": 0}}, "row two: [capo] dpo_weight and sft_weight are both 0"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(text)}"):
            load(DEMO, [], {"row one": change, "row two": wrong})


def test_what_nobody_makes_is_refused():
    assert refusal(DEMO, "eval.probe.split=selection").endswith(
        "eval.probe.split: split = selection has no sessions. Set logs.selection to 2 or more"
    )
    assert load(DEMO, ["eval.probe.split=selection", "logs.selection=2"]).eval.probe.split == "selection"
    assert "Add same-writer to negatives.kinds" in refusal(DEMO, "capo.chosen=same-writer")
    keys = ["capo.chosen=same-writer", 'negatives.kinds=["neglect", "same-writer"]']
    assert "is among kinds as well" in refusal(DEMO, *keys, 'capo.kinds=["same-writer"]')
    assert load(DEMO, keys).capo.chosen == "same-writer"


def test_a_stage_lies_where_it_is_placed():
    made = load(DEMO, ["run.places.train-sft=elsewhere/sft-1"])
    assert made.folder("train-sft") == Path("elsewhere/sft-1")
    assert made.folder("train-capo") == Path("runs/demo/train-capo")
    assert made.resolved("train-sft") == load(DEMO).resolved("train-sft")
    assert load(DEMO, ["run.places.report=elsewhere/report"]).folder("report") == Path("elsewhere/report")
    with pytest.raises(UserError, match=r"run\.places"):
        load(DEMO, ["run.places.train-sfd=elsewhere"])


def test_a_file_can_take_an_adapter_away_again():
    asker = {"collect": {"asker": {"kind": "local", "adapter": "base"}, "prompted": True}}
    made = load(DEMO, [], {"row": asker})
    assert made.collect.asker == Local(kind="local")
    assert made.needs("collect") == ()
