"""The page: what its texts may say, where its marks stand, what it cuts; and in a real browser, what it does."""

from __future__ import annotations

import base64
import doctest
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from parrot_lite.evaluate import charts, page, transcripts
from parrot_lite.evaluate.charts import Axis, Point
from parrot_lite.evaluate.conclusions import Scale, conclude
from parrot_lite.evaluate.estimates import Numbers
from parrot_lite.evaluate.page import Records, filters, render, view
from parrot_lite.evaluate.records import Label, Played, Question, player
from parrot_lite.evaluate.statistics import Contrast, Estimate, Spread
from parrot_lite.evaluate.transcripts import Limit, fit, sessions, visible
from parrot_lite.table import Report, Table
from parrot_lite.types import Dialogue, Judgment, Turn
from tests.evaluate.evaluations import MODELS, benchmark, card, evaluation

NUMBERS = Numbers(500, 1)
REPORT = Report("Evaluation of x", (("judge", "j"),), ("mind the gap",), (Table("T", ("A", "B"), (("a", "1"),)),))
SCALE = Scale("points", ".2f", "higher", "lower")


def test_doctests() -> None:
    assert doctest.testmod(charts).failed == doctest.testmod(transcripts).failed == 0


# What may be said


def contrast(mean: float, error: float, sessions: int, p: float | None, adjusted: float | None) -> Contrast:
    half = 2 * error
    spread = Spread(error**2 * sessions)
    return Contrast(Estimate(mean, mean - half, mean + half, sessions, 8 * sessions, spread), p, adjusted)


def test_a_difference_is_shown_by_the_corrected_p_alone() -> None:
    shown = conclude("b", "a", contrast(0.5, 0.1, 80, 0.001, 0.003), SCALE, 3)
    assert shown.state == "shown"
    assert shown.text == (
        "higher: +0.50 points (95% interval +0.30 to +0.70; p\u00a0=\u00a00.001, corrected for 3 comparisons "
        "p\u00a0=\u00a00.003)."
    )
    assert conclude("b", "a", contrast(-0.5, 0.1, 80, 0.001, 0.003), SCALE, 3).text.startswith("lower: -0.50 points")
    # The interval leaves out zero, and p alone lies below 0.05: among three comparisons that is no finding.
    chance = conclude("b", "a", contrast(0.25, 0.1, 80, 0.03, 0.09), SCALE, 3)
    assert chance.state == "not shown"
    assert "no difference was shown" in chance.text
    assert "among so many comparisons" in chance.text
    assert "higher" not in chance.text


def test_what_could_not_have_been_seen_is_said() -> None:
    # 80 sessions: t of 79 degrees of freedom, 2.8393 standard errors for 80% power.
    unseen = conclude("b", "a", contrast(0.1, 0.1, 80, 0.3, 0.3), SCALE, 1)
    assert unseen.state == "not shown"
    assert "a true one below 0.28 is smaller than what so many sessions can be relied on to show" in unseen.text
    assert "corrected" not in unseen.text
    small = conclude("b", "a", contrast(0.22, 0.1, 80, 0.04, 0.04), SCALE, 1)
    assert small.state == "shown"
    assert "less than the 0.28 that so many sessions can be relied on to show" in small.text
    assert "less than" not in conclude("b", "a", contrast(0.3, 0.1, 80, 0.01, 0.01), SCALE, 1).text


def test_few_sessions_and_no_spread_say_so() -> None:
    few = conclude("b", "a", contrast(3.0, 0.1, 5, 0.0625, 0.0625), SCALE, 1)
    assert few.state == "not shown"
    assert "5 sessions can show none, however large" in few.text
    assert "true one below" not in few.text
    one = Contrast(Estimate(1.0, None, None, 1, 8), None)
    assert conclude("b", "a", one, SCALE, 1).state == "not tested"
    alike = Contrast(Estimate(1.0, 1.0, 1.0, 4, 8, Spread(0.0)), None)
    assert conclude("b", "a", alike, SCALE, 1).state == "not tested"
    assert "nothing is tested" in conclude("b", "a", alike, SCALE, 1).text


