from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parrot_lite.chat import batch, open_chat
from parrot_lite.chat.batch import BatchChat
from parrot_lite.chat.meter import Meter
from parrot_lite.errors import UserError
from parrot_lite.evaluate import evaluation
from parrot_lite.recipe import Decoding, Server
from parrot_lite.recipe_file import load
from parrot_lite.store import read
from parrot_lite.types import Dialogue, Judgment, Reply, SessionTree, derive_seed
from tests.chat.batches import Batches, Row, answered, batches, expired, refused

ROOT = Path(__file__).parents[2]
DECODING = Decoding(temperature=0.5, top_p=0.8, max_tokens=20)


def said(request: dict[str, Any]) -> str:
    return f"to: {request['body']['messages'][-1]['content']}"


def usual(request: dict[str, Any]) -> Row | None:
    return answered(said(request))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    monkeypatch.setattr(batch, "FIRST_WAIT", 0.01)
    with batches(usual) as running:
        yield running


@pytest.fixture
def chat(server: Batches, tmp_path: Path) -> BatchChat:
    return BatchChat(spec(server), tmp_path / ".batches")


def spec(server: Batches, **keys: Any) -> Server:
    return Server(
        kind="server", base_url=server.address, model="m", batch=True, **{"timeout": 5.0, "retries": 0, **keys}
    )


def dialogues(*numbers: int) -> list[Dialogue]:
    return [Dialogue(id=f"d{i}", source="test").say(f"question {i}") for i in numbers]


def ask(chat: BatchChat, *numbers: int) -> list[Reply]:
    return chat.reply(dialogues(*numbers), "assistant", DECODING, 3)


def test_a_call_is_a_line_of_a_file_and_replies_come_in_order(server: Batches, chat: BatchChat) -> None:
    begun = Dialogue(id="é/1", source="test").say("one").say("two").say("a\u2028three")
    replies = chat.reply([*dialogues(0, 1), begun], "assistant", DECODING, 3)
    assert [reply.text for reply in replies] == ["to: question 0", "to: question 1", "to: a\u2028three"]
    assert [(reply.stop, reply.tokens) for reply in replies] == [("end", 5)] * 3
    assert server.purposes == ["batch"]
    (sent,) = server.created
    assert server.names() == ["d0#1", "d1#1", "é/1#3"]
    assert sent[2] == {
        "custom_id": "é/1#3",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "m",
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": "a\u2028three"},
            ],
            "temperature": 0.5,
            "top_p": 0.8,
            "max_tokens": 20,
            "seed": derive_seed(3, "é/1", 3),
        },
    }
    (made,) = server.batches.values()
    assert (made["endpoint"], made["completion_window"]) == ("/v1/chat/completions", "24h")
    assert server.seen.count(("GET", "/v1/batches/batch_0")) == 2  # in_progress, completed


def test_the_same_call_twice_is_one_request_and_two_under_one_name_are_a_bug(server: Batches, chat: BatchChat) -> None:
    first, second = ask(chat, 1, 1)
    assert first == second
    assert server.names() == ["d1#1"]
    with pytest.raises(ValueError, match="two different calls for d1#1"):
        chat.reply([*dialogues(1), Dialogue(id="d1", source="test").say("else")], "assistant", DECODING, 3)


def test_nothing_is_asked_for_where_nobody_speaks(server: Batches, chat: BatchChat) -> None:
    assert ask(chat) == []
    assert server.seen == []


FAULTS: dict[str, tuple[Row | None, str | None, str]] = {  # the row; what lasts; how the reason begins
    "d1#1": (expired(), None, "batch_expired: not executed within the window"),
    "d2#1": (refused(400, "beyond the context length"), "context full", "HTTP 400: beyond the context length"),
    "d3#1": (refused(400, "malformed"), "refused request", "HTTP 400: malformed"),
    "d4#1": (refused(500, "broke"), None, "HTTP 500: broke"),
    "d5#1": (answered("I", "content_filter"), "content filter", "HTTP 200, stopped as content_filter"),
    "d6#1": (answered(" "), "empty reply", "HTTP 200, empty reply"),
    "d7#1": (None, None, "batch batch_0 completed, no row for this request"),
    "d8#1": ({"response": {"status_code": 200, "body": "?"}, "error": None}, None, "HTTP 200, not a chat completion"),
    "d9#1": ({"response": None, "error": None}, None, "a row without a response"),
}


