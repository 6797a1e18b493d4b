from __future__ import annotations

import io

from rich.console import Console

from parrot_lite.table import Report, Table

CELL = "10.00 [10.00, 10.00] 30/30"


def lines(table: Table, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table.rich(width))
    return [line.rstrip() for line in out.getvalue().split("\n")]


def test_numbers_wrap_between_words_where_nothing_else_can():
    table = Table("t", ("Category", "base", "sft", "capo"), (("extraction", CELL, CELL, CELL),))
    assert f"extraction  {CELL}  {CELL}  {CELL}" in lines(table, 100)
    narrow = " ".join(lines(table, 80)).split()
    assert narrow.count("extraction") == 1
    assert "Category" in narrow
    assert narrow.count("30/30") == 3
    assert max(map(len, lines(table, 80))) <= 80


def test_a_long_name_wraps_between_words_and_numbers_stay():
    table = Table("t", ("Difference", *"abcd"), (("sft (reference history) minus base", *[CELL[:12]] * 4),))
    found = lines(table, 80)
    assert any(line.endswith("  ".join([CELL[:12]] * 4)) for line in found)
    assert all(word in " ".join(found).split() for word in ("(reference", "history)", "minus"))


def test_in_brief_the_main_tables_stand_alone():
    tables = [Table(name, ("a",), (("1",),), main=name == "b") for name in "abc"]
    report = Report("Title", (("fact", "1"),), ("careful",), tuple(tables))
    assert [table.title for table in report.brief.tables] == ["b"]
    assert (report.brief.title, report.brief.facts, report.brief.warnings) == ("Title", (("fact", "1"),), ("careful",))
    plain = Report("Title", (), (), tuple(tables[::2]))
    assert plain.brief == plain  # where none is the main one, all are