def test_a_judge_that_failed_its_card_leaves_every_finding_in_doubt() -> None:
    records = evaluation(benchmark(16), (0.0, 2.0, 4.0), heldout=12)
    fit, unfit = (view(replace(records, card=card(fit=good)), REPORT, NUMBERS) for good in (True, False))
    assert {one.state for one in fit.results[0].conclusions} == {"shown"}
    assert {one.state for one in unfit.results[0].conclusions} == {"in doubt"}
    assert all("but the judge failed checks" in one.text for one in unfit.results[0].conclusions)
    assert not any("judge failed" in one.text for result in unfit.results[1:] for one in result.conclusions)
    assert "not fit for this comparison" in render(unfit)
    assert "not fit" not in render(fit)


# Where marks stand


def test_marks_stand_at_their_percentages() -> None:
    along = Axis(-1.0, 1.0, (-1.0, 0.0, 1.0), ".0f")
    markup = charts.strip([Point(1, "sft", Estimate(0.5, 0.0, 0.8, 3, 9))], along, "+.1f", "difference", band=0.25)
    assert '<rect class="band" x="37.5%" width="25%"' in markup
    assert '<line x1="50%" x2="90%" y1="13" y2="13"/>' in markup
    assert f'<svg x="75%" y="13"><path d="{charts.SHAPES[1]}"/>' in markup
    assert 'aria-label="difference: sft +0.5, 95% interval +0.0 to +0.8"' in markup
    assert markup.count('class="zero" x1="50%"') == 1


def test_a_curve_has_no_line_across_what_is_missing() -> None:
    def point(mean: float | None) -> Point:
        estimate = None if mean is None else Estimate(mean, mean - 1, mean + 1, 4, 4)
        return Point(0, "m", estimate, 0 if mean is None else 4, 4)

    groups = [(str(turn), [point(mean)]) for turn, mean in enumerate([5.0, 6.0, None, 7.0], 1)]
    markup = charts.curve(groups, Axis(0.0, 10.0, (0.0, 5.0, 10.0), ".0f"), ".1f", "by turn", "turn", "of 4")
    assert markup.count('class="join"') == 1
    assert '<line class="join" x1="12.5%" y1="110" x2="37.5%" y2="88"/>' in markup
    assert markup.count('class="bar"') == 3
    assert '<text class="missing" x="62.5%" y="293" text-anchor="middle">0</text>' in markup
    assert "3: m missing" in markup


def test_an_axis_covers_what_it_shows() -> None:
    for values in ([1.0], [3.3, 3.4], [1.0, 10.0], [-0.01, 0.13], [-4e-4, 3e-5], []):
        along = charts.axis(values, 0.001)
        assert all(along.low <= value <= along.high for value in values)
        assert 3 <= len(along.ticks) <= 8
    assert charts.axis([9.7, 10.0], 2, (1, 10)).high == 10


def test_names_in_charts_are_escaped() -> None:
    name = '"/><script>x</script>'
    point = Point(0, name, Estimate(1.0, 0.5, 1.5, 2, 2))
    along = Axis(0.0, 2.0, (0.0, 1.0, 2.0), ".0f")
    for markup in (
        charts.strip([point], along, ".1f", name),
        charts.curve([(name, [point])], along, ".1f", name, name, name),
    ):
        assert "<script" not in markup
        assert '"/>&lt;' not in markup.replace('"/><', "")


# What is shown of the transcripts


def _judged(model: str, turn: int, score: float | None) -> Judgment:
    return Judgment(model=model, dialogue="1", category="c", turn=turn, judge="j", score=score, text="why")


