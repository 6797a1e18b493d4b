"""``parrot table`` on a random LLaMA: killed, resumed, a row deleted, a row that fails, a leak."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parrot_lite.store import read
from parrot_lite.types import Dialogue
from tests.tables.rehearsal import TABLE, command, environment, manifests, parrot, stages, write
from tests.tiny import tiny_model

SHARED = ["shared/logs", "shared/negatives", "shared/train-sft"]
ROWS = [f"kinds/{row}/{stage}" for row in ("all", "neglect") for stage in ("eval", "train-capo")] + ["kinds/none/eval"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_model(tmp_path_factory.mktemp("base") / "tiny") as folder:
        yield folder


def killed_when(there: Callable[[], bool], *arguments: object) -> None:
    """Run a command line and kill it, it alone, by SIGKILL, as soon as ``there``."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    try:
        while not there():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


def test_killed_resumed_and_a_row_deleted(tmp_path: Path, base: Path) -> None:
    recipe, table = write(tmp_path, base)
    home = tmp_path / "runs" / "small" / "tables"

    # Killed in the middle of the first CaPO, behind its first step.
    killed_when(lambda: any(home.glob("kinds/neglect/train-capo-*/log.jsonl")), "table", recipe, table)
    before = manifests(home)
    assert stages(list(before)) == sorted([*SHARED, "kinds/none/eval"])
    done = parrot("table", recipe, table)  # at once: the stage died with the table, and its folder is free
    assert done.returncode == 0, done.stderr
    after = manifests(home)
    assert stages(list(after)) == sorted([*SHARED, *ROWS])  # train-sft and negatives once, for three rows
    assert {name: when for name, when in after.items() if name in before} == before
    (capo,) = home.glob("kinds/neglect/train-capo-*")
    assert json.loads((capo / "manifest.json").read_text())["attempts"] == 2
    assert "row 2 of 3 (neglect), stage 5 of 8: train-capo" in done.stderr
    assert "min left" in done.stderr.partition("stage 5 of 8")[2]
    assert "none of 3 failed" in done.stderr

    text = (home / "kinds" / "kinds.md").read_text(encoding="utf-8")
    assert text.startswith("# Kinds of negatives, small\n\n**Verdict.** Of 2 primary tests: ")
    assert text.count("Verdict") == 1
    for words in (
        "PMI-swap: all minus none",
        "PMI-last: all minus none",
        "Holm p",
        "| GPT-4 | 8.99 |",
        "Not measured: score",
    ):
        assert words in text
    figures = json.loads((home / "kinds" / "kinds.json").read_text(encoding="utf-8"))
    assert figures["verdict"] in text
    assert figures["rows"]["all"]["cost"]["trained"][0] > figures["rows"]["neglect"]["cost"]["trained"][0] > 0
    assert figures["rows"]["none"]["cost"]["trained"] is None
    assert "Verdict. " in done.stdout
    html = (home / "kinds" / "kinds.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^#"]+)"', html)
    assert [link.partition("/")[0] for link in links] == ["none", "neglect", "all"]
    assert all((home / "kinds" / link).exists() for link in links)
    assert "all minus none (primary)" in (home / "kinds" / "kinds.svg").read_text(encoding="utf-8")

    # A row's folder deleted: that row runs again, and nothing else.
    shutil.rmtree(home / "kinds" / "neglect")
    done = parrot("table", recipe, table)
    assert done.returncode == 0, done.stderr
    again = manifests(home)
    assert again.keys() == after.keys()
    changed = {name for name, when in again.items() if after[name] != when}
    assert stages(list(changed)) == ["kinds/neglect/eval", "kinds/neglect/train-capo"]
    assert (home / "kinds" / "kinds.md").read_text(encoding="utf-8").count("**Verdict.**") == 1

    # Another seed of one row: a second training and its evaluation, on the same data.
    done = parrot("table", recipe, table, "--seed", 0, "--seed", 1, "--row", "none")
    assert done.returncode == 0, done.stderr  # what nobody asked for did not fail
    more = manifests(home)
    assert {name: more[name] for name in again} == again
    assert stages([name for name in more if name not in again]) == ["kinds/none/eval", "shared/train-sft"]
    text = (home / "kinds" / "kinds.md").read_text(encoding="utf-8")
    assert "- training seeds: 0, 1" in text
    assert "Row all under seed 1 has no result: not run." in text


FAILS = """
[[rows]]
name = "no-such"
about = "kinds that nobody wrote"
adapter = "train-capo"
set.capo.kinds = ["random"]
"""


def test_a_failing_row_does_not_stop_the_others(tmp_path: Path, base: Path) -> None:
    recipe, table = write(tmp_path, base)
    text = TABLE.replace("[[rows]]", FAILS + "[[rows]]", 1).replace('row = "all"', 'row = "no-such"', 1)
    table.write_text(text, encoding="utf-8")
    done = parrot("table", recipe, table, "--row", "no-such", "--row", "none")
    assert done.returncode == 1
    assert "row no-such failed at train-capo: train-capo: no pair is left to train on" in done.stderr
    assert "row no-such is left, train-capo:" in done.stderr
    home = tmp_path / "runs" / "small" / "tables"
    assert [name for name in stages(list(manifests(home))) if "kinds" in name] == ["kinds/none/eval"]
    written = (home / "kinds" / "kinds.md").read_text(encoding="utf-8")
    assert "Of 2 primary tests: 2 without a result." in written
    assert "no-such minus none in PMI-swap: open, no result of no-such." in written
    assert "Row no-such has no result: train-capo: train-capo: no pair is left" in written
    assert "Row all has no result: not run" in written
    assert "no pair is left to train on" in (home / "kinds" / "no-such" / "log.txt").read_text(encoding="utf-8")
    done = parrot("table", recipe, table, "--row", "nobody")
    assert done.returncode == 2
    assert "no row nobody. Its rows are no-such, none, neglect, all" in done.stderr


def test_a_table_refuses_to_train_on_what_it_evaluates(tmp_path: Path, base: Path) -> None:
    recipe, table = write(tmp_path, base)
    assert parrot("logs", recipe).returncode == 0
    heldout = list(read(tmp_path / "runs" / "small" / "logs" / "heldout.jsonl", Dialogue))
    data = tmp_path / "data.jsonl"
    data.write_text(heldout[0].model_dump_json(exclude_none=True) + "\n", encoding="utf-8")
    done = parrot("table", recipe, table, f'sft.data=["{data}"]')
    assert done.returncode == 2
    assert f"training would see what is evaluated on: {data}: session {heldout[0].id} is kept apart" in done.stderr
    assert not list((tmp_path / "runs" / "small" / "tables").glob("*/train-sft-*"))


DATA = """# Data sets.
title = "Table 1, small"
kind = "data"
[[rows]]
name = "logs"
about = "conversations"
data = "logs"
[[rows]]
name = "mine"
about = "a file that is not there"
data = "nowhere/data.jsonl"
"""


def test_a_table_of_data_sets(tmp_path: Path, base: Path) -> None:
    recipe, _ = write(tmp_path, base)
    table = tmp_path / "data.toml"
    table.write_text(DATA, encoding="utf-8")
    done = parrot("table", recipe, table)
    assert done.returncode == 1
    assert "row mine failed" in done.stderr
    text = (tmp_path / "runs" / "small" / "tables" / "data" / "data.md").read_text(encoding="utf-8")
    assert "| logs | 8 |" in text
    assert "| Parrot-40K (paper) |" in text
    assert "no comparison is declared" in text
