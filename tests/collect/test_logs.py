import json
from pathlib import Path
from typing import Any

import pytest

from parrot_lite.collect import logs, sources
from parrot_lite.errors import UserError
from parrot_lite.recipe import Recipe
from parrot_lite.recipe_file import load
from parrot_lite.store import read
from parrot_lite.types import Dialogue, Rejected

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"
OPEN = (
    "max_turns=100",
    "max_words=100000",
    "max_query_words=100000",
    "min_answer_words=1",
    "english=0",
    "sessions=100",
)


def recipe(tmp_path: Path, *keys: str, seed: int = 0) -> Recipe:
    return load(DEMO, [f"run.folder={tmp_path}/runs", f"run.seed={seed}", *(f"logs.{key}" for key in (*OPEN, *keys))])


def written(tmp_path: Path, rows: list[list[str]]) -> tuple[str, str]:
    """Conversations, one a list of messages, as keys that make them the source."""
    file = tmp_path / "in.jsonl"
    roles = ("user", "assistant")
    lines = [
        {"id": f"c{i}", "messages": [{"role": roles[j % 2], "content": text} for j, text in enumerate(row)]}
        for i, row in enumerate(rows)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return "source=messages", f"path={file}"


def result(one: Recipe) -> tuple[list[Dialogue], list[Dialogue], list[Rejected], dict[str, Any]]:
    folder = one.folder("logs")
    manifest = json.loads((folder / "manifest.json").read_text())
    train, heldout = (list(read(folder / f"{name}.jsonl", Dialogue)) for name in ("train", "heldout"))
    return train, heldout, list(read(folder / "rejected.jsonl", Rejected)), manifest


def pairs(count: int) -> list[list[str]]:
    return [[f"first {i}", "one", "second", "two"] for i in range(count)]


def test_bundled_sessions_split_16_to_24(tmp_path: Path) -> None:
    one = recipe(tmp_path, "source=bundled")
    logs.run(one)
    train, heldout, rejected, manifest = result(one)
    assert (len(train), len(heldout), len(rejected)) == (24, 16, 0)
    assert not {d.id for d in train} & {d.id for d in heldout}
    assert (manifest["source"], manifest["train"], manifest["heldout"]) == ("bundled", 24, 16)


def test_same_seed_same_files_and_the_source_order_does_not_matter(tmp_path: Path) -> None:
    rows = pairs(30)
    seen = []
    for run, seed in enumerate((0, 0, 1)):
        place = tmp_path / str(run)
        place.mkdir()
        one = recipe(place, *written(place, rows), "sessions=10", "heldout=5", seed=seed)
        logs.run(one)
        seen.append([(one.folder("logs") / name).read_bytes() for name in ("train.jsonl", "heldout.jsonl")])
        assert result(one)[3]["counts"]["not drawn"] == 15
    assert seen[0] == seen[1] != seen[2]


def test_more_training_sessions_leave_the_heldout_ones_alone(tmp_path: Path) -> None:
    drawn = []
    for sessions in (5, 20):
        place = tmp_path / str(sessions)
        place.mkdir()
        one = recipe(place, *written(place, pairs(30)), f"sessions={sessions}", "heldout=5")
        logs.run(one)
        drawn.append(result(one))
    assert drawn[0][1] == drawn[1][1]
    assert drawn[0][0] == drawn[1][0][:5]


KEYS = (
    "max_words=10",
    "min_query_words=2",
    "max_query_words=3",
    "min_answer_words=2",
    "max_answer_words=3",
    "english=0.9",
)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["what is 9", "it is one"], "too few turns"),
        (["what is 9", "it is one", "and you sir", "the same"], "first exchanges too long"),
        (["what is 9", "it is one", "and", "the same"], "query too short"),
        (["what is number 9", "it is", "and you", "the same"], "query too long"),
        (["what is 9", "it is one", "and you", "same"], "answer too short"),
        (["what is", "it is one 9", "and you", "the same"], "answer too long"),
        (["什么 是 这个", "它 是 一", "and you", "the same"], "not English"),
        (["Hola necesito ayuda", "Claro que si", "Quiero versos", "Aqui tienes"], "not English"),
        (["what is 0", "it is one", "and you", "the same"], "same opening as an earlier session"),
        (["what is 9", "", "and you", "the same"], "empty message"),
    ],
)
def test_every_filter(tmp_path: Path, row: list[str], reason: str) -> None:
    good = [[f"what is {i}", "it is one", "and you", "the same"] for i in range(3)]  # each at the limits of KEYS
    one = recipe(tmp_path, *written(tmp_path, [*good, row]), "heldout=1", *KEYS)
    logs.run(one)
    train, heldout, rejected, manifest = result(one)
    assert sorted(d.id for d in [*train, *heldout]) == ["c0", "c1", "c2"]
    assert [(r.id, r.reason) for r in rejected] == [("c3", reason)]
    assert manifest["counts"][f"rejected: {reason}"] == 1
    assert manifest["counts"]["sessions read"] == 4