def test_sessions_stand_side_by_side_with_what_is_missing() -> None:
    whole = Dialogue(id="1", source="bench").say("one").say("A1").say("two").say("A2")
    short = Dialogue(id="1", source="bench").say("one").say("B1")
    played = [
        Played(model="a", category="c", dialogue=whole),
        Played(model="b", category="c", dialogue=short, failed="context full"),
    ]
    judgments = [_judged("a", 1, 3.0), _judged("b", 1, 5.0), _judged("a", 2, 4.0), _judged("b", 2, None)]
    labels = (Label(kinds=("self-contained",)), Label(kinds=("anaphora",), leans_on=1))
    question = Question(id="1", category="c", queries=("one", "two"), references=(None, None), labels=labels)
    (session,) = sessions(["a", "b"], [("b", "a")], played, judgments, [question])
    first, second = session.exchanges
    assert [answer.text for answer in first.answers] == ["A1", "B1"]
    assert first.groups == {"above-0"}  # 5 is two points above 3
    assert [answer.text for answer in second.answers] == ["A2", None]
    assert second.answers[1].missing == "context full"
    assert second.groups == {"missing"}
    assert second.label == labels[1]
    assert session.means == (3.5, 5.0)
    # A benchmark that asks something else by now labels nothing.
    other = question.model_copy(update={"queries": ("one", "another")})
    (session,) = sessions(["a", "b"], [], played, judgments, [other])
    assert [exchange.label for exchange in session.exchanges] == [labels[0], None]
    assert session.exchanges[1].query == "two"


def test_long_texts_are_cut_to_one_length_and_short_ones_leave_them_room() -> None:
    played = [
        Played(model=name, category="c", dialogue=Dialogue(id="1", source="bench").say("q").say(text))
        for name, text in (("a", "x" * 1000), ("b", "y" * 300), ("c", "z" * 1000))
    ]
    found = sessions(["a", "b", "c"], [], played, [], [])
    assert fit(found, 2300) == Limit()
    assert fit(found, 1700) == Limit(700)  # 700 + 300 + 700
    assert fit(found, 600) == Limit(200)
    assert fit(found, 0) == Limit(transcripts.LEAST)
    escaped = sessions(
        ["a"],
        [],
        [Played(model="a", category="c", dialogue=Dialogue(id="1", source="bench").say("q").say("<" * 1000))],
        [],
        [],
    )
    assert fit(escaped, 2000) == Limit(500)  # "&lt;" has four bytes


@cache
def large() -> tuple[page.Page, str]:
    """Three models on 80 sessions of 8 turns, answers of 1,000 characters and verdicts of 500."""
    shown = view(evaluation(benchmark(80), lost=0.02), REPORT, NUMBERS)
    return shown, render(shown)


