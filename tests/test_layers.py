"""Imports go strictly down, and everything but the training room works where no torch is installed."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w

from parrot_lite.recipe_file import load
from parrot_lite.store import read
from parrot_lite.types import Dialogue, Judgment, Rejected, SessionTree

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "parrot_lite"

# The picture, bottom first. A room may import what lies in rows above its own in this list, and nothing else.
LAYERS = [
    {"", "data"},  # the package itself, its version; its data
    {"errors", "types", "progress", "table", "words"},
    {"hub", "recipe"},
    {"recipe_file"},
    {"store"},
    {"lm"},
    {"context"},
    {"estimate"},
    {"chat"},
    {"collect", "train", "evaluate"},  # the stages: none imports another
    {"show", "plan", "check", "tables"},
    {"cli"},
    {"__main__"},
]
STAGES = {"collect", "train", "evaluate"}
# What may look into a stage from above. The plan counts pairs, steps and benchmark sessions; it is the
# overview. The check asks the detectors that select turns, and takes its intervals where the tables take theirs.
INTO_STAGES = {
    "cli": "*",
    # A table counts data, looks for leaks and puts evaluations beside each other, with the charts of their reports;
    # what trains, it starts as processes.
    "tables": {
        "parrot_lite.collect.compare",
        "parrot_lite.collect.overlap",
        "parrot_lite.evaluate.bench",
        "parrot_lite.evaluate.charts",
        "parrot_lite.evaluate.conclusions",
        "parrot_lite.evaluate.context_use",
        "parrot_lite.evaluate.estimates",
        "parrot_lite.evaluate.page",
        "parrot_lite.evaluate.records",
        "parrot_lite.evaluate.repetition",
        "parrot_lite.evaluate.scores",
        "parrot_lite.evaluate.statistics",
    },
    "plan": {"parrot_lite.train.dose", "parrot_lite.train.steps", "parrot_lite.evaluate.bench"},
    "check": {"parrot_lite.collect.selection", "parrot_lite.evaluate.statistics"},
}

HEAVY = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate")
NEEDS_TORCH = {
    "parrot_lite.context.likelihood",
    "parrot_lite.lm.attention",
    "parrot_lite.lm.likelihood",
    "parrot_lite.lm.model",
    "parrot_lite.chat.local",
    "parrot_lite.train.capo_trainer",
    "parrot_lite.train.losses",
    "parrot_lite.train.pair_trainer",
    "parrot_lite.train.reference",
    "parrot_lite.train.speaker_trainer",
    "parrot_lite.train.trainer",
    "parrot_lite.evaluate.choices",
    "parrot_lite.evaluate.probe",
    "parrot_lite.evaluate.user_turns",
}


def modules():
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(source):
    """The modules that a source imports, wherever in it: at its top, inside a function, for the type checker alone."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in whole}
    return found


def room(module):
    return module.removeprefix("parrot_lite").removeprefix(".").partition(".")[0]


def layer(module):
    (number,) = [number for number, rooms in enumerate(LAYERS) if room(module) in rooms]
    return number


def objection(module, imported):
    """What is wrong with this import of ours, if anything."""
    if room(module) == room(imported):
        return None
    if layer(imported) >= layer(module):
        return f"{module} imports {imported}, which does not lie below it"
    allowed = INTO_STAGES.get(room(module), set())
    if room(imported) in STAGES and allowed != "*" and imported not in allowed:
        return f"{module} imports {imported} from inside a stage"
    return None


def test_every_room_is_in_the_picture():
    assert {room(module) for module in MODULES} == set().union(*LAYERS)
    assert sum(map(len, LAYERS)) == len(set().union(*LAYERS))
    assert len(MODULES) > 30  # the files were found


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    ours = {name for name in imports(MODULES[module].read_text()) if name.split(".")[0] == "parrot_lite"}
    assert ours <= set(MODULES)
    assert [text for name in sorted(ours) if (text := objection(module, name))] == []


@pytest.mark.parametrize("name", ["plan", "check", "tables"])
def test_every_allowance_is_used(name):
    files = [path for module, path in MODULES.items() if room(module) == name]
    assert set().union(*(imports(path.read_text()) for path in files)) >= INTO_STAGES[name]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("parrot_lite.types", "import parrot_lite.errors"),
        ("parrot_lite.progress", "from parrot_lite import errors"),
        ("parrot_lite.recipe", "from parrot_lite.store import read"),
        ("parrot_lite.store", "def f():\n    from parrot_lite.chat import Chat"),
        ("parrot_lite.lm.tokens", "from parrot_lite.chat import local"),
        ("parrot_lite.chat.local", "if TYPE_CHECKING:\n    from parrot_lite.train.sft import run"),
        ("parrot_lite.collect.loop", "from parrot_lite.evaluate import play"),
        ("parrot_lite.train.capo", "from parrot_lite.collect.negatives import run"),
        ("parrot_lite.evaluate.probe", "import parrot_lite.train.trainer"),
        ("parrot_lite.show", "from parrot_lite.train.steps import steps_of"),
        ("parrot_lite.plan", "from parrot_lite.evaluate import judge"),
        ("parrot_lite.plan", "from parrot_lite import show"),
        ("parrot_lite.evaluate", "from parrot_lite.cli import main"),
    ],
)
def test_the_picture_refuses(module, source):
    assert any(objection(module, name) for name in imports(source))


