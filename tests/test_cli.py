"""The command line and the Makefile in front of it: one verb a stage, one line an error."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_lite import __version__, cli
from parrot_lite.recipe import SECTION

ROOT = Path(__file__).parents[1]
DEMO = "recipes/demo.toml"
BUNDLED = "parrot_lite/data/sessions.jsonl"
STAGES = ["logs", "train-ask", "collect", "negatives", "train-sft", "train-capo", "eval"]
LOOKING = [
    *("report", "show", "plan", "table", "stats", "asker-report", "judge-check"),
    *("context-check", "overlap", "bench-check", "export-data"),
]
HEAVY = (
    *("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "openai", "llama_cpp"),
    *("matplotlib", "sklearn", "rapidfuzz"),
)

# Runs the program, then says on the last line of standard output which heavy packages it pulled in.
WATCHED = f"""
import atexit, sys
from parrot_lite.cli import main
atexit.register(lambda: print("imported:", *[name for name in {HEAVY!r} if name in sys.modules]))
main()
"""


def run(*command, cwd=ROOT, **environment):
    # Under `make test` a make of ours would be a sub-make, which names the folders that it enters.
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)


def parrot(*arguments, cwd=ROOT):
    return run(sys.executable, "-m", "parrot_lite", *arguments, cwd=cwd)


def imported_by(*arguments):
    done = run(sys.executable, "-c", WATCHED, *arguments)
    assert done.returncode == 0, done.stderr
    *output, last = done.stdout.splitlines()
    assert last.startswith("imported:")
    return output, last.split()[1:]


def makefile():
    """Prerequisites and commands of each target that is no file, by name; ``$(STAMP)`` is the environment."""
    targets = {}
    for line in (ROOT / "Makefile").read_text().splitlines():
        if match := re.fullmatch(r"([a-z-]+):(?!=)\s*(.*?)\s*(?:## .*)?", line):
            name, needs = match.groups()
            targets[name] = (set(needs.split()) - {"$(STAMP)"}, [])
        elif line.startswith("\t") and targets:
            targets[name][1].append(line.strip())
        else:
            name = ""
            targets.setdefault(name, (set(), []))
    targets.pop("", None)
    return targets


class TestVerbs:
    def test_there_is_one_for_each_stage_and_a_few_that_look(self):
        assert list(cli.STAGES) == STAGES == list(SECTION)
        assert [
            command.name or command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands
        ] == [
            *STAGES,
            *LOOKING,
        ]

    def test_help_lists_them_without_importing_anything_heavy(self):
        output, imported = imported_by("--help")
        listed = [words[1] for line in output if (words := line.split())[:1] == ["│"] and len(words) > 2]
        assert [verb for verb in listed if not verb.startswith("--")] == [*STAGES, *LOOKING]
        assert imported == []

    def test_help_has_a_short_name_and_one_pair_of_brackets(self):
        usage = parrot("logs", "-h").stdout.splitlines()[1].strip()
        assert usage.endswith("logs [OPTIONS] [RECIPE] [KEY=VALUE]...")

    @pytest.mark.parametrize("verb", ["eval", "show"])
    def test_help_of_a_verb(self, verb):
        done = parrot(verb, "--help")
        assert done.returncode == 0
        assert "e.g. capo.beta=0.2; keys: parrot_lite/recipe.py" in done.stdout
        assert ("--rerun" in done.stdout) == (verb != "show")

    def test_without_a_verb_help_is_shown(self):
        assert "train-capo" in parrot().stdout

    def test_version(self):
        done = parrot("--version")
        assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


class TestMakefile:
    def test_each_verb_has_a_target_that_calls_it(self):
        targets = makefile()
        for verb in [*STAGES, "report"]:
            rerun = "" if verb == "report" else " $(if $(filter $@,$(RERUN)),--rerun)"
            assert targets[verb][1] == [f"@$(PARROT) {verb} $(RECIPE) $(SET){rerun}"]
        assert targets["plan"][1] == ["@$(PARROT) plan $(RECIPE) $(SET)"]

    def test_prerequisites_are_the_pipeline(self):
        looked = [*STAGES, "report", "asker-report"]
        assert {name: needs for name, (needs, _) in makefile().items() if name in looked} == {
            "logs": set(),
            "train-ask": {"logs"},
            "collect": {"train-ask"},
            "negatives": {"collect"},
            "train-sft": {"collect"},
            "train-capo": {"negatives", "train-sft"},
            "eval": {"train-capo"},
            "report": set(),  # looks at what is there: on a new folder it must not start days of work
            "asker-report": set(),
        }

    def test_one_target_runs_the_whole_chain_in_order_each_stage_once(self):
        done = run("make", "--dry-run", "eval", "RECIPE=x.toml", "SET=capo.beta=0.2 run.seed=1")
        assert done.returncode == 0, done.stderr
        calls = [line.split() for line in done.stdout.splitlines() if line.startswith(".venv/bin/parrot ")]
        assert [call[1] for call in calls] == STAGES
        assert all(call[2:] == ["x.toml", "capo.beta=0.2", "run.seed=1"] for call in calls)

    def test_help_lists_every_target_and_is_what_make_alone_prints(self):
        done = run("make", "help")
        assert done.returncode == 0, done.stderr
        (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        listed = [line.split()[0] for line in done.stdout.splitlines()[2:]]
        assert listed == phony.split()
        assert set(listed) == set(makefile())
        assert all(len(line.split()) > 2 for line in done.stdout.splitlines()[2:])  # each with what it does
        assert run("make").stdout == done.stdout

    def test_tables_go_on_behind_one_that_fails(self):
        done = run("make", "--dry-run", "table", "T=lr", "RECIPE=x.toml", "SET=capo.beta=0.2")
        assert done.stdout.splitlines()[-1] == ".venv/bin/parrot table x.toml lr capo.beta=0.2"
        every = ["make", "--assume-old=.venv/.complete", "tables", "RECIPE=x.toml", "TABLES=one two"]
        done = run(*every, "PARROT=echo")
        assert (done.returncode, done.stdout.splitlines()) == (0, ["table x.toml one", "table x.toml two"])
        failing = run(*every, "PARROT=echo said; test two =")
        assert failing.returncode == 2
        assert failing.stdout.count("said") == 2
        assert set(re.findall(r"\w+", makefile_tables())) == {path.stem for path in TABLES.glob("*.toml")}

    def test_a_stage_to_run_again_is_one_of_them(self):
        done = run("make", "--dry-run", "collect", "RERUN=logs collect")
        reruns = [line.split()[1] for line in done.stdout.splitlines() if line.endswith("--rerun")]
        assert (done.returncode, reruns) == (0, ["logs", "collect"])
        wrong = run("make", "--dry-run", "collect", "RERUN=logs colect")
        assert wrong.returncode == 2
        assert f"RERUN=colect: no such stage; there are {' '.join(STAGES)}" in wrong.stderr

    def test_its_recipe_is_the_programs_default(self):
        assert f"RECIPE ?= {cli.DEMO}\n" in (ROOT / "Makefile").read_text()
        assert cli.DEMO == DEMO


TABLES = ROOT / "recipes" / "tables"


def makefile_tables():
    """What the Makefile takes for all tables."""
    return run("make", "--assume-old=.venv/.complete", "tables", "PARROT=echo").stdout.replace(
        "table recipes/demo.toml", ""
    )


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["eval", "recipes/dmo.toml"], "recipes/dmo.toml: no such recipe. Did you mean recipes/demo.toml?"),
            (["eval", DEMO, "capo.bta=1"], "override capo.bta=1: unknown key 'capo.bta'. Did you mean 'capo.beta'?"),
            (["logs", DEMO, "capo.beta"], "override: 'capo.beta' is not key=value. Write e.g. capo.beta=0.2"),
            (["report", "run.folder=/nonexistent"], None),
            (["stats", "recipes"], "recipes: is a folder. Name a file in it"),
            (["stats", BUNDLED, "--out", "Makefile"], "Makefile: is a file. Name a folder"),
            (["overlap", "recipes"], "recipes: is a folder. Name a file in it"),
            (["overlap", BUNDLED, "--with", "recipes"], "recipes: is a folder. Name a file in it"),
            (["overlap", "/dev/null"], "/dev/null: no query in it. Name a file with data"),
            (["export-data", "recipes", "--out", "x/y.jsonl"], "recipes: is a folder. Name a file in it"),
            (["export-data", BUNDLED, "--out", "recipes"], "recipes: is a folder. Name a file in it"),
            (["export-data", BUNDLED, "--out", "/proc/x/y.jsonl"], None),
            (["context-check", "recipes"], None),
            (["show", "/nonexistent/x.jsonl", "--speaker", "system"], None),
        ],
    )
    def test_one_line_and_exit_code_2(self, arguments, line):
        done = parrot(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("parrot: ")
        assert done.stderr.count("\n") == 1
        assert "defect" not in done.stderr
        if line is not None:
            assert done.stderr == f"parrot: {line}\n"

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_debug_shows_the_traceback_wherever_it_stands(self, place):
        arguments = ["eval", "capo.bta=1"]
        arguments.insert(place, "--debug")
        done = parrot(*arguments)
        assert done.returncode != 0
        assert done.stderr.startswith("Traceback (most recent call last):")
        assert "parrot_lite.errors.UserError: override capo.bta=1: unknown key 'capo.bta'" in done.stderr

    def test_a_wrong_verb(self):
        done = parrot("evaluate")
        assert done.returncode == 2
        assert "No such command 'evaluate'" in done.stderr

    def test_a_changed_recipe_shows_the_difference_below_the_line(self, tmp_path):
        kept = [f"run.folder={tmp_path}", "logs.source=bundled"]
        assert parrot("logs", DEMO, *kept).returncode == 0
        again = parrot("logs", DEMO, *kept)
        assert again.returncode == 0
        assert "nothing to do" in again.stderr
        changed = parrot("logs", DEMO, *kept, "logs.heldout=3")
        assert changed.returncode == 2
        first, *difference = changed.stderr.splitlines()
        assert first.startswith("parrot: ")
        assert "--rerun" in first
        assert {"-heldout = 16", "+heldout = 3"} <= set(difference)
        rerun = parrot("logs", DEMO, *kept, "logs.heldout=3", "--rerun")
        assert rerun.returncode == 0
        assert len((tmp_path / "demo" / "logs" / "heldout.jsonl").read_text().splitlines()) == 3

    def test_a_defect_is_one_line_too(self, monkeypatch, capsys):
        def broken(*_):
            raise RuntimeError("first line\nsecond line")

        monkeypatch.setattr(cli, "load", broken)
        monkeypatch.setattr(sys, "argv", ["parrot", "logs"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith("parrot: RuntimeError: first line second line. This is a defect")
        monkeypatch.setattr(sys, "argv", ["parrot", "logs", "--debug"])
        with pytest.raises(RuntimeError, match="first line"):
            cli.main()

    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied. Mend the path"),
            (OSError(errno.ENOSPC, "No space left on device"), "the disk: No space left on device. Mend the path"),
        ],
    )
    def test_a_file_that_fails_is_no_defect(self, monkeypatch, capsys, error, line):
        def broken(*_):
            raise error

        monkeypatch.setattr(cli, "load", broken)
        monkeypatch.setattr(sys, "argv", ["parrot", "logs"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith(f"parrot: {line}")

    def test_outside_the_checkout_there_is_no_demo(self, tmp_path):
        line = "recipes/demo.toml: no such recipe. Name a recipe; the shipped ones are in recipes/ of the checkout"
        for arguments in (["logs"], ["logs", "run.seed=1"], ["show", "x.jsonl"]):
            done = parrot(*arguments, cwd=tmp_path)
            assert (done.returncode, done.stderr) == (2, f"parrot: {line}\n")
        assert parrot("logs", str(ROOT / DEMO), "logs.source=bundled", f"run.folder={tmp_path}").returncode == 0

    def test_a_folder_in_the_place_of_logs(self, tmp_path):
        done = parrot("logs", DEMO, f"run.folder={tmp_path}", "logs.source=messages", f"logs.path={tmp_path}")
        assert (done.returncode, done.stderr) == (2, f"parrot: {tmp_path}: is a folder. Name a file in it\n")

    def test_an_interrupt_says_how_to_go_on(self, monkeypatch, capsys):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "load", interrupted)
        monkeypatch.setattr(sys, "argv", ["parrot", "logs"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 130
        assert "the same command continues" in capsys.readouterr().err


def test_the_recipe_and_its_overrides_reach_the_stage(monkeypatch):
    seen = []
    monkeypatch.setitem(vars(cli), "load", lambda path, overrides: seen.append((path, list(overrides))) or None)
    for arguments in (["report"], ["report", "capo.beta=0.2", "run.seed=1"], ["report", "x.toml", "run.seed=1"]):
        monkeypatch.setattr(sys, "argv", ["parrot", *arguments])
        with pytest.raises(SystemExit):
            cli.main()
    assert seen == [(DEMO, []), (DEMO, ["capo.beta=0.2", "run.seed=1"]), ("x.toml", ["run.seed=1"])]
