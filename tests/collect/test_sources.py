import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parrot_lite.collect import sources
from parrot_lite.errors import UserError
from parrot_lite.store import locate
from parrot_lite.types import Dialogue, Rejected

Read = Callable[..., Iterator[Dialogue | Rejected]]


def said(*messages: str) -> list[dict[str, str]]:
    """``"h:hello"`` is the human's, ``"g:hi"`` the model's."""
    names = {"h": "human", "g": "gpt", "s": "system", "u": "user", "b": "bing", "t": "tool"}
    return [{"from": names[message[0]], "value": message[2:]} for message in messages]


def read_rows(tmp_path: Path, rows: Any, reader: Read = sources.conversations) -> tuple[list[Any], Counter[str]]:
    file, counts = tmp_path / "rows.json", Counter[str]()
    file.write_text(json.dumps(rows), encoding="utf-8")
    return list(reader(file, counts)), counts


def test_conversations_as_array_and_as_jsonl(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "conversations": said("s:be kind", "h: hello ", "g:hi\n")},
        {"conversations": said("u:one", "b:two", "u:three", "b:four", "u:five")},
    ]
    (array, counts), lines = read_rows(tmp_path, rows), tmp_path / "rows.jsonl"
    assert [(d.id, [(t.role, t.content) for t in d.turns]) for d in array] == [
        ("a", [("user", "hello"), ("assistant", "hi")]),
        ("rows.json-2", [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]),
    ]
    assert counts == {"system messages dropped": 1, "unanswered last queries dropped": 1}
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [d.turns for d in sources.conversations(lines) if isinstance(d, Dialogue)] == [d.turns for d in array]


def test_messages(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
    file.write_text(json.dumps(row), encoding="utf-8")
    (dialogue,) = sources.messages(file)
    assert isinstance(dialogue, Dialogue)
    assert (dialogue.queries, dialogue.answers, dialogue.source) == (("hi",), ("hello",), "m.jsonl")


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (None, "no messages"),
        ([], "no messages"),
        ("hello", "no messages"),
        (["hello"], "not a message"),
        (said("h:a", "t:b"), "unknown role"),
        ([{"from": ["human"], "value": "a"}], "unknown role"),
        ([{"role": "user", "content": None}], "content is not text"),
        (said("h:a", "h:b", "g:c"), "roles do not alternate"),
        (said("g:a", "g:b", "h:c", "g:d"), "roles do not alternate"),
        (said("h:a", "g: "), "empty message"),
        (said("h:a"), "no answered query"),
        (said("s:a"), "no answered query"),
        (said("g:a", "h:b"), "no answered query"),
        (said("h:a", "g:\ud83d"), "not valid Unicode"),
    ],
)
def test_every_rejection(tmp_path: Path, listed: Any, reason: str) -> None:
    (record,), _ = read_rows(tmp_path, [{"id": "x", "conversations": listed}])
    assert isinstance(record, Rejected)
    assert (record.id, record.reason) == ("x", reason)


def test_rows_that_are_no_conversations_and_ids_that_come_twice(tmp_path: Path) -> None:
    row = {"id": "a", "conversations": said("h:a", "g:b")}
    records, _ = read_rows(tmp_path, [7, row, row])
    assert [getattr(record, "reason", None) for record in sources.once(records)] == [
        "no messages",
        None,
        "duplicate id",
    ]


def test_an_opening_answer_is_dropped(tmp_path: Path) -> None:
    (dialogue,), counts = read_rows(tmp_path, [{"conversations": said("g:x", "h:a", "g:b")}])
    assert dialogue.queries == ("a",)
    assert counts["opening assistant messages dropped"] == 1


def chunk(name: str, *messages: str) -> dict[str, Any]:
    return {"id": name, "conversations": said(*messages)}


def test_chunks_are_rejoined(tmp_path: Path) -> None:
    rows = [
        chunk("a_0"),
        chunk("a_0", "h:1", "g:2", "h:3"),
        chunk("a_1", "g:2", "h:3", "g:4"),
        chunk("b_c_0", "h:1", "g:2"),
    ]
    records, counts = read_rows(tmp_path, rows, sources.sharegpt)
    assert [(d.id, [t.content for t in d.turns]) for d in records] == [
        ("a", ["1", "2", "3", "4"]),
        ("b_c", ["1", "2"]),
    ]
    assert counts == {"chunks": 4, "conversations": 2, "overlapping messages": 2}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([chunk("a_0", "h:1", "g:2"), chunk("a_1", "g:two", "h:3", "g:4")], "chunks disagree"),
        ([chunk("a_0", "h:1", "g:2"), chunk("a_3", "g:4")], "chunks have a gap"),
        ([{"id": "a_0"}], "no messages"),
        ([chunk("a", "h:1", "g:2")], sources.NAMELESS),
        ([7], sources.NAMELESS),
    ],
)
def test_chunks_that_do_not_fit(tmp_path: Path, rows: list[Any], reason: str) -> None:
    (record,), _ = read_rows(tmp_path, rows, sources.sharegpt)
    assert isinstance(record, Rejected)
    assert record.reason == reason


def test_a_conversation_that_comes_back_is_a_duplicate(tmp_path: Path) -> None:
    rows = [chunk("a_0", "h:1", "g:2"), chunk("b_0", "h:1", "g:2"), chunk("a_2", "h:3", "g:4")]
    records, _ = read_rows(tmp_path, rows, sources.sharegpt)
    assert [getattr(record, "reason", None) for record in records] == [None, None, "chunks have a gap"]
    records, _ = read_rows(tmp_path, [*rows[:2], rows[0]], sources.sharegpt)
    assert [getattr(record, "reason", None) for record in sources.once(records)] == [None, None, "duplicate id"]