@pytest.mark.parametrize("seed", range(4))
def test_one_conversation_at_two_lengths_is_never_on_both_sides(tmp_path: Path, seed: int) -> None:
    shared = ["first 0", "one", "second", "two", "third", "three"]
    one = recipe(tmp_path, *written(tmp_path, [shared, *pairs(4)]), "heldout=2", seed=seed)  # the first pair is a copy
    logs.run(one)
    train, heldout, rejected, _ = result(one)
    assert sorted(d.id for d in [*train, *heldout]) == ["c0", "c2", "c3", "c4"]
    assert [(r.id, r.reason) for r in rejected] == [("c1", "same opening as an earlier session")]


@pytest.mark.parametrize(("key", "exchanges"), [("max_turns=2", 2), ("max_words=7", 3), ("max_turns=3", 3)])
def test_later_exchanges_are_left_off_and_counted(tmp_path: Path, key: str, exchanges: int) -> None:
    rows = [[f"q{i}", "a", "b", "c", "d", "e", "f", "g"] for i in range(2)]
    one = recipe(tmp_path, *written(tmp_path, rows), "heldout=1", key)
    logs.run(one)
    train, _, _, manifest = result(one)
    assert len(train[0].answers) == exchanges
    assert manifest["counts"]["sessions cut"] == 2
    assert manifest["counts"]["exchanges cut off"] == 2 * (4 - exchanges)


def test_too_few_sessions_names_the_filter_that_took_most(tmp_path: Path) -> None:
    one = recipe(tmp_path, *written(tmp_path, [*pairs(2), ["a", "b"], ["c", "d"], ["e", ""]]), "heldout=2")
    with pytest.raises(UserError, match=r"2 of 5 sessions are left, 3 are needed; most went as 'too few turns' \(2\)"):
        logs.run(one)
    assert len(list(read(one.folder("logs") / "rejected.jsonl", Rejected))) == 3
    assert not (one.folder("logs") / "manifest.json").exists()


