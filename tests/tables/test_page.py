"""A table's page and picture: they say what the tables say, and show foreign text as text."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from parrot_lite.evaluate.estimates import written
from parrot_lite.tables import page, picture, results
from parrot_lite.tables.results import Outcome
from tests.tables.rehearsal import TABLE
from tests.tables.test_results import outcome, scored

SVG = "{http://www.w3.org/2000/svg}"


def shown(tmp_path: Path, one: Outcome, reports: dict[tuple[str, int], Path] | None = None) -> str:
    report = results.report(one, "parrot table x y")
    return page.render(page.view(one, report, tmp_path, reports or {}))


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_comparison_stands_in_both_with_its_figures(tmp_path: Path) -> None:
    one = outcome(tmp_path)
    html, drawn = shown(tmp_path, one), texts(picture.draw(one.sheet.title, one))
    compared = one.compared("PMI-swap")
    assert list(compared) == [("all", "none"), ("all", "neglect")]  # the primary one first
    for (row, base), contrast in compared.items():
        figure = written(contrast.difference, "+z.3f")
        name = f"{row} minus {base}{' (primary)' if base == 'none' else ''}"
        assert html.count(f"<bdi>{name}</bdi>") == 2  # in PMI-swap and in PMI-last
        assert figure in html
        assert drawn.count(name) == 2
        assert figure in drawn
    assert one.verdict().brief in html
    for _, outcome_, text in one.verdict().findings:
        assert f'<span class="state">{outcome_}</span>' in html
        assert text in html


def test_a_primary_comparison_is_corrected_within_its_family_alone(tmp_path: Path) -> None:
    one = outcome(tmp_path)
    (primary, *_) = [found.contrast for found in one.primary() if found.measure == "PMI-swap"]
    assert one.compared("PMI-swap")["all", "none"] == primary
    assert one.compared("PMI-swap")["all", "neglect"] == one.others()["nats a token"]["all", "neglect", "PMI-swap"]


def test_links_lead_to_the_reports_that_are_there(tmp_path: Path) -> None:
    there = tmp_path / "all" / "report-seed0" / "report.html"
    there.parent.mkdir(parents=True)
    there.write_text("", encoding="utf-8")
    html = shown(tmp_path, outcome(tmp_path), {("all", 0): there, ("none", 0): tmp_path / "none" / "report.html"})
    assert re.findall(r'<a href="([^#"]+)"', html) == ["all/report-seed0/report.html"]


def test_what_a_table_is_called_is_no_markup(tmp_path: Path) -> None:
    text = TABLE.replace('title = "', 'title = "<script>alert(1)</script> & ', 1)
    one = outcome(tmp_path, text)
    html, svg = shown(tmp_path, one), picture.draw(one.sheet.title, one)
    for made in (html, svg):
        assert "<script" not in made
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; " in made
    ElementTree.fromstring(svg)


def test_without_a_result_both_say_so(tmp_path: Path) -> None:
    one = outcome(tmp_path, rows={}, costs={}, failed={"all": "not run"})
    assert "row all has no result: not run" in shown(tmp_path, one)
    assert "No comparison has a result." in texts(picture.draw(one.sheet.title, one))


def test_a_row_missing_on_one_side_leaves_the_other_comparisons(tmp_path: Path) -> None:
    rows = {"none": {0: scored(0.1)}, "all": {0: scored(0.3)}}
    one = outcome(tmp_path, rows=rows)
    assert list(one.compared("PMI-last")) == [("all", "none")]
    assert "all minus neglect" not in texts(picture.draw(one.sheet.title, one))
