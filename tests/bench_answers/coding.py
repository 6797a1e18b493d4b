"""The coding references, recomputed: their code is run, and what their prose says is worked out anew."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sqlite3
import string
import subprocess
import tempfile
import unicodedata
import unittest
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from fractions import Fraction
from functools import partial
from itertools import count, groupby, pairwise
from pathlib import Path
from typing import Any

from tests.bench_answers.bundled import query, reference

Check = Callable[[], list[str]]


def blocks(question_id: int, turn: int, language: str) -> list[str]:
    """The fenced blocks of one language in a reference."""
    return re.findall(rf"```{language}\n(.*?)```", reference(question_id, turn), re.DOTALL)


def block(question_id: int, turn: int, language: str) -> str:
    """The only fenced block of a language in a reference."""
    (only,) = blocks(question_id, turn, language)
    return only


def python(question_id: int, *turns: int) -> dict[str, Any]:
    """The names that the Python blocks of these references define, run one after another."""
    names: dict[str, Any] = {"__name__": f"q{question_id}"}
    for turn in turns:
        exec(block(question_id, turn, "python"), names)
    return names


def raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    """Whether a call fails with this kind of error."""
    try:
        call()
    except kind:
        return True
    return False


# 41: a word counter with a mutable default


def _tally() -> str:
    return query(41, 1).split("\n\n")[1]


def _words(text: str) -> Counter[str]:
    return Counter(filter(None, (word.strip(string.punctuation).lower() for word in text.split())))


def q41_1() -> list[str]:
    broken: dict[str, Any] = {}
    exec(_tally(), broken)
    assert [dict(broken["tally"](text)) for text in ("a b a", "b")] == [{"a": 2, "b": 1}, {"a": 2, "b": 2}]
    fixed = python(41, 1)["tally"]
    assert [fixed(text) for text in ("a b a", "b")] == [{"a": 2, "b": 1}, {"b": 1}]
    return []


def q41_2() -> list[str]:
    tally = python(41, 2)["tally"]
    for text in ("Stop! stop, Go?", "", "-- a 'A' !", "don't DON'T"):
        assert tally(text) == _words(text)
    return []


def q41_3() -> list[str]:
    return [str(dict(_words("Stop! stop, Go?")))]


def q41_4() -> list[str]:
    return [str(dict(_words("")))]


def q41_6() -> list[str]:
    tally = python(41, 6)["tally"]
    assert tally("The cat, the dog", ignore={"The"}) == {"cat": 1, "dog": 1}
    assert tally("The cat") == {"the": 1, "cat": 1}
    return []


def q41_7() -> list[str]:
    code = block(41, 7, "python")
    assert code.count("return") == 1
    assert "seen" not in code
    assert python(41, 7)["tally"]("The cat, THE dog", {"THE"}) == {"cat": 1, "dog": 1}
    return []


def q41_8() -> list[str]:
    first: dict[str, Any] = {}
    exec(_tally(), first)
    now = python(41, 7)["tally"]("The cat, the dog", {"the"})
    then = first["tally"]("The cat, the dog")
    assert {*now.values(), *then.values()} == {1}
    assert len(then) == 4
    *most, last = map(repr, then)
    return [f"Now: {' and '.join(map(repr, now))}", f"{', '.join(most)} and {last}"]


# 42: drivers and trips


def _drivers() -> sqlite3.Connection:
    base = sqlite3.connect(":memory:")
    for table, columns, rows in re.findall(r"[Tt]able (\w+)\((.*?)\) holds (.*?)\.(?= )", query(42, 1)):
        base.execute(f"CREATE TABLE {table} ({columns})")
        base.execute(f"INSERT INTO {table} VALUES {rows.replace(') and (', '), (')}")
    return base


def _trips() -> list[tuple[str, str, int, str]]:
    people = {id: (name, city) for id, name, city in _drivers().execute("SELECT * FROM drivers")}
    return [(*people[driver], km, day) for _, driver, km, day in _drivers().execute("SELECT * FROM trips")]


def _per_driver(extra: Iterable[tuple[str, int]] = (), city: str | None = None) -> list[tuple[str, int]]:
    total = {name: 0 for name, where in _drivers().execute("SELECT name, city FROM drivers") if city in (None, where)}
    for name, km in [*((name, km) for name, _, km, _ in _trips()), *extra]:
        if name in total:
            total[name] += km
    return sorted(total.items(), key=lambda item: -item[1])


def _per_city() -> list[tuple[str, int]]:
    total: Counter[str] = Counter()
    for _, city, km, _ in _trips():
        total[city] += km
    return total.most_common()


def _said(rows: Iterable[tuple[object, ...]]) -> str:
    return ", ".join(" ".join(map(str, row)) for row in rows)


def q42_1() -> list[str]:
    assert _drivers().execute(block(42, 1, "sql")).fetchall() == _per_driver()
    return []


def q42_2() -> list[str]:
    return [_said(_per_driver())]


def q42_3() -> list[str]:
    rows = _per_driver(city="Lyon")
    assert _drivers().execute(block(42, 3, "sql")).fetchall() == rows
    return [_said(rows)]


def q42_4() -> list[str]:
    assert _drivers().execute(block(42, 4, "sql")).fetchall() == _per_city()
    return [_said(_per_city())]


def q42_6() -> list[str]:
    rows = [row for row in _per_city() if row[1] > 45]
    assert _drivers().execute(block(42, 6, "sql")).fetchall() == rows
    return [f"Only {_said(rows)}"]


def q42_7() -> list[str]:
    days = {day for name, *_, day in _trips() if name == "Abe"}
    found = sorted({(name, day) for name, *_, day in _trips() if day in days and name != "Abe"})
    assert _drivers().execute(block(42, 7, "sql")).fetchall() == [(name,) for name, _ in found]
    return [f"{name} (both drove on {day})" for name, day in found]


def q42_8() -> list[str]:
    base = _drivers()
    base.execute(block(42, 8, "sql"))
    ids = [id for (id,) in base.execute("SELECT id FROM trips ORDER BY id")]
    assert ids == list(range(1, len(ids) + 1))
    idle = next(name for name, km in _per_driver() if km == 0)
    rows = _per_driver([(idle, 18)])
    assert base.execute(block(42, 1, "sql")).fetchall() == rows
    (last,) = base.execute("SELECT name, km, day FROM trips JOIN drivers d ON d.id = driver_id WHERE trips.id = 4")
    assert last == (idle, 18, "2024-05-04")
    return [_said(rows)]


# 43: running times on index cards


def _seconds(card: str) -> int:
    total = 0
    for part in card.rstrip("c").split(":"):
        total = total * 60 + int(part)
    return int(Fraction(total) * Fraction(105, 100) + Fraction(1, 2)) if card.endswith("c") else total


def _reel() -> tuple[list[str], list[str]]:
    *first, last = re.findall(r"'([\d:c]+)'", query(43, 5))
    return first, [last]


def q43_1() -> list[str]:
    card_secs = python(43, 1)["card_secs"]
    assert [card_secs(card) for card in ("4:05", "1:02:30", "90", "0:00")] == [245, 3750, 90, 0]
    assert raises(ValueError, lambda: card_secs("1:2:3:4"))
    return []


def q43_2() -> list[str]:
    card_secs = python(43, 2)["card_secs"]
    for card in ("4:05", "1:02:30", "1:02:30c", "90", *(f"{n}c" for n in range(200))):
        assert card_secs(card) == _seconds(card)
    assert raises(ValueError, lambda: card_secs("1:2:3:4c"))
    return []


def q43_3() -> list[str]:
    cards = re.findall(r"'([\d:c]+)'", query(43, 3))
    tie = cards[-1].rstrip("c")
    times = " and ".join(str(_seconds(card)) for card in cards)
    return [f"{times} ({tie} x 1.05 = {float(tie) * 105 / 100}"]


def q43_4() -> list[str]:
    return [f"round(2.5) is {round(2.5)}", f"round(3.5) is {round(3.5)}"]


def q43_5() -> list[str]:
    a, b = (sum(map(_seconds, side)) for side in _reel())
    minutes, seconds = divmod(b - a, 60)
    return [
        f"{minutes // 60}:{minutes % 60:02}:{seconds:02}",
        f"{' + '.join(str(_seconds(card)) for card in _reel()[0])} = {a} s",
        f"{b} s",
        f"{b - a} s",
    ]


def q43_6() -> list[str]:
    side_secs = python(43, 2, 6)["side_secs"]
    for side in (*_reel(), []):
        assert side_secs(side) == sum(map(_seconds, side))
    return []


def q43_7() -> list[str]:
    names = python(43, 7)
    assert names["card_secs"]("?") is None
    for card in ("1:02:30", "90", *(f"{n}c" for n in range(40))):
        assert names["card_secs"](card) == _seconds(card)
    assert raises(ValueError, lambda: names["card_secs"]("1:2:3:4"))
    assert names["side_secs"](["?", "4:05", "10c", "?"]) == (256, 2)
    return []


def q43_8() -> list[str]:
    side, _ = _reel()
    naive, true = (sum(map(_seconds, cards)) for cards in ([card.rstrip("c") for card in side], side))
    parts = " + ".join(str(_seconds(card.rstrip("c"))) for card in side)
    return [f"{naive} seconds ({parts})", f"{true - naive} seconds short", f"true {true}"]


# 44: a turnstile log


def _gate(text: str | None = None) -> list[list[str]]:
    lines = (query(44, 1) if text is None else text).splitlines()
    return [line.split() for line in lines if line.startswith("2024-")]


def _entries(events: list[list[str]]) -> list[str]:
    count = Counter(card for _, _, direction, card in events if direction == "IN")
    return [f"{n} {card}" for card, n in sorted(count.items(), key=lambda item: (-item[1], item[0]))]


def _shell(*turns: int, events: list[list[str]] | None = None) -> tuple[list[str], list[list[str]] | None] | None:
    """What the last of these references prints beside gate.log, and gate2.log; None where there is no shell."""
    events = events or _gate()
    if not (shutil.which("sh") and shutil.which("awk") and shutil.which("sed")):
        return None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "gate.log").write_text("".join(" ".join(event) + "\n" for event in events))
        for turn in turns:
            done = subprocess.run(
                ["sh", "-c", block(44, turn, "sh")], cwd=folder, capture_output=True, text=True, check=True, timeout=5
            )
        copy = Path(folder) / "gate2.log"
        shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
        return shown, _gate(copy.read_text()) if copy.exists() else None


BUSY = [["2024-02-04", "09:00", "IN", card] for card in ["K2", "K9", "K1", "K9", "K1", "K5", "K9", "K5"] + ["K7"] * 12]


def _renamed() -> list[list[str]]:
    return [[*event, "K412" if card == "K309" else card] for *event, card in _gate()]


def _twice_in() -> str:
    (card,) = (
        card
        for card, n in Counter(event[3] for event in _gate() if event[0] == "2024-02-03" and event[2] == "IN").items()
        if n == 2
    )
    return card


def q44_1() -> list[str]:
    for events in (_gate(), BUSY):
        assert _shell(1, events=events) in (None, (_entries(events), None))
    return []


def q44_2() -> list[str]:
    return [" ".join(_entries(_gate()))]


def q44_3() -> list[str]:
    (sunday,) = {event[0] for event in _gate() if date.fromisoformat(event[0]).weekday() == 6}
    rows = _entries([event for event in _gate() if event[0] == sunday])
    assert _shell(3) in (None, (rows, None))
    assert _shell(3, events=BUSY) in (None, (_entries(BUSY), None))
    return [sunday, *rows, f"{int(sunday[8:])} February {sunday[:4]} was the Sunday"]


def q44_4() -> list[str]:
    inside: set[str] = set()
    for day, _, direction, card in _gate():
        if day == "2024-02-03":
            (inside.add if direction == "IN" else inside.discard)(card)
    assert _shell(4) in (None, (sorted(inside), None))
    return [" and ".join(sorted(inside))]


def q44_5() -> list[str]:
    assert _shell(5) in (None, ([], _renamed()))
    return []


def q44_7() -> list[str]:
    added = ["2024-02-03", "21:30", "OUT", _twice_in()]
    assert _shell(5, 7) in (None, ([], [*_renamed(), added]))
    return [" ".join(added)]


def q44_8() -> list[str]:
    rows = _entries(_renamed())
    for events, shown in ((None, rows), (BUSY, ["1 K2" if row == "1 K2" else row for row in _entries(BUSY)])):
        done = _shell(5, 7, 8, events=events)
        assert done is None or done[0] == shown
    return [" ".join(rows)]


# 45: labels of a seed bank


def _label(text: str) -> str | None:
    """What is wrong with a label, by hand; None where it is right."""
    genus, year, number = text.split("-")
    batch = number[3:]
    if len(genus) != 3 or not all(letter in string.ascii_uppercase for letter in genus):
        return "not all capitals"
    if not 1900 <= int(year) <= 2029:
        return "the year is after 2029"
    if number[:3] == "000":
        return "the number is 000"
    return None if batch in ("", "a", "b", "c", "d") else f"{batch} is not a batch letter"


def _tray() -> list[str]:
    return query(45, 3).split("? ")[1].split(", ")


def q45_1() -> list[str]:
    label = python(45, 1)["LABEL"]
    for text in (*_tray(), *(f"ZEA-{year}-010" for year in range(1890, 2040)), *(f"ZEA-2019-010{x}" for x in "abcde")):
        assert bool(label.match(text)) == (_label(text) is None)
    for text in ("ZEA-2019-010\n", "ZEA-2019-10", "xZEA-2019-010", "ZEA-2019-010bb", "ZEA-2019-\u0663\u0663\u0663"):
        assert not label.match(text)
    return []


def q45_2() -> list[str]:
    (digit,) = re.findall(r"'(.)'", reference(45, 2))
    assert re.fullmatch(r"\d", digit)
    assert not re.fullmatch(r"[0-9]", digit)
    assert not re.fullmatch(r"\d", digit, re.ASCII)
    assert unicodedata.category(digit) == "Nd"
    return [unicodedata.name(digit).split(" DIGIT")[0]]


def q45_3() -> list[str]:
    return [" and ".join(text for text in _tray() if _label(text) is None) + "."]


def q45_4() -> list[str]:
    return [f"{text}: {_label(text)}" for text in _tray() if _label(text) is not None]


def _turned(text: str, drop: bool) -> str:
    words = []
    for word in text.split(" "):
        if word.count("-") == 2:
            number, year, genus = word.split("-")
            word = f"{genus}-{year}-{number[:3] if drop and int(year) < 2000 else number}"
        words.append(word)
    return " ".join(words)


def _backwards() -> str:
    return query(45, 7).split("'")[1]


def q45_5() -> list[str]:
    turn_round = python(45, 5)["turn_round"]
    assert turn_round("000-1987-BAR 042-2030-BAR 042-1899-BAR") == "000-1987-BAR 042-2030-BAR 042-1899-BAR"
    for text in (_backwards(), "no label here", *(f"042b-{year}-BAR" for year in range(1900, 2030))):
        assert turn_round(text) == _turned(text, drop=False)
    return []


def q45_6() -> list[str]:
    turn_round = python(45, 6)["turn_round"]
    assert turn_round("000-1987-BAR 042-2030-BAR 042-1899-BAR") == "000-1987-BAR 042-2030-BAR 042-1899-BAR"
    for text in (_backwards(), "042-1987-BAR and 001d-2020-ZEA", *(f"042b-{year}-BAR" for year in range(1900, 2030))):
        assert turn_round(text) == _turned(text, drop=True)
    return []


def q45_7() -> list[str]:
    return [_turned(_backwards(), drop=True)]


def q45_8() -> list[str]:
    label = python(45, 8)["LABEL"]
    for text in (*_tray(), *(f"ZEA-{year}-010" for year in range(1890, 2040))):
        wanted = _label(text) is None
        assert bool(label.match(text)) == bool(label.match(text[:8] + "(TR)" + text[8:])) == wanted
    for text in ("BAR-1987(tr)-042b", "BAR-1987()-042b", "BAR-1987TR-042b", "BAR(TR)-1987-042b"):
        assert not label.match(text)
    return [f"Still only {' and '.join(text for text in _tray() if label.match(text))}"]


# 46: a piano tuner's day in JavaScript, worked out in Python


def _jobs() -> list[tuple[int, str, int]]:
    found = re.findall(r'id: (\d+), client: "(\w+)", mins: (\d+)', query(46, 1))
    return [(int(id), client, int(minutes)) for id, client, minutes in found]


def q46_1() -> list[str]:
    after_loop = next(i for i in count() if not i < len(_jobs()))
    assert raises(IndexError, lambda: _jobs()[after_loop])
    return [f"i is {after_loop}", f"jobs[{after_loop}] is undefined"]


def q46_2() -> list[str]:
    return [" ".join(f"{i} {client}" for i, (_, client, _) in enumerate(_jobs()))]


def q46_3() -> list[str]:
    order = [client for _, client, _ in sorted(_jobs(), key=lambda job: -job[2])]
    return [f"Order: {', '.join(order)}.", f"{order[-1]} is last"]


def q46_4() -> list[str]:
    longest = [client for _, client, _ in sorted(_jobs(), key=lambda job: -job[2])]
    shortest = [client for _, client, _ in sorted(_jobs(), key=lambda job: job[2])]
    backwards = longest[::-1]
    assert shortest != backwards
    return [f"No. Ascending gives {', '.join(shortest)}", f"would start with {', '.join(backwards[:2])}"]


def q46_5() -> list[str]:
    gone = _jobs()[1][0]
    *most, last = (client for id, client, _ in _jobs() if id != gone)
    return [f"job.id !== {gone}", f"{', '.join(most)} and {last}."]


def q46_6() -> list[str]:
    work = [minutes for id, _, minutes in _jobs() if id != _jobs()[1][0]]
    drives = len(work) - 1
    total = sum(work) + 20 * drives
    return [f"{total} minutes", f"{' + '.join(map(str, work))} = {sum(work)} of work and {drives} drives of 20"]


def q46_7() -> list[str]:
    numbers = [int(number) for number in re.findall(r"\d+", query(46, 7))]
    first, then = sorted(map(str, numbers))[1:]
    return [str(sorted(numbers, key=str)), f'"{first}" comes before "{then}"']


def q46_8() -> list[str]:
    order = sorted((minutes for *_, minutes in _jobs()), key=str)
    return [str(order), " < ".join(f'"{minutes}"' for minutes in dict.fromkeys(order))]


# 47: a tool library

TOOLS = re.compile(r"an? (hedge trimmer|tile cutter|ladder) \((?:deposit )?(\w+)\)")


def _library(*turns: int) -> sqlite3.Connection:
    base = sqlite3.connect(":memory:")
    base.execute("PRAGMA foreign_keys = ON")
    for turn in (1, *turns):
        base.executescript(block(47, turn, "sql"))
    return base


def _tools() -> dict[str, int]:
    return {name: 0 if deposit == "free" else int(deposit) for name, deposit in TOOLS.findall(query(47, 2))}


def _loans() -> list[tuple[str, str, date, date | None]]:
    names = list(_tools())
    from_day, to_day = re.findall(r"from (\d+) to (\d+) March 2025", query(47, 2))[0]
    (taken,) = re.findall(r"on (\d+) March and still", query(47, 2))
    return [
        ("Mrs Abiola", names[0], date(2025, 3, int(from_day)), date(2025, 3, int(to_day))),
        ("Joon", names[-1], date(2025, 3, int(taken)), None),
    ]


def q47_1() -> list[str]:
    base = _library()
    base.execute("INSERT INTO tool VALUES (1, 'saw', 5)")
    base.execute("INSERT INTO loan VALUES (1, 1, 'Ida', '2025-01-02', NULL)")
    base.execute("INSERT INTO loan VALUES (2, 1, 'Ida', '2025-01-02', '2025-01-02')")
    for bad in (
        "INSERT INTO tool VALUES (2, 'axe', -1)",
        "INSERT INTO loan VALUES (3, 1, 'Ida', '2025-01-02', '2025-01-01')",
        "INSERT INTO loan VALUES (3, 9, 'Ida', '2025-01-02', NULL)",
    ):
        assert raises(sqlite3.IntegrityError, partial(base.execute, bad))
    return []


def q47_2() -> list[str]:
    base = _library(2)
    assert dict(base.execute("SELECT name, deposit FROM tool")) == _tools()
    rows = base.execute("SELECT borrower, name, out_day, back_day FROM loan JOIN tool ON tool.id = tool_id").fetchall()
    assert rows == [(who, what, str(out), back and str(back)) for who, what, out, back in _loans()]
    return []


def q47_4() -> list[str]:
    base = _library(2)
    wrong = "UPDATE loan SET back_day = '2025-03-01' WHERE borrower = 'Joon'"
    assert raises(sqlite3.IntegrityError, lambda: base.execute(wrong))
    (row,) = base.execute("SELECT out_day, back_day FROM loan WHERE borrower = 'Joon'")
    assert row == (str(_loans()[1][2]), None)
    return [f"2025-03-01 is before out_day {row[0]}"]


def q47_5() -> list[str]:
    away = {tool for _, tool, _, back in _loans() if back is None}
    shelf = sorted(set(_tools()) - away)
    assert _library(2).execute(block(47, 5, "sql")).fetchall() == [(name,) for name in shelf]
    return [", ".join(shelf)]


def q47_6() -> list[str]:
    (never,) = set(_tools()) - {tool for _, tool, *_ in _loans()}
    assert _library(2).execute(block(47, 6, "sql")).fetchall() == [(never,)]
    return [f"The {never}"]


def q47_7() -> list[str]:
    raised = {name: -(-deposit * 11 // 10) for name, deposit in _tools().items()}
    assert dict(_library(2, 7).execute("SELECT name, deposit FROM tool")) == raised
    exact = _tools()["tile cutter"] * 11 / 10
    return [*(f"{name} {deposit}" for name, deposit in raised.items()), f"{exact:.2f} rounded up"]


def q47_8() -> list[str]:
    (who, _, out, back), (other, _, other_out, _) = _loans()
    assert back
    rows = [(who, (back - out).days), (other, (back + timedelta(days=1) - other_out).days)]
    base = _library(2)
    update, listing = block(47, 8, "sql").split(";\n", 1)
    base.execute(update)
    assert base.execute(listing).fetchall() == rows == sorted(rows, key=lambda row: -row[1])
    return [_said(rows)]


# 48: gusts of wind


def _gusts() -> list[int]:
    return [int(number) for number in re.findall(r"\d+", query(48, 3))]


def _kept(room: int) -> list[int]:
    return [gust for gust in _gusts() if gust <= 160][-room:]


def _pushed(turn: int, room: int) -> Any:
    buffer = python(48, turn)["GustBuffer"](room)
    for gust in _gusts():
        with contextlib.suppress(ValueError):
            buffer.push(gust)
    return buffer


def q48_1() -> list[str]:
    buffer = python(48, 1)["GustBuffer"](2)
    assert buffer.mean() is None
    for gust in (10, 20, 40):
        buffer.push(gust)
    assert buffer.mean() == 30
    return []


def q48_2() -> list[str]:
    buffer = python(48, 2)["GustBuffer"](2)
    assert buffer.mean() is None
    for gust in (160, 161, 500):
        buffer.push(gust)
    assert (buffer.mean(), buffer.dropped) == (160, 2)
    return []


def _experiment(turn: int, room: int) -> list[str]:
    kept, buffer = _kept(room), _pushed(2, room)
    mean, dropped = sum(kept) / len(kept), sum(gust > 160 for gust in _gusts())
    assert (buffer.mean(), buffer.dropped) == (mean, dropped)
    *most, last = map(str, kept)
    return [f"Mean {mean} (of {', '.join(most)} and {last})", str(dropped)]


def q48_3() -> list[str]:
    return _experiment(3, 3)


def q48_4() -> list[str]:
    return _experiment(4, 2)


def q48_5() -> list[str]:
    buffer = python(48, 5)["GustBuffer"](2)
    assert buffer.mean() is None
    buffer.push(160)
    assert raises(ValueError, lambda: buffer.push(161))
    assert (buffer.mean(), buffer.dropped) == (160, 1)
    return []


def q48_6() -> list[str]:
    for turn, passes in ((5, True), (2, False)):
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(python(48, turn, 6)["WildReadings"])
        result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
        assert result.testsRun == 1
        assert result.wasSuccessful() is passes
    return []


def q48_8() -> list[str]:
    kept, buffer, fresh = _kept(3), _pushed(8, 3), python(48, 8)["GustBuffer"](3)
    assert buffer.spread() == max(kept) - min(kept)
    assert (fresh.spread(), fresh.mean(), fresh.dropped, buffer.dropped) == (None, None, 0, 1)
    fresh.push(160)
    assert raises(ValueError, lambda: fresh.push(161))
    assert fresh.mean() == 160
    return [f"{max(kept) - min(kept)} ({max(kept)} - {min(kept)})"]


# 49: crates of honey

CRATES = (2, 3, 5)


def _fillings(width: int) -> Iterator[tuple[int, ...]]:
    """Every row of crates from left to right, by brute force."""
    if width == 0:
        yield ()
    for crate in CRATES:
        if crate <= width:
            yield from ((crate, *rest) for rest in _fillings(width - crate))


def _shelf() -> int:
    (width,) = re.findall(r"(\d+) dm", query(49, 2))
    return int(width)


def _heaps() -> list[tuple[int, ...]]:
    heaps = {tuple(sorted(filling, reverse=True)) for filling in _fillings(_shelf())}
    return sorted(heaps, key=lambda heap: (len(heap), heap))


def _plus(heap: tuple[int, ...]) -> str:
    return "+".join(map(str, heap))


def _block_light(filling: tuple[int, ...]) -> bool:
    return (5, 5) in pairwise(filling)


def q49_1() -> list[str]:
    given: dict[str, Any] = {}
    exec(query(49, 1).split("\n\n")[1], given)
    fast = python(49, 1)["crate_ways"]
    for width in range(-3, 22):
        assert fast(width) == given["crate_ways"](width) == sum(1 for _ in _fillings(width))
    assert fast(90) > 0
    return []


def q49_2() -> list[str]:
    return [str(sum(1 for _ in _fillings(_shelf())))]


def q49_3() -> list[str]:
    return [f"{len(_heaps())}:", *map(_plus, _heaps())]


def q49_4() -> list[str]:
    ways = python(49, 4)["crate_ways"]
    for width in range(-3, 22):
        assert ways(width) == sum(1 for _ in _fillings(width))
    assert ways(10_000) > 0
    return []


def q49_5() -> list[str]:
    ways = python(49, 5)["crate_ways"]
    for width in range(-3, 26):
        assert ways(width) == sum(not _block_light(filling) for filling in _fillings(width))
    return []


def q49_7() -> list[str]:
    every = list(_fillings(_shelf()))
    (lost,) = filter(_block_light, every)
    return ["One: " + ", ".join(map(str, lost)), f"{len(every) - 1} of the {len(every)}"]


def q49_8() -> list[str]:
    without = [_plus(heap) for heap in _heaps() if 3 not in heap]
    return ["; ".join(map(_plus, _heaps())), f"Without a 3: {' and '.join(without)}"]


# 50: rows of knitting


def _stitches(row: str) -> str:
    """A row, read letter by letter with a stack."""
    stack = [""]
    for bracket, repeat, letter, number in re.findall(r"([()])(?:x(\d+))?|([a-z])(\d+)", row):
        if bracket == "(":
            stack.append("")
        else:
            done = stack.pop() * int(repeat) if bracket else letter * int(number)
            stack[-1] = stack[-1] + done if stack else done
    return stack[0]


def _example() -> str:
    return query(50, 1).split("'")[1]


def _wide_row() -> str:
    return query(50, 4).split(":")[0]


def q50_1() -> list[str]:
    unroll_row = python(50, 1)["unroll_row"]
    for row in (_example(), "k2 p1", "p12", "(k1)x2 (p2 k10)x3"):
        assert unroll_row(row) == _stitches(row)
    return []


def q50_2() -> list[str]:
    row = _stitches(_example())
    return [f"{len(row)} stitches", f"{row.count('p')} of them purl"]


def _change(row: str) -> int:
    return sum({"y": 1, "t": -1}.get(stitch, 0) for stitch in _stitches(row))


def q50_3() -> list[str]:
    names = python(50, 3)
    for row in (_wide_row(), _example(), "t4 y1"):
        assert names["unroll_row"](row) == _stitches(row)
        assert names["stitch_change"](row) == _change(row)
    return []


def q50_4() -> list[str]:
    counts = Counter(_stitches(_wide_row()))
    return [
        f"Wider, by {_change(_wide_row())}",
        f"{counts['y']} yarn overs",
        f"{counts['t']} decreases (5 + {counts['t'] - 5})",
    ]


def q50_5() -> list[str]:
    (before,) = re.findall(r"\d+", query(50, 5))
    worked = sum({"y": 0, "t": 2}.get(stitch, 1) for stitch in _stitches(_wide_row()))
    assert worked == int(before)
    return [f"{worked + _change(_wide_row())} (the row works all {worked}", f"adds {_change(_wide_row())}"]


def q50_7() -> list[str]:
    unroll_row, row = python(50, 7)["unroll_row"], query(50, 7).split("'")[-2]
    for case in (row, _example(), _wide_row(), "(k1 ((p1)x2 t1)x3)x2"):
        assert unroll_row(case) == _stitches(case)
    return [f"gives {_stitches(row)}."]


def q50_8() -> list[str]:
    back = _stitches(_example())[::-1].translate(str.maketrans("kp", "pk"))
    return [" ".join(f"{stitch}{len(list(run))}" for stitch, run in groupby(back))]


ANSWERS: dict[tuple[int, int], Check] = {
    (int(name[1:3]), int(name[4])): check for name, check in list(globals().items()) if re.fullmatch(r"q\d\d_\d", name)
}

UNCOMPUTED: dict[tuple[int, int], str] = {
    (41, 5): "a definition",
    (42, 5): "a definition",
    (44, 6): "a definition",
    (47, 3): "a setting of the build",
    (48, 7): "known complexities",
    (49, 6): "a setting of the interpreter",
    (50, 6): "a fact of theory",
}