def test_a_full_benchmark_stays_below_two_megabytes_and_says_what_it_cut() -> None:
    shown, html = large()
    assert 1_800_000 < len(html.encode()) < 2_000_000
    found = re.search(r"answers longer than (\d+) characters and verdicts longer than (\d+) are cut", html)
    assert found
    limit = int(found[1])
    assert limit > 300
    assert int(found[2]) == limit // 2
    assert "eval/answers.jsonl" in html
    answers = [answer for one in shown.sessions for exchange in one.exchanges for answer in exchange.answers]
    more = [len(one.text) - limit for one in answers if one.text and len(one.text) > limit]
    more += [len(one.verdict) - limit // 2 for one in answers if one.verdict and len(one.verdict) > limit // 2]
    said = [int(number) for number in re.findall(r"<i>… (\d+) more characters</i>", html)]
    assert sorted(said) == sorted(more)


def test_a_small_evaluation_is_shown_whole() -> None:
    shown = view(evaluation(benchmark(8), heldout=0), REPORT, NUMBERS)
    html = render(shown)
    assert "more characters" not in html
    for session in shown.sessions:
        for exchange in session.exchanges:
            assert all(answer.text and answer.text in html for answer in exchange.answers)


def test_the_same_records_give_the_same_bytes() -> None:
    records = evaluation(benchmark(16))
    again = evaluation(benchmark(16))
    assert render(view(records, REPORT, NUMBERS)) == render(view(again, REPORT, NUMBERS))


def test_the_policy_allows_the_page_s_own_style_and_nothing_else() -> None:
    html = render(view(evaluation(benchmark(8)), REPORT, NUMBERS))
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in html
    assert html.count("<style") == 1
    for word in ("<script", "javascript:", "http:", "https:", "url(", "@import", " style=", " on"):
        place = html.replace("http-equiv", "").find(word)
        if word == " on":  # handlers, not the word
            assert not re.search(r"<[^>]* on\w+=", html)
        else:
            assert place < 0, html[place - 80 : place + 80]


def test_evaluations_that_lack_parts_make_a_page() -> None:
    whole = evaluation(benchmark(8), heldout=4)
    bare = replace(whole, judgments=(), likelihoods=(), comparisons=(), questions=(), card=None)
    html = render(view(bare, REPORT, NUMBERS))
    assert "No judge was asked" in html
    assert "Nothing was compared" in html
    lone = Records(
        models=("base",),
        sources=("b",),
        played=tuple(one for one in whole.played if one.model == "base"),
        judgments=tuple(one for one in whole.judgments if one.model == "base"),
    )
    assert "1 model answered 8 sessions of 8 turns" in render(view(lone, REPORT, NUMBERS))
    unscored = tuple(one.model_copy(update={"score": None, "reason": "no verdict"}) for one in whole.judgments)
    html = render(view(replace(whole, judgments=unscored), REPORT, NUMBERS))
    assert "0 of 192 answers have a score" in html
    unmeasured = replace(whole, likelihoods=tuple(one for one in whole.likelihoods if one.model == "base"))
    assert view(unmeasured, REPORT, NUMBERS).context


def test_a_model_over_several_histories_is_several_players() -> None:
    own = evaluation(benchmark(8), heldout=0)
    hidden = [one.model_copy(update={"model": player(one.model, "hidden"), "history": "hidden"}) for one in own.played]
    judged = [one.model_copy(update={"model": player(one.model, "hidden"), "score": 1.0}) for one in own.judgments]
    both = replace(
        own,
        histories=("own", "hidden"),
        played=(*own.played, *hidden),
        judgments=(*own.judgments, *judged),
    )
    shown = view(both, REPORT, NUMBERS)
    assert shown.models == (*MODELS, *(f"{name} (history hidden)" for name in MODELS))
    assert ("capo", "capo (history hidden)") in shown.pairs
    html = render(shown)
    assert "every turn over the model&#39;s own earlier answers or without its history" in html
    assert html.count("SmolLM2-135M-Instruct + runs/demo/train-capo/adapter") == 2


# In a browser


def _chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    path = _chromium()
    if path is None:
        pytest.skip("no Chromium on PATH, and none named by the environment's CHROMIUM")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page in the browser, and all that it did beyond showing itself."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.url = path.as_uri()
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.events: list[str] = []
        self.page.on("request", lambda request: self._heard("request", request.url))
        self.page.on("pageerror", lambda error: self._heard("error", str(error)))
        self.page.on("console", lambda message: self._heard("console", message.text))
        self.page.on("dialog", lambda dialog: (self._heard("dialog", dialog.message), dialog.dismiss()))
        self.page.goto(self.url)

    def _heard(self, what: str, text: str) -> None:
        if (what, text) != ("request", self.url):
            self.events.append(f"{what}: {text}")

    def __call__(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def count(self, selector: str) -> int:
        """How many such elements can be seen; those of a closed session cannot."""
        return int(self(f"[...document.querySelectorAll({selector!r})].filter(e => e.checkVisibility()).length"))

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def open_all(self) -> None:
        self("document.querySelectorAll('details').forEach(one => one.open = true)")


HOSTILE = [
    "<script>document.title = 'owned'; alert(1)</script>",
    "</pre></div></details></style></textarea></title><script>alert(2)</script>",
    "<img src=http://127.0.0.1:9/pixel.png onerror=alert(3)> <svg onload=alert(4)> <iframe src=http://127.0.0.1:9/>",
    "<a href=\"javascript:alert(5)\" onmouseover='alert(6)'>here</a> <style>body{display:none}</style>",
    "<!-- <b> --> &lt;kept&gt; &amp; &#x202e; ]]> {{ 7 * 7 }} {% raw %} ${7*7}",
    "\u202eright to left\u202c \u2067isolated \u202d never closed",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d" * 40,
    "nul \x00, bell \x07, escape \x1b[31m, delete \x7f, next line \x85, lone \r return, windows\r\nline",
    "lone \ud800 surrogate and \udfff another",
    "x" * 100_000,
    "\u05e9\u05dc\u05d5\u05dd " * 30 + "abc",
    "tab\tand   spaces\n\n\nlines " + "\U0001f99c" * 500,
]


def hostile() -> Records:
    """Two models with hostile names who say all that, to queries that say it, with verdicts that say it."""
    names = ('base"><script>alert(7)</script>\u202e', "<img src=x onerror=alert(8)>" + "w" * 120)
    category = "</span><script>alert(9)</script> c1 all"

    def turns(shift: int) -> tuple[Turn, ...]:
        texts = [HOSTILE[(index + shift) % len(HOSTILE)] for index in range(len(HOSTILE))]
        # Not validated: a record read from a file never has a lone surrogate, one made by a program may.
        return tuple(
            Turn.model_construct(role=role, content=text)
            for query, text in zip(HOSTILE, texts, strict=True)
            for role, text in (("user", query), ("assistant", text))
        )

    played = [
        Played.model_construct(
            model=name,
            category=category,
            dialogue=Dialogue.model_construct(
                id="<b>1</b>", source="bench", turns=turns(shift), ended=None, given=None
            ),
            failed=None,
            lasting=None,
            tokens=None,
            seconds=0.0,
        )
        for shift, name in enumerate(names)
    ]
    judgments = [
        Judgment.model_construct(
            model=name,
            dialogue="<b>1</b>",
            category=category,
            turn=turn,
            judge="<script>alert(10)</script>@single",
            score=float(turn % 10 + 1) if turn > 2 else None,
            text=HOSTILE[-turn],
            reason=None if turn > 2 else HOSTILE[turn],
            lasting=None,
        )
        for name in names
        for turn in range(1, len(HOSTILE) + 1)
    ]
    return Records(models=names, sources=names, played=tuple(played), judgments=tuple(judgments))


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = Table(HOSTILE[0], (HOSTILE[1], "B" * 300), ((HOSTILE[2], HOSTILE[5]), (HOSTILE[3], "9\n8")), (HOSTILE[4],))
    report = Report(HOSTILE[1], ((HOSTILE[2], HOSTILE[8]),), (HOSTILE[3], HOSTILE[9][:5000]), (table,))
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_text(render(view(hostile(), report, NUMBERS)), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [400, 1280])
def test_hostile_text_is_shown_as_written_and_does_nothing(browser: Any, hostile_page: Path, width: int) -> None:
    opened = Opened(browser, hostile_page, width)
    assert opened.overflow <= 0
    opened.open_all()
    assert opened.overflow <= 0
    shown = opened("[...document.querySelectorAll('.answers > div > pre')].map(one => one.textContent)")
    expected = [HOSTILE[(turn + shift) % len(HOSTILE)] for turn in range(len(HOSTILE)) for shift in range(2)]
    assert shown == [visible(text) for text in expected]
    assert opened("[...document.querySelectorAll('.query pre')].map(one => one.textContent)") == list(
        map(visible, HOSTILE)
    )
    verdicts = opened("[...document.querySelectorAll('.answers details pre')].map(one => one.textContent)")
    assert verdicts == [visible(HOSTILE[-turn]) for turn in range(1, len(HOSTILE) + 1) for _ in range(2)]
    assert (
        opened("document.querySelectorAll('script, img, iframe, a:not([href^=\"#\"]), textarea, [onload]').length") == 0
    )
    assert opened("document.querySelectorAll('style').length") == 1
    assert opened("document.title") == visible(HOSTILE[1])
    # An override in a name turns round nothing behind it: scores stand on the right of every answer's line.
    lines = opened(
        "[...document.querySelectorAll('h4')].filter(one => one.querySelector('b')).map(one => "
        "[one.querySelector('bdi').getBoundingClientRect().right, one.querySelector('b').getBoundingClientRect().left, "
        "one.querySelector('b').getBoundingClientRect().right, one.getBoundingClientRect().right])"
    )
    assert len(lines) == 20
    assert all(name <= left and right <= end for name, left, right, end in lines)
    assert opened.events == []


def test_the_policy_holds_where_escaping_would_have_failed(browser: Any, hostile_page: Path, tmp_path: Path) -> None:
    html = hostile_page.read_text(encoding="utf-8")
    owned = "document.title='owned'"
    attack = f'<script>{owned}</script><style>h1{{display:none}}</style><img src=x onerror="{owned}">'
    path = tmp_path / "report.html"
    path.write_text(html.replace("<main>", f"<main>{attack}", 1), encoding="utf-8")
    opened = Opened(browser, path)
    assert opened("document.title") == visible(HOSTILE[1])
    assert opened.count("h1") == 1
    assert len([event for event in opened.events if "Content Security Policy" in event]) >= 3
    path.write_text(html.replace("Content-Security-Policy", "X-None", 1).replace("<main>", f"<main>{attack}", 1))
    assert Opened(browser, path)("document.title") == "owned"  # the attack works but for the policy


@pytest.fixture(scope="module")
def large_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "report.html"
    path.write_text(large()[1], encoding="utf-8")
    return path


def test_filters_leave_the_sessions_and_answers_that_pass(browser: Any, large_page: Path) -> None:
    shown = large()[0]
    opened = Opened(browser, large_page)
    opened.open_all()
    everything = sum(len(session.exchanges) for session in shown.sessions) * len(MODELS)
    assert opened.count(".session") == len(shown.sessions) == 80
    assert opened.count(".answers > div") == everything == 1920

    def expected(category: str | None, kind: str | None, group: str | None) -> tuple[int, int]:
        passing = [
            [
                exchange
                for exchange in session.exchanges
                if (kind is None or (exchange.label and kind in exchange.label.kinds))
                and (group is None or group in exchange.groups)
            ]
            for session in shown.sessions
            if category in (None, session.category)
        ]
        return sum(map(bool, passing)), sum(map(len, passing)) * len(MODELS)

    def seen() -> tuple[int, int]:
        return opened.count(".session"), opened.count(".answers > div")

    groups = filters(shown)
    assert {"above-0", "above-2", "alike", "missing"} <= groups.keys()
    for category, kind, group in [
        ("math", None, None),
        (None, "ellipsis", None),
        (None, None, "above-2"),
        ("math", "self-contained", "above-2"),
        ("writing", "shift", "missing"),
        (None, "anaphora", "below-1"),
    ]:
        opened.page.locator("button", has_text="Show everything again").click()
        assert seen() == (80, 1920)
        for legend, label in (
            ("Category", category),
            ("Kind of query", kind),
            ("Scores at the turn", groups.get(group or "")),
        ):
            if label is not None:
                opened.page.locator("fieldset", has_text=legend).get_by_label(label, exact=True).check()
        assert seen() == expected(category, kind, group), (category, kind, group)
    opened.page.locator("button", has_text="Show everything again").click()
    opened.page.locator("fieldset", has_text="Answers of").get_by_label("sft").uncheck()
    assert opened.count(".answers > div") == everything * 2 // 3
    assert opened.count(".answers > .m1") == 0
    assert opened.events == []


def test_filters_are_reached_and_set_by_the_keyboard(browser: Any, large_page: Path) -> None:
    opened = Opened(browser, large_page)
    opened.page.locator("#c-all").focus()
    opened.page.keyboard.press("ArrowRight")
    assert opened.count(".session") == 10
    opened.page.keyboard.press("Tab")
    assert opened("document.activeElement.name") == "kind"
    opened.page.locator(".session.c0 summary").first.focus()
    opened.page.keyboard.press("Enter")
    assert opened.count(".answers > div") == 24


@pytest.mark.parametrize("width", [400, 700, 1280])
def test_the_page_is_as_wide_as_its_window(browser: Any, large_page: Path, width: int) -> None:
    opened = Opened(browser, large_page, width)
    assert opened.overflow <= 0
    opened("document.querySelectorAll('details').forEach((one, place) => one.open = place < 40)")
    assert opened.overflow <= 0
    columns = opened(
        "new Set([...document.querySelectorAll('.session[open] .answers')[0].children].map(e => e.offsetLeft)).size"
    )
    assert columns == {400: 1, 700: 2, 1280: 3}[width]
    # Text in charts keeps its size, and none of it leaves its box.
    assert set(opened("[...document.querySelectorAll('svg text')].map(one => getComputedStyle(one).fontSize)")) == {
        "11px",
        "12px",
    }
    outside = opened(
        "[...document.querySelectorAll('.chart')].flatMap(box =>"
        "[...box.querySelectorAll('text, path')].filter(one => {"
        "const a = one.getBoundingClientRect(), b = box.getBoundingClientRect();"
        "return a.left < b.left || a.right > b.right || a.bottom > b.bottom}).map(one => one.textContent))"
    )
    assert outside == []
    assert opened.events == []


def test_contrast_of_text_in_both_modes(browser: Any, large_page: Path) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1; of marks, 1.4.11: 3 to 1."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def ratio(one: str, other: str) -> float:
        high, low = sorted((luminance(one), luminance(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    grounds = []
    for scheme in ("light", "dark"):
        opened = Opened(browser, large_page, 1280, scheme)
        ground = opened("getComputedStyle(document.body).backgroundColor")
        box = opened("getComputedStyle(document.querySelector('.chart')).backgroundColor")
        grounds.append(luminance(ground))
        for selector in ("body", ".note", ".warning", "a", ".state"):
            colour = opened(f"getComputedStyle(document.querySelector({selector!r})).color")
            assert ratio(colour, ground) >= 4.5, (scheme, selector)
        for series in range(charts.COLOURS):
            opened(f"document.querySelector('h1').className = 's{series}'")
            assert ratio(opened("getComputedStyle(document.querySelector('h1')).color"), box) >= 3, (scheme, series)
    assert grounds[0] > 0.9 > 0.1 > grounds[1]


def test_headings_tables_and_pictures_are_named(browser: Any, large_page: Path) -> None:
    opened = Opened(browser, large_page)
    levels = [int(name[1]) for name in opened("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => one.tagName)")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert opened("[...document.querySelectorAll('th')].every(one => ['col', 'row'].includes(one.scope))")
    assert opened("[...document.querySelectorAll('table')].every(one => one.caption)")
    assert opened(
        "[...document.querySelectorAll('svg[role=img]')].every(one => one.getAttribute('aria-label').length > 20)"
    )
    assert opened(
        "[...document.querySelectorAll('svg:not(svg svg):not([role=img])')].every(one => one.ariaHidden === 'true')"
    )
    assert opened("[...document.querySelectorAll('input')].every(one => one.labels.length === 1)")
    ids = opened("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