def test_imports_are_found_wherever_they_stand():
    source = "import os\ndef f():\n    if x:\n        from parrot_lite import show as room, __version__\n"
    assert imports(source) == {"os", "parrot_lite.show", "parrot_lite"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment where importing torch and its family fails as it does where they are not installed."""
    folder = tmp_path_factory.mktemp("no-torch")
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {HEAVY!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Refuse)\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "COLUMNS": "200"}


def python(environment, *arguments, cwd=ROOT):
    return subprocess.run([sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True)


def parrot(environment, *arguments):
    return python(environment, "-m", "parrot_lite", *arguments)


def test_the_modules_that_need_torch_are_exactly_these(bare):
    code = (
        "import importlib, json, sys\n"
        "refused = {}\n"
        f"for name in {list(HEAVY) + list(MODULES)!r}:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        refused[name] = error.name\n"
        "print(json.dumps(refused))\n"
    )
    done = python(bare, "-c", code)
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout)
    assert {name: refused.pop(name, None) for name in HEAVY} == {name: name for name in HEAVY}  # the fixture works
    assert set(refused) == NEEDS_TORCH
    assert {missing.split(".")[0] for missing in refused.values()} <= set(HEAVY)


def test_help_without_torch(bare):
    done = parrot(bare, "--help")
    assert done.returncode == 0, done.stderr
    assert "train-capo" in done.stdout


QUERIES = [
    "Why is it so cold there?",
    "What does that cost in winter?",
    "Could they do this with a smaller garden?",
    "How long did she wait for them?",
    "Which of those would you take instead?",
    "Is this older than the others?",
    "Who told him about it?",
    "Where would you put these at night?",
]
ANSWERS = ["In the evening it is.", "A little, where the wind comes from the sea.", "Forty, as far as anyone knows."]
VERDICTS = ["Fits. Rating: [[7]]", "Vague. Rating: [[4]]"]
BENCH = [
    {"question_id": 1, "category": "writing", "turns": ["Write a line.", "Shorten it.", "Now in French."]},
    {"question_id": "b", "category": "math", "turns": ["What is 2 + 2?", "Double that."], "reference": ["4", "8"]},
]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """The demo with scripted speakers, bundled logs, a benchmark of its own, and without the probe, in a file."""
    folder = tmp_path_factory.mktemp("rehearsal")

    def speaker(name, lines):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return {"kind": "scripted", "path": str(path)}

    # An extending file can replace a table but not remove one, so the demo below it is a copy without [eval.probe].
    demo = tomllib.loads((ROOT / "recipes" / "demo.toml").read_text())
    del demo["eval"]["probe"]
    (folder / "demo.toml").write_text(tomli_w.dumps(demo))
    (folder / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in BENCH))
    answering = speaker("answerer", ANSWERS)
    above = {
        "extends": "demo.toml",
        "run": {"folder": str(folder / "runs")},
        "logs": {"source": "bundled"},
        "collect": {"asker": speaker("asker", QUERIES), "answerer": answering},
        "negatives": {"writer": speaker("writer", ["No idea at all.", "What is the time?", "Perhaps a tart."])},
        "eval": {
            "bench": str(folder / "question.jsonl"),
            "models": {"base": answering, "sft": answering, "capo": speaker("capo", ANSWERS[::-1])},
            "judge": {"chat": speaker("judge", VERDICTS)},
            "resamples": 100,
        },
    }
    path = folder / "rehearsal.toml"
    path.write_text(tomli_w.dumps(above))
    return path


def test_collection_and_evaluation_run_without_torch(bare, rehearsal):
    recipe = load(rehearsal)
    for stage in ("logs", "collect", "negatives", "eval"):
        done = parrot(bare, stage, str(rehearsal))
        assert done.returncode == 0, done.stderr
        assert (recipe.folder(stage) / "manifest.json").exists()

    sessions = list(read(recipe.folder("collect") / "dialogues.jsonl", Dialogue))
    rejected = list(read(recipe.folder("collect") / "rejected.jsonl", Rejected))  # scripted queries repeat
    assert sessions
    assert len(sessions) + len(rejected) == recipe.collect.sessions
    assert all(2 <= len(session.answers) <= 5 and session.due == "user" for session in sessions)
    assert {answer for session in sessions for answer in session.answers} == set(ANSWERS)

    trees = list(read(recipe.folder("negatives") / "trees.jsonl", SessionTree))
    assert {tree.dialogue.source for tree in trees} >= {"collect:bundled"}
    kinds = {branch.negative.kind for tree in trees for branch in tree.branches}
    assert kinds == {"neglect", "hallucination", "misunderstanding"}

    judgments = list(read(recipe.folder("eval") / "judgments.jsonl", Judgment))
    turns = [(1, 1), (1, 2), (1, 3), ("b", 1), ("b", 2)]
    expected = {(model, str(name), turn) for model in ("base", "sft", "capo") for name, turn in turns}
    assert {(one.model, one.dialogue, one.turn) for one in judgments} == expected
    assert len(judgments) == len(expected)
    assert {one.score for one in judgments} <= {7.0, 4.0}
    table = done.stdout
    for model in ("base", "sft", "capo"):
        assert any(line.split()[:1] == [model] and "5/5 judged" in line for line in table.splitlines())

    again = parrot(bare, "eval", str(rehearsal))
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    report = parrot(bare, "report", str(rehearsal))
    assert again.stdout == table
    assert report.stdout.startswith(table[: table.index("Judge score: differences")])
    assert set(table.splitlines()) < set(report.stdout.splitlines())  # which has the other tables as well


def test_training_without_torch_says_what_to_install(bare, rehearsal):
    assert parrot(bare, "logs", str(rehearsal)).returncode == 0
    done = parrot(bare, "train-ask", str(rehearsal))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("parrot: ")]
    assert "in the checkout: pip install '.[train]'" in line
    assert "Traceback" not in done.stderr