@pytest.mark.parametrize("after", [0, 1, 5, 11])
def test_a_killed_run_starts_over_and_ends_the_same(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*pairs(10), ["a", "b"], ["c", "d"]]
    names = ("train.jsonl", "heldout.jsonl", "rejected.jsonl")
    (tmp_path / "whole").mkdir()
    whole = recipe(tmp_path / "whole", *written(tmp_path, rows), "heldout=4")
    logs.run(whole)
    killed = recipe(tmp_path / "killed", *written(tmp_path, rows), "heldout=4")
    fitted, calls = logs._fitted, iter(range(100))

    def dies(*arguments: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return fitted(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(logs, "_fitted", dies)
        with pytest.raises(KeyboardInterrupt):
            logs.run(killed)
    assert not any((killed.folder("logs") / name).exists() for name in names)
    logs.run(killed)
    for name in names:
        assert (killed.folder("logs") / name).read_bytes() == (whole.folder("logs") / name).read_bytes()
    assert not list(killed.folder("logs").glob("*.part"))


def test_a_finished_stage_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = recipe(tmp_path, "source=bundled")
    logs.run(one)
    capsys.readouterr()
    logs.run(one)
    assert "nothing to do" in capsys.readouterr().err


def test_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "SHAREGPT", "package:no_such_package/x.json")
    one = recipe(tmp_path)  # the demo falls back
    logs.run(one)
    assert result(one)[3]["source"] == "bundled"
    assert capsys.readouterr().err.count("reading the bundled sessions instead") == 1
    strict = one.model_copy(update={"logs": one.logs.model_copy(update={"fallback": None})})
    with pytest.raises(UserError, match="Install the extra 'demo'"):
        logs.run(strict)


def test_sources_that_need_a_path(tmp_path: Path) -> None:
    for source in ("conversations", "messages", "hub"):
        with pytest.raises(UserError, match=r"logs\.path"):
            logs.run(recipe(tmp_path, f"source={source}"))
    with pytest.raises(UserError, match="no such file"):
        logs.run(recipe(tmp_path, "source=messages", f"path={tmp_path}/none"))


def test_a_sharegpt_file_of_ones_own(tmp_path: Path) -> None:
    turns = [{"from": ("human", "gpt")[i % 2], "value": f"m{i}"} for i in range(6)]
    rows = [
        {
            "id": f"{name}_{first}",
            "conversations": [{**turn, "value": name + turn["value"]} for turn in turns[first:end]],
        }
        for name in ("x", "y")
        for first, end in ((0, 3), (2, 6))
    ]
    (tmp_path / "own.json").write_text(json.dumps(rows), encoding="utf-8")
    one = recipe(tmp_path, f"path={tmp_path}/own.json", "heldout=1")
    logs.run(one)
    train, heldout, _, manifest = result(one)
    assert sorted(d.id for d in [*train, *heldout]) == ["x", "y"]
    assert {len(d.answers) for d in [*train, *heldout]} == {3}
    assert manifest["counts"]["overlapping messages"] == 2


def test_what_repeats_a_held_out_prompt_is_not_trained_on(tmp_path: Path) -> None:
    prompt = "act as a careful gardener and tell me which flowers like the shade of an old wall"
    rows = [[f"{prompt if i % 3 == 0 else 'no'} {i}", "one", f"second {i}", "two"] for i in range(60)]
    one = recipe(tmp_path, *written(tmp_path, rows), "heldout=6", "sessions=30")
    logs.run(one)
    train, heldout, rejected, manifest = result(one)
    pasted = [d.id for d in heldout if prompt in d.queries[0]]
    assert pasted  # else nothing is tested
    assert not [d.id for d in train if prompt in d.queries[0]]
    assert len(train) == 30  # others came in their place
    counts = manifest["counts"]
    assert counts["rejected: says 13 words in a row of a held-out query"] == len(rejected) > 0
    assert len(train) + len(heldout) + len(rejected) + counts["not drawn"] == counts["sessions read"] == 60


def test_sessions_to_choose_settings_on_are_apart_from_training_and_from_what_is_reported(tmp_path: Path) -> None:
    plain, split = ["heldout=6", "sessions=20"], ["heldout=6", "selection=5", "sessions=20"]
    prompt = "act as a careful gardener and tell me which flowers like the shade of an old wall"
    rows = [[f"{prompt if i % 5 == 0 else 'no'} {i}", "one", f"second {i}", "two"] for i in range(60)]
    first, second = (recipe(tmp_path / keys[1], *written(tmp_path, rows), *keys) for keys in (plain, split))
    for one in (first, second):
        logs.run(one)
    train, heldout, rejected, manifest = result(second)
    selection = list(read(second.folder("logs") / "selection.jsonl", Dialogue))
    assert not (first.folder("logs") / "selection.jsonl").exists()
    assert heldout == result(first)[1]  # choosing settings moves no session that is reported
    assert (len(train), len(heldout), len(selection)) == (20, 6, 5)
    assert len({d.id for d in (*train, *heldout, *selection)}) == 31
    pasted = [[prompt in d.queries[0] for d in some] for some in (heldout, selection, train)]
    assert any(pasted[0]) or any(pasted[1])  # else nothing is tested
    assert sum(map(any, pasted)) == 1  # 13 words in a row are on one side alone
    assert manifest["selection"] == 5
    assert 31 + len(rejected) + manifest["counts"]["not drawn"] == manifest["counts"]["sessions read"] == 60