def test_what_failed_says_why_and_only_what_may_go_well_is_sent_again(server: Batches, chat: BatchChat) -> None:
    server.result = lambda request: (
        FAULTS[request["custom_id"]][0] if request["custom_id"] in FAULTS else usual(request)
    )
    replies = ask(chat, *range(11))
    for name, reply in zip([f"d{i}#1" for i in range(11)], replies, strict=True):
        _, lasting, reason = FAULTS.get(name, (None, None, ""))
        assert (reply.text is None) == (name in FAULTS)
        assert reply.lasting == lasting
        assert (reply.reason or "").startswith(reason)
    server.result = usual
    again = ask(chat, *range(11))
    assert [name for name in server.names() if FAULTS[name][1]] == []
    assert set(server.names()) == {name for name, fault in FAULTS.items() if fault[1] is None}
    assert [reply.lasting for reply in again if reply.text is None] == [
        "context full",
        "refused request",
        "content filter",
        "empty reply",
    ]
    ask(chat, *range(11))
    assert len(server.created) == 2


def test_where_nobody_is_answered_a_refusal_may_be_about_the_set_up(server: Batches, chat: BatchChat) -> None:
    server.result = lambda request: refused(403 if request["custom_id"] == "d1#1" else 422, "no")
    assert [reply.lasting for reply in ask(chat, 0, 1)] == [None, None]
    server.result = usual
    assert [reply.text for reply in ask(chat, 0, 1)] == ["to: question 0", "to: question 1"]
    assert len(server.created) == 2


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_was_answered_before_a_batch_ended_early_counts(server: Batches, chat: BatchChat, end: str) -> None:
    server.life[-1] = end
    server.result = lambda request: None if request["custom_id"] == "d1#1" else usual(request)
    first, second = ask(chat, 0, 1)
    assert first.text == "to: question 0"
    assert (second.lasting, second.reason) == (None, f"batch batch_0 {end}, no row for this request")
    server.life, server.result = ["completed"], usual
    assert [reply.text for reply in ask(chat, 0, 1)] == ["to: question 0", "to: question 1"]
    assert server.names() == ["d1#1"]


def test_a_batch_that_is_not_valid_fails_whole_and_may_be_sent_again(server: Batches, chat: BatchChat) -> None:
    server.life, server.errors = ["validating", "failed"], [{"code": "model_not_found", "message": "no model m"}]
    for reply in ask(chat, 0, 1):
        assert (reply.lasting, reply.reason) == (None, "batch batch_0 failed: no model m")
    server.life = ["validating", "in_progress", "completed"]
    assert [reply.text for reply in ask(chat, 0, 1)] == ["to: question 0", "to: question 1"]
    assert len(server.created) == 2