@pytest.mark.parametrize("block", [1, 7, 1 << 22])
def test_an_array_torn_at_every_byte(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "BLOCK", block)
    rows = [
        {"id": "é", "conversations": said('h:a "quoted" \\ é 語', "g:[b], {c}")},
        {"id": "b", "n": [1.5e-3, None, True, -12], "conversations": said("h:1", "g:\u0007")},
    ]
    parts = [json.dumps(rows[0], ensure_ascii=False, indent=1).encode(), json.dumps(rows[1]).encode()]
    whole = b"[\n" + parts[0] + b",\n" + parts[1] + b"\n]\n"
    ends = [2 + len(parts[0]), 4 + len(parts[0]) + len(parts[1])]
    file = tmp_path / "torn.json"
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        records = list(sources.conversations(file))
        assert [r.id for r in records] == ["é", "b"][: sum(cut >= end for end in ends)], cut
        torn = 0 < cut < len(whole) - 1
        assert ("cut off" in capsys.readouterr().err) is torn, cut


def test_a_file_broken_in_the_middle_stops(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    good = json.dumps({"conversations": said("h:a", "g:b")})
    file.write_text(f"{good}\n{{'id': 'single quotes'}}\n{good}\n", encoding="utf-8")
    with pytest.raises(UserError, match="item 2 is not JSON"):
        list(sources.conversations(file))
    file.write_bytes(good.encode() + b"\n\xff\xfe\n" + good.encode())
    with pytest.raises(UserError, match="not UTF-8"):
        list(sources.conversations(file))
    with pytest.raises(UserError, match="no such file"):
        list(sources.conversations(tmp_path / "none.json"))


def test_hub_reads_either_column_and_explains_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    class Table(list[Any]):
        column_names = ("prompt", "conversations")

    def load_dataset(name: str, split: str) -> Table:
        if split != "train":
            raise ValueError(f"Unknown split\n'{split}'")
        return Table([{"prompt": "p", "conversations": said("h:a", "g:b")}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    (dialogue,) = sources.hub("some/set", "train")
    assert (dialogue.id, dialogue.source) == ("some/set-1", "some/set")
    with pytest.raises(UserError, match=r"^some/set: cannot be loaded: ValueError: Unknown split 'x'\."):
        sources.hub("some/set", "x")
    Table.column_names = ("text", "label")
    with pytest.raises(UserError, match="only text, label"):
        sources.hub("some/set", "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="datasets is not installed"):
        sources.hub("some/set", "train")


@pytest.mark.parametrize(
    "column",
    [
        {"conversations": said("h:a", "g:b")},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"data": ["a", "b"]},
    ],
    ids=lambda column: next(iter(column)),
)
def test_the_real_library_gives_every_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: dict[str, Any]
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"id": name, **column}) + "\n" for name in "xxz"))
    records = list(sources.hub(str(folder), "train"))
    assert [(d.id, [t.content for t in d.turns]) for d in records if isinstance(d, Dialogue)] == [
        (name, ["a", "b"]) for name in "xxz"
    ]
    assert isinstance(list(sources.once(records))[1], Rejected)
    with pytest.raises(UserError, match="cannot be loaded"):
        sources.hub(str(folder), "nosuch")


def test_texts_in_turn(tmp_path: Path) -> None:
    rows = [{"data": ["one", "two", "three"]}, {"data": ["one", 2]}, {"data": "one"}, {"data": ["one"]}, {}]
    records, counts = read_rows(tmp_path, rows, sources.ultrachat)
    assert (records[0].queries, records[0].answers) == (("one",), ("two",))
    reasons = ["content is not text", "no messages", "no answered query", "no messages"]
    assert [record.reason for record in records[1:]] == reasons
    assert counts["unanswered last queries dropped"] == 2


def test_a_row_may_name_its_source(tmp_path: Path) -> None:
    rows = [{"source": source, "data": ["one", "two"]} for source in ("collect:x", "", 7)]
    records, _ = read_rows(tmp_path, rows, sources.ultrachat)
    assert [record.source for record in records] == ["collect:x", "rows.json", "rows.json"]


def test_lines_of_a_text(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\n  two \n")
    assert list(sources.lines(file)) == [(1, "one"), (3, "two")]
    file.write_bytes(b"one\n\xff\n")
    with pytest.raises(UserError, match="cannot be read as a text file"):
        list(sources.lines(file))
    with pytest.raises(UserError, match="no such file"):
        list(sources.lines(tmp_path / "none.txt"))


def test_bundled_sessions() -> None:
    sessions = list(sources.bundled())
    assert len({session.id for session in sessions}) == 40
    assert all(4 <= len(session.answers) <= 8 and session.due == "user" for session in sessions)


def test_the_real_package(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        file = locate(sources.SHAREGPT)
    except UserError as missing:
        pytest.skip(str(missing))
    counts: Counter[str] = Counter()
    kinds = Counter(getattr(record, "reason", "dialogue") for record in sources.sharegpt(file, counts))
    assert (counts["chunks"], counts["conversations"], counts["overlapping messages"]) == (17_671, 9_460, 6_340)
    assert kinds == {
        "dialogue": 9_387,
        "roles do not alternate": 31,
        "empty message": 25,
        "no answered query": 14,
        "no messages": 3,
    }
    assert "cut off; its 17671 whole items" in capsys.readouterr().err
