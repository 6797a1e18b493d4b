"""The table beside the paper's, whatever form the files have."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from parrot_lite import __version__
from parrot_lite.collect import compare, plots, sources
from parrot_lite.collect.compare import build, measure, named, run
from parrot_lite.collect.statistics import DataSet, Mean, none_of
from parrot_lite.errors import UserError
from parrot_lite.store import fingerprint, locate, read
from parrot_lite.types import Dialogue
from tests.collect.test_statistics import CHESS, GARDEN, tallied
from tests.test_types import talk
from tests.tiny import write

MARKDOWN = f"""\
# Data statistics

- parrot_lite {__version__}: all sessions, seed 0
- two: 2 sessions of two.jsonl; fingerprint f00d

## Sessions, as in the paper's Table 1

| Data set | Sessions | Turns | Dependent | of later<br>queries | Topics | Self-ROUGE |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| two | 2 | 2.50 ± 0.98 | 0.50 ± 0.98 | 33.3% ± 43.6% | 1.50 ± 0.98 | 20.8 ± 24.5 |
| ShareGPT (paper) | — | 6.67 | 4.62 | — | 3.3 | — |
| UltraChat (paper) | — | 3.85 | 1.45 | — | 2.3 | — |
| Baize (paper) | — | 4.54 | 1.75 | — | 3.1 | — |
| Parrot-40K (paper) | — | 8.71 | 3.42 | — | 5.5 | 12.5 |
"""
WORDS = "| two | 3.2 ± 0.3 | 3 | 3.0 ± — | 3 | 2.4 ± 0.2 | 2 | — | — |"
FAULTS = "| two | 3 | 0 of 3 (< 70.8%) | 0 of 3 (< 70.8%) | 33.33% ± 43.56% | 0.00% |"


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(column: str, role: str, content: str, names: dict[str, str]) -> list[Any]:
    return [
        {"id": one.id, column: [{role: names[turn.role], content: turn.content} for turn in one.turns]}
        for one in (GARDEN, CHESS)
    ]


def test_the_table_of_two_sessions() -> None:
    markdown = build([tallied(GARDEN, CHESS)], "all sessions, seed 0").markdown()
    assert markdown.startswith(MARKDOWN)
    assert WORDS in markdown.splitlines()
    assert FAULTS in markdown.splitlines()


def test_the_paper_says_what_it_says() -> None:
    assert {name: (row["turns"], row["dependent"], row["topics"]) for name, row in compare.PAPER.items()} == {
        "ShareGPT": (6.67, 4.62, 3.3),
        "UltraChat": (3.85, 1.45, 2.3),
        "Baize": (4.54, 1.75, 3.1),
        "Parrot-40K": (8.71, 3.42, 5.5),
    }
    assert [row.get("self-rouge") for row in compare.PAPER.values()] == [None, None, None, 12.5]


def test_three_forms_of_file_are_told_by_their_content(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a", [GARDEN, CHESS]),
        lines(tmp_path / "b", rows("messages", "role", "content", {"user": "user", "assistant": "assistant"})),
        lines(tmp_path / "c", rows("conversations", "from", "value", {"user": "human", "assistant": "gpt"})),
        lines(tmp_path / "e", [{"id": s.id, "data": [turn.content for turn in s.turns]} for s in (GARDEN, CHESS)]),
    ]
    array = tmp_path / "d"
    array.write_text(json.dumps(rows("messages", "role", "content", {"user": "user", "assistant": "assistant"})))
    found = [measure("two", str(file), None, False, 0) for file in (*files, array)]
    expected = tallied(GARDEN, CHESS)
    for one in found:
        assert one.model_copy(update={"file": "two.jsonl", "fingerprint": "f00d"}) == expected


def chunk(name: str, first: int, *texts: str) -> Any:
    said = [{"from": ("human", "gpt")[(first + i) % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": f"{name}_{first}", "conversations": said}


def test_chunks_of_sharegpt_are_rejoined_or_not(tmp_path: Path) -> None:
    file = tmp_path / "sharegpt.json"
    file.write_text(json.dumps([chunk("x", 0, "A?", "a."), chunk("x", 2, "B?", "b."), chunk("y", 0, "C?", "c.")]))
    whole, parts = (measure("s", str(file), None, chunks, 0) for chunks in (False, True))
    assert (whole.sessions, whole.histograms["turns"]) == (2, {1: 1, 2: 1})
    assert whole.unit == "conversations, 2 rejoined from 3 chunks"
    assert (parts.sessions, parts.histograms["turns"], parts.unit) == (3, {1: 3}, "chunks")
    facts = dict(build([whole, parts.model_copy(update={"name": "p"})], "").facts)
    assert facts["s"].startswith(
        "2 sessions of sharegpt.json; a session is one of its conversations, 2 rejoined from 3 chunks; fingerprint "
    )
    assert facts["p"].startswith("3 sessions of sharegpt.json; a session is one of its chunks; fingerprint ")


def test_ids_that_only_look_like_chunks(tmp_path: Path) -> None:
    file = tmp_path / "numbered.json"
    file.write_text(json.dumps([chunk("chat", 0, "A?", "a."), chunk("chat", 2, "B?", "b.")]))
    assert measure("s", str(file), None, False, 0).sessions == 2


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    open_end = talk("Why?", "So.", "And?", name="open")
    file = write(tmp_path / "x.jsonl", [GARDEN, open_end, talk("Why?", name="bare"), Dialogue(id="e", source="t")])
    found = measure("x", str(file), None, False, 0)
    assert found.sessions == 2
    assert found.counts == {"left out: no answered query": 2, "unanswered last queries dropped": 2}
    assert found.histograms["turns"] == {1: 1, 3: 1}
    assert "2 left out" in dict(build([found], "").facts)["x"]
    bad = lines(tmp_path / "bad.jsonl", [{"id": "1", "messages": [{"role": "tool", "content": "x"}]}, *rows_of_one()])
    assert measure("bad", str(bad), None, False, 0).counts == {"left out: unknown role": 1}


def rows_of_one() -> list[Any]:
    return [{"id": "2", "messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hi."}]}]


def test_a_draw_is_the_same_whatever_the_order(tmp_path: Path) -> None:
    sessions = [talk(*["Q?", "a."] * (1 + i % 7), name=str(i)) for i in range(60)]
    files = [write(tmp_path / name, order) for name, order in (("a", sessions), ("b", sessions[::-1]))]
    one, again = (measure("x", str(file), 10, False, 3) for file in files)
    assert one.sessions == 10
    assert one.counts["not drawn"] == 50
    assert one.histograms == again.histograms
    assert one.histograms != measure("x", str(files[0]), 10, False, 4).histograms
    assert measure("x", str(files[0]), 99, False, 3).sessions == 60


def test_names() -> None:
    assert named(["runs/a.jsonl"], ["demo=b/dialogues.jsonl"]) == {"a": "runs/a.jsonl", "demo": "b/dialogues.jsonl"}
    with pytest.raises(UserError, match="two data sets are called dialogues"):
        named(["a/dialogues.jsonl", "b/dialogues.jsonl"], [])
    with pytest.raises(UserError, match="not NAME=FILE"):
        named([], ["x"])
    with pytest.raises(UserError, match="no data set"):
        named([], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with no session"),
        ("[]", "begins with no session"),
        ('{"text": "hello"}', "begins with no session"),
        ("not JSON", "begins with no session"),
        ('{"id": "1", "source": "s", "turns": "hello"}', "not a dialogue: 'turns' should be"),
        ('{"id": "1", "messages": []}', "no session with an answered query"),
    ],
)
def test_files_that_hold_no_sessions(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        measure("x", str(file), None, False, 0)
    with pytest.raises(UserError, match="no such file"):
        measure("x", str(tmp_path / "none"), None, False, 0)


def test_everything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = write(tmp_path / "own.jsonl", [GARDEN, CHESS])
    out = tmp_path / "out"
    run([str(own)], [f"bundled={sources.BUNDLED}"], out, None, False, 0)
    printed = capsys.readouterr().out
    markdown = (out / "stats.md").read_text(encoding="utf-8")
    assert "2.50 ± 0.98" in printed
    assert "2.50 ± 0.98" in markdown
    data = json.loads((out / "stats.json").read_text(encoding="utf-8"))
    sets = [DataSet.model_validate_json(json.dumps(one)) for one in data["data_sets"]]
    assert [one.name for one in sets] == ["own", "bundled"]
    assert sets[1].sessions == sum(1 for _ in read(locate(sources.BUNDLED), Dialogue))
    assert [one.fingerprint for one in sets] == [fingerprint(own), fingerprint(locate(sources.BUNDLED))]
    assert data["made"] == {"parrot_lite": __version__, "sessions": None, "chunks": False, "seed": 0}
    assert data["paper"] == compare.PAPER
    pictures = sorted(out.glob("*.png"))
    assert [picture.name for picture in pictures] == ["dependence.png", "faults.png", "turns.png", "words.png"]
    for picture in pictures:
        assert f"]({picture.name})" in markdown
        image = imread(picture)[..., :3]
        assert image.shape[0] >= 500
        assert image.shape[1] >= 900
        for colour in plots.COLOURS[:2]:  # each data set is drawn
            wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            assert (abs(image - wanted).max(axis=-1) < 0.02).sum() > 30, (picture, colour)
        assert ((image.min(axis=-1) > 0.99).mean()) > 0.5  # on white
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    run([str(own)], [f"bundled={sources.BUNDLED}"], out, None, False, 0)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_options_are_in_the_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = write(tmp_path / "own.jsonl", [GARDEN, CHESS])
    run([str(own)], [], tmp_path / "out", 1, True, 7)
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["made"] == {
        "parrot_lite": __version__, "sessions": 1, "chunks": True, "seed": 7,
    }  # fmt: skip
    line = "at most 1 sessions of each, seed 7, chunks as they lie"
    assert f"- parrot_lite {__version__}: {line}\n" in (tmp_path / "out" / "stats.md").read_text()
    assert line in capsys.readouterr().out


def bundled() -> DataSet:
    return measure("bundled", sources.BUNDLED, None, False, 0)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (range(31, 65), ["30", "40", "50", "60"]),
        (range(1, 21), ["1", "2", "5", "10", "20"]),
        (range(1, 2000, 50), ["1", "10", "100", "1,000"]),
    ],
)
def test_words_are_ticked_by_whole_numbers(lengths: range, expected: list[str]) -> None:
    histograms = {**bundled().histograms, "answer words": dict.fromkeys(lengths, 1)}
    axes = plots._words([bundled().model_copy(update={"histograms": histograms})]).axes[1]
    low, high = axes.get_xlim()
    ticks = {*axes.xaxis.get_ticklabels(), *axes.xaxis.get_ticklabels(minor=True)}
    shown = [tick.get_text() for tick in ticks if tick.get_text() and low <= tick.get_position()[0] <= high]
    assert sorted(shown, key=lambda text: int(text.replace(",", ""))) == expected


def test_the_axis_of_turns_ends_with_the_last_that_is_drawn() -> None:
    asked = {2: (20, 40), 3: (10, 30), 4: (5, plots.FEW), 5: (4, plots.FEW - 1)}
    drawn = bundled().model_copy(update={"dependent_by_turn": asked})
    assert plots._dependence([drawn]).axes[0].get_xlim() == (1.5, 4.5)
    assert plots._dependence([drawn.model_copy(update={"dependent_by_turn": {}})]).axes[0].get_xlim() == (1.5, 2.5)


def test_no_fault_of_many_has_an_upper_end_and_an_axis_to_read_it_on() -> None:
    none = Mean(mean=0.0, half=None, sessions=400, values=4000)
    data = bundled().model_copy(update={"means": dict.fromkeys(bundled().means, none)})
    axes = plots._faults([data]).axes[0]
    assert axes.get_xlim() == (0, 1)
    [bar] = axes.containers[0].lines[2]
    assert bar.get_segments()[0].tolist() == [[0, 0], [100 * none_of(4000), 0]]


def test_many_data_sets_look_different() -> None:
    looks = [tuple(map(str, plots._line(number).values())) for number in range(210)]
    assert len(set(looks)) == 210


def test_wilsons_interval_by_hand() -> None:
    # 1 of 4 with z = 1.96: centre (0.25 + 0.4802) / 1.9604, half sqrt(0.046875 + 0.060025) x 1.96 / 1.9604.
    share, low, high = plots.wilson(1, 4)
    assert (share, low, high) == pytest.approx((0.25, 0.37248 - 0.32689, 0.37248 + 0.32689), abs=1e-4)
    assert plots.wilson(0, 20)[1] == pytest.approx(0, abs=1e-12)


def test_doctests() -> None:
    for module in (compare, plots):
        assert doctest.testmod(module) == (0, doctest.testmod(module).attempted)
        assert doctest.testmod(module).attempted


def test_the_verb(tmp_path: Path) -> None:
    file = write(tmp_path / "own.jsonl", [GARDEN, CHESS])
    command = [sys.executable, "-m", "parrot_lite", "stats", str(file), "--name", f"again={file}", "--sessions", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith(("own ", "again "))][:2] == [
        ["own", "1"],
        ["again", "1"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["own.jsonl"]  # without --out nothing is written
