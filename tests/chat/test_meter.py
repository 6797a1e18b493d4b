"""What is counted, that it is counted once, and that a cap is one."""

import json
import threading
import time
from pathlib import Path

import pytest

from parrot_lite.chat.meter import FILE, SPENT, Meter, check_prices
from parrot_lite.errors import UserError
from parrot_lite.recipe import Server
from parrot_lite.recipe_file import load
from parrot_lite.types import Reply

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"
REPLY = Reply(text="Yes.", stop="end", prompt_tokens=30, tokens=4)


def test_counts_by_hand_over_two_attempts(tmp_path):
    recipe = load(DEMO, ["prices.m={input=2, output=10}"])
    for _ in range(2):
        with Meter(recipe, tmp_path) as meter:
            for address in ("a", "b"):
                assert meter.begin("m", address) is None
                meter.end("m", REPLY, address=address)
            assert meter.begin("m", "b") is None
            meter.end("m", Reply.failure("HTTP 429: slow down"), "429", "b")
            assert meter.begin("other") is None  # killed before it came back
    facts = meter.facts()
    assert facts == {
        "m": {
            "calls": 6,
            "prompt_tokens": 120,
            "tokens": 16,
            "cut": 0,
            "without usage": 0,
            "failures": {"429": 2},
            "addresses": {"a": {"calls": 2}, "b": {"calls": 4, "failed": 2}},
            "money": 0.0004,  # 120 x 2 + 16 x 10 = 400, of a million
        },
        "other": {"calls": 2, "failures": {}},
    }
    assert (meter.tokens, meter.note) == (16, "0.00 spent")
    assert json.loads((tmp_path / "usage.json").read_text())["m"]["calls"] == 6


def test_the_file_is_written_while_the_stage_works(tmp_path):
    with Meter(None, tmp_path) as meter:
        meter.begin("m")
        for _ in range(200):
            if (tmp_path / "usage.json").exists():
                break
            threading.Event().wait(0.05)
        assert json.loads((tmp_path / "usage.json").read_text()) == {"m": {"calls": 1, "failures": {}}}


def test_many_threads_cannot_make_one_call_too_many():
    meter = Meter(load(DEMO, ["budget.calls=50"]))
    reasons = []

    def work():
        for _ in range(100):
            reasons.append(meter.begin("m"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasons.count(None) == 50
    assert {reason for reason in reasons if reason} == {f"{SPENT}: 50 of 50 calls (budget.calls)"}


def test_only_servers_need_a_price_and_only_for_a_cap_of_money():
    server = Server(kind="server", base_url="http://127.0.0.1/v1", model="m/x")
    check_prices(load(DEMO, ["budget.calls=3"]), [server])
    capped = load(DEMO, ["budget.money=3"])
    check_prices(capped, [capped.collect.asker, capped.collect.answerer])
    with pytest.raises(UserError, match="m/x has no price"):
        check_prices(capped, [server])
    check_prices(load(DEMO, ["budget.money=3", "prices={'m/x'={input=0, output=0}}"]), [server])


def test_neither_budget_nor_prices_decide_a_result():
    before, after = load(DEMO), load(DEMO, ["budget.calls=3", "budget.money=1", "prices.m={input=1, output=1}"])
    assert before.resolved("collect") == after.resolved("collect")


def test_what_costs_nothing_need_not_say_what_it_used():
    recipe = load(DEMO, ["budget.money=3", "prices.m={input=0, output=0}", "prices.n={input=1, output=0}"])
    meter = Meter(recipe)
    assert meter.begin("m") is None
    meter.end("m", Reply(text="Yes.", stop="end"))
    assert meter.begin("m") is None
    meter.end("n", Reply(text="Yes.", stop="end"))
    assert "n does not say what it used" in (meter.begin("m") or "")


def test_a_disk_that_was_full_loses_no_spending(tmp_path, monkeypatch):
    monkeypatch.setattr("parrot_lite.chat.meter.SECONDS", 0.01)
    folder = tmp_path / "later"  # not there yet: the first writes fail
    with Meter(None, folder) as meter:
        meter.begin("m")
        time.sleep(0.1)
        folder.mkdir()
        deadline = time.monotonic() + 10
        while not (folder / FILE).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (folder / FILE).exists()  # while the stage still runs