def test_files_keep_to_the_limits(server: Batches, chat: BatchChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_REQUESTS", 2)
    assert [reply.text for reply in ask(chat, *range(5))] == [f"to: question {i}" for i in range(5)]
    assert [server.names(i) for i in range(len(server.created))] == [["d0#1", "d1#1"], ["d2#1", "d3#1"], ["d4#1"]]
    line = len(chat._request(dialogues(0)[0], DECODING, 3).line)
    monkeypatch.setattr(batch, "MOST_REQUESTS", 50_000)
    monkeypatch.setattr(batch, "MOST_BYTES", 3 * line + 1)
    ask(chat, 6, 7, 8, 9)
    assert [server.names(i) for i in (3, 4)] == [["d6#1", "d7#1", "d8#1"], ["d9#1"]]
    assert len(server.files["file-6"]) <= 3 * line + 1


def test_a_part_of_what_is_on_its_way_is_not_sent_again(
    server: Batches, chat: BatchChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PATIENCE", -1.0)
    server.script["GET", "/v1/batches/batch_0"] = deque([500])
    with pytest.raises(UserError, match="no word about batch batch_0"):
        ask(chat, 0, 1, 2)
    replies = BatchChat(chat._spec, chat._folder).reply(dialogues(1, 2, 3), "assistant", DECODING, 3)
    assert [reply.text for reply in replies] == ["to: question 1", "to: question 2", "to: question 3"]
    assert [server.names(i) for i in range(len(server.created))] == [["d0#1", "d1#1", "d2#1"], ["d3#1"]]
    assert ask(chat, 0)[0].text == "to: question 0"  # came with the others
    assert len(server.created) == 2


@pytest.mark.parametrize("status", [0, 502])
def test_a_create_whose_answer_is_lost_is_looked_up_first(server: Batches, chat: BatchChat, status: int) -> None:
    server.script["POST", "/v1/batches"] = deque([status])
    with pytest.raises(UserError, match="what was sent is kept"):
        ask(chat, 0, 1)
    assert [reply.text for reply in ask(chat, 0, 1)] == ["to: question 0", "to: question 1"]
    assert len(server.created) == 1  # with 0 the first one was made, with 502 it was not
    assert list(chat._folder.glob("*.json")) == []


def test_troubles_on_the_way_do_not_stop_a_day_of_looking(server: Batches, chat: BatchChat) -> None:
    server.script["GET", "/v1/batches/batch_0"] = deque([500, 0, 429])
    assert ask(chat, 0)[0].text == "to: question 0"
    assert len(server.created) == 1


def test_a_download_that_breaks_is_made_again_by_the_next_run(server: Batches, chat: BatchChat) -> None:
    server.script["GET", "/v1/files/file-1/content"] = deque([500])
    with pytest.raises(UserError, match="HTTP 500: as scripted; what was sent is kept"):
        ask(chat, 0)
    assert ask(chat, 0)[0].text == "to: question 0"
    assert len(server.created) == 1


@pytest.mark.parametrize(
    ("at", "status", "complaint"),
    [
        (("POST", "/v1/files"), 404, "no Batch API there: HTTP 404: as scripted. Set batch = false"),
        (("POST", "/v1/batches"), 404, "no Batch API there"),
        (("POST", "/v1/files"), 401, r"refuses the key: HTTP 401: as scripted\. Put a valid key into \$MY_KEY"),
        (("POST", "/v1/batches"), 401, "refuses the key"),
        (("GET", "/v1/batches/batch_0"), 401, "refuses the key"),
        (("GET", "/v1/batches/batch_0"), 404, "the server knows no batch batch_0. Use the key"),
    ],
)
def test_what_no_retry_can_mend(
    server: Batches, tmp_path: Path, at: tuple[str, str], status: int, complaint: str
) -> None:
    server.script[at] = deque([status])
    with pytest.raises(UserError, match=complaint):
        ask(BatchChat(spec(server, api_key_env="MY_KEY"), tmp_path), 0)


def test_a_refused_batch_fails_its_requests_alone(
    server: Batches, chat: BatchChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_REQUESTS", 1)
    server.script["POST", "/v1/batches"] = deque([400])
    first, second = ask(chat, 0, 1)
    assert (first.reason, first.lasting) == ("HTTP 400: as scripted", None)
    assert second.text == "to: question 1"
    assert ask(chat, 0)[0].text == "to: question 0"


def test_another_seed_decoding_or_address_is_another_request(server: Batches, chat: BatchChat) -> None:
    ask(chat, 0)
    chat.reply(dialogues(0), "assistant", DECODING, 4)
    chat.reply(dialogues(0), "assistant", DECODING.model_copy(update={"max_tokens": 21}), 3)
    BatchChat(Server(**{**dict(chat._spec), "base_url": server.address + "/"}), chat._folder).reply(
        dialogues(0), "assistant", DECODING, 3
    )
    assert len(server.created) == 4


def test_a_meter_counts_what_is_sent_and_what_it_used(server: Batches, tmp_path: Path) -> None:
    recipe = load(ROOT / "recipes/demo.toml", ["budget.calls=3", "prices={m={input=1.0, output=2.0}}"])
    meter = Meter(recipe)
    chat = BatchChat(spec(server), tmp_path / ".batches", meter)
    assert all(reply.text for reply in ask(chat, 0, 1))
    ask(chat, 0, 1)  # known, so not a call
    replies = ask(chat, 0, 1, 2, 3)
    assert [reply.text is None for reply in replies] == [False, False, False, True]
    assert (replies[3].reason or "").startswith("the budget is spent: 3 of 3 calls")
    assert server.names() == ["d2#1"]
    used = meter.facts()["m"]
    assert (used["calls"], used["prompt_tokens"], used["tokens"]) == (3, 3 * 11, 3 * 5)
    assert used["money"] == pytest.approx((3 * 11 + 3 * 5 * 2) / 1e6)


def test_a_choice_of_replies_is_refused_before_a_call(server: Batches, chat: BatchChat) -> None:
    with pytest.raises(UserError, match="cannot be asked to weigh a choice"):
        chat.reply(dialogues(1), "assistant", DECODING.model_copy(update={"choices": ("yes", "no")}), 0)
    assert server.seen == []


def speaker(server: Batches) -> str:
    return f'{{kind="server", base_url="{server.address}", model="m", batch=true, retries=0}}'


@pytest.mark.parametrize("key", ["collect.asker", "collect.answerer", "eval.models.base"])
def test_a_loop_is_refused_when_the_recipe_is_read(server: Batches, key: str) -> None:
    with pytest.raises(UserError, match="each call waits for the reply before it") as refusal:
        load(ROOT / "recipes/demo.toml", [f"{key}={speaker(server)}"])
    assert refusal.value.where == f"{key}.batch"


def test_a_recipe_says_who_speaks_in_batches(server: Batches) -> None:
    recipe = load(ROOT / "recipes/demo.toml", [f"negatives.writer={speaker(server)}"])
    assert isinstance(open_chat(recipe.negatives.writer, recipe), BatchChat)
    plain = load(ROOT / "recipes/demo.toml", [f"negatives.writer={speaker(server).replace('true', 'false')}"])
    assert not isinstance(open_chat(plain.negatives.writer, plain), BatchChat)
    assert recipe.resolved("negatives") == plain.resolved("negatives")  # it may be turned on in the middle of a stage


SESSIONS = [
    Dialogue(id=f"s{i}", source="test")
    .say(f"Tell me of town {i}.")
    .say("It lies on a river.")
    .say("How old is it?")
    .say("Very old.")
    for i in range(6)
]

STAGE = """
import sys
from parrot_lite.chat import batch
from parrot_lite.cli import main
batch.FIRST_WAIT = 0.05
sys.argv = ["parrot", *sys.argv[1:]]
main()
"""


def negatives(server: Batches, folder: Path) -> list[str]:
    data = folder / "data.jsonl"
    data.write_text("".join(session.model_dump_json(exclude_none=True) + "\n" for session in SESSIONS))
    keys = [f"run.folder={folder / 'runs'}", f'negatives.data=["{data}"]', f"negatives.writer={speaker(server)}"]
    demo = str(ROOT / "recipes/demo.toml")
    return [sys.executable, "-c", STAGE, "negatives", demo, *keys, "negatives.chunk=1", "negatives.sessions=6"]


def test_a_stage_killed_while_it_waits_finds_its_batch(server: Batches, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = negatives(server, tmp_path)
    server.held.set()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while ("GET", "/v1/batches/batch_0") not in server.seen:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [len(requests) for requests in server.created] == [6]  # every session's guess, whatever the chunk
    server.held.clear()

    def short(request: dict[str, Any]) -> Row:
        return answered("Nobody knows.")

    # One answer expires: its session alone stays unfinished, and the next run sends that one request.
    lost = "s2/2/neglect"
    server.result = lambda request: expired() if request["custom_id"].startswith(lost) else short(request)
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "batch batch_0: sent before, not sent again" in second.stderr
    assert "1 of 6 sessions have failed calls (first reason: batch_expired: not executed" in second.stderr
    assert [len(requests) for requests in server.created] == [6, 18]  # 6 sessions x 1 turn x 3 kinds

    server.result = short
    third = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr
    assert len(server.created) == 3
    assert [name.startswith(lost) for name in server.names()] == [True]
    folder = tmp_path / "runs" / "demo"
    trees = list(read(folder / "negatives" / "trees.jsonl", SessionTree))
    assert [tree.id for tree in trees] == [session.id for session in SESSIONS]
    assert all(len(tree.branches) == 3 for tree in trees)
    assert {branch.negative.writer for tree in trees for branch in tree.branches} == {"m"}
    assert list((folder / ".batches").glob("*.json")) == []


def test_all_verdicts_are_one_batch(server: Batches, tmp_path: Path) -> None:
    def result(request: dict[str, Any]) -> Row | None:
        repair = len(request["body"]["messages"]) > 1
        vague = request["custom_id"].startswith("base/1/2") and not repair
        return answered("No idea." if vague else "Rating: [[7]]")

    server.result = result
    questions = [{"question_id": i, "category": "writing", "turns": ["Write a line.", "Shorten it."]} for i in (1, 2)]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    (tmp_path / "answers.jsonl").write_text('"A line."\n')
    (tmp_path / "demo.toml").write_text((ROOT / "recipes/demo.toml").read_text().partition("[eval.probe]")[0])
    scripted = f'{{kind="scripted", path="{tmp_path / "answers.jsonl"}"}}'
    keys = [f"eval.models.{name}={scripted}" for name in ("base", "sft", "capo")]
    keys += [f"run.folder={tmp_path}", f"eval.bench={tmp_path / 'bench.jsonl'}", "eval.judge.verdict=written"]
    few = speaker(server).replace("}", ", concurrency=2}")
    recipe = load(tmp_path / "demo.toml", [*keys, f"eval.judge.chat={few}"])
    evaluation.run(recipe)
    judgments = list(read(recipe.folder("eval") / "judgments.jsonl", Judgment))
    assert [one.score for one in judgments] == [7.0] * 12
    assert [len(requests) for requests in server.created] == [12, 1]  # 3 models x 2 sessions x 2 turns; one repair
