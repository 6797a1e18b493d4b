"""Choices weighed by a server's likeliest tokens, against probabilities worked by hand and by enumeration."""

from __future__ import annotations

import doctest
import json
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from parrot_lite.chat import choices
from parrot_lite.chat.choices import Likeliest, way, weigh
from parrot_lite.chat.server import ServerChat
from parrot_lite.errors import UserError
from parrot_lite.recipe import Decoding, Server
from parrot_lite.types import Dialogue
from tests.chat.loopback import Answer, completion, error, loopback

VERDICTS = tuple(f"[[{n}]]" for n in range(1, 11))
DIGITS = tuple(map(str, range(1, 11)))


def test_doctests() -> None:
    assert doctest.testmod(choices).failed == 0


def test_a_tokenizer_that_has_10_as_one_token_needs_one_place() -> None:
    told = {"": {"10": math.log(0.5), " 7": math.log(0.3), "9": math.log(0.1), "I": math.log(0.1)}}
    assert weigh(DIGITS, told.get) == pytest.approx([0, 0, 0, 0, 0, 0, 0.3, 0, 0.1, 0.5])


def test_where_1_and_10_part_on_the_way_nothing_is_lost() -> None:
    told = {
        "": {"[[": 0.0},
        "[[": {"1": math.log(0.6), "7": math.log(0.4)},
        "[[1": {"]]": math.log(0.25), "0": math.log(0.75)},
    }
    weights = weigh(VERDICTS, told.get)
    assert weights == pytest.approx([0.15, 0, 0, 0, 0, 0, 0.4, 0, 0, 0.45])
    assert sum(weights) == pytest.approx(1)


def test_where_they_part_off_the_way_their_share_is_lost() -> None:
    told = {"": {"[[": math.log(0.9), "Well": math.log(0.1)}, "[[": {"1": math.log(0.2), "7": math.log(0.8)}}
    weights = weigh(VERDICTS, told.get)
    assert weights[6] == pytest.approx(0.72)
    assert sum(weights) == pytest.approx(0.72)


def _random_tree(rng: random.Random, texts: Sequence[str]) -> tuple[dict[str, Likeliest], dict[str, float]]:
    """A made-up model that writes characters, or two at once, and the exact probability that it begins as each text."""
    told: dict[str, Likeliest] = {}
    exact = dict.fromkeys(texts, 0.0)

    def grow(beginning: str, share: float) -> None:
        if beginning in exact:
            exact[beginning] += share
            return
        following = sorted({text[len(beginning) :] for text in texts if text.startswith(beginning)})
        if not following:
            return
        tokens = sorted({rest[: rng.choice((1, 2))] for rest in following} | {"x"})
        raw = [rng.random() for _ in tokens]
        told[beginning] = {token: math.log(one / sum(raw)) for token, one in zip(tokens, raw, strict=True)}
        for token, one in zip(tokens, raw, strict=True):
            grow(beginning + token, share * one / sum(raw))

    grow("", 1.0)
    return told, exact


@pytest.mark.parametrize("seed", range(30))
def test_what_is_told_everywhere_is_exact(seed: int) -> None:
    rng = random.Random(seed)
    # No text is the only continuation of a proper beginning of it, so nothing is taken as a text before it is whole.
    texts = ("aa", "ab", "ba", "bb", "ca", "cb")
    told, exact = _random_tree(rng, texts)
    found = dict(zip(texts, weigh(texts, told.get), strict=True))
    assert found == pytest.approx(exact, abs=7 * choices.LEAST)


def test_the_way_of_a_reply() -> None:
    places = [(" [[", {" [[": -0.1}), ("1", {"1": -0.2}), ("]]", {"]]": -0.3})]
    assert way(places) == {"": {" [[": -0.1}, " [[": {"1": -0.2}, " [[1": {"]]": -0.3}}


# A model that says [[ with 0.98, then 1 with 0.35, 8 with 0.6 or another digit, and 0 behind a 1 with 0.4.
MODEL = {
    "": {"[[": 0.98, "I": 0.02},
    "[[": {"8": 0.6, "1": 0.35, "9": 0.05},
    "[[8": {"]]": 1.0},
    "[[1": {"]]": 0.6, "0": 0.4},
}


def _place(beginning: str) -> dict[str, Any]:
    shares = MODEL[beginning]
    token = max(shares, key=lambda one: shares[one])
    top = [{"token": one, "logprob": math.log(share)} for one, share in shares.items()]
    return {"token": token, "logprob": math.log(shares[token]), "top_logprobs": top}


def _server(request: dict[str, Any]) -> Answer:
    last = request["messages"][-1]
    beginning, places = last["content"] if last["role"] == "assistant" else "", []
    while beginning in MODEL and len(places) < request["max_tokens"]:
        places.append(_place(beginning))
        beginning += places[-1]["token"]
    answer = json.loads(completion("".join(place["token"] for place in places)).body)
    answer["choices"][0]["logprobs"] = {"content": places}
    return Answer(200, json.dumps(answer).encode())


def _chat(address: str, **keys: Any) -> ServerChat:
    return ServerChat(Server(kind="server", base_url=address, model="m", retries=0, **keys))


ASKED = [Dialogue(id="d", source="test").say("How good?")]
CHOOSING = Decoding(temperature=0.0, top_p=1.0, choices=VERDICTS)


def test_a_server_that_goes_on_parts_1_from_10() -> None:
    with loopback(_server) as server:
        (reply,) = _chat(server.address, continues=True).reply(ASKED, "assistant", CHOOSING, 0)
        first, second = server.requests
    assert (first["logprobs"], first["top_logprobs"], first["max_tokens"]) == (True, 20, len("[[10]]"))
    assert second["messages"][-1] == {"role": "assistant", "content": "[[1"}
    assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)
    assert reply.text == "[[8]]"
    assert reply.covered == pytest.approx(0.98)
    assert reply.weights == pytest.approx((0.21, 0, 0, 0, 0, 0, 0, 0.6, 0.05, 0.14))


def test_a_server_that_does_not_loses_them_and_too_much_of_it_is_refused() -> None:
    with loopback(_server) as server:
        (reply,) = _chat(server.address).reply(ASKED, "assistant", CHOOSING, 0)
        assert len(server.requests) == 1
    assert (reply.text, reply.lasting) == (None, "off the choices")
    assert reply.reason == "only 63.7% of the judge's probability can be read as one of the choices"


def test_a_further_call_that_fails_fails_the_choice() -> None:
    with loopback(_server) as server:
        chat = _chat(server.address, continues=True)
        (answer,) = [_server({"messages": [{"role": "user", "content": ""}], "max_tokens": 6})]
        server.script.extend([answer, error(503, "overloaded")])
        (reply,) = chat.reply(ASKED, "assistant", CHOOSING, 0)
    assert (reply.text, reply.reason, reply.lasting) == (None, "HTTP 503: overloaded", None)


def test_a_server_without_log_probs_is_told_apart() -> None:
    with loopback() as server, pytest.raises(UserError, match=r"does not tell how likely its tokens are.*--logits_all"):
        _chat(server.address).reply(ASKED, "assistant", CHOOSING, 0)


SCHEMA = Decoding(json_schema={"type": "object"})


def test_a_schema_is_asked_for_in_the_servers_words() -> None:
    with loopback() as server:
        for form in ("json_schema", "json_object"):
            _chat(server.address, schema_as=form, body={"top_k": 3}).reply(ASKED, "assistant", SCHEMA, 0)
        openai, other = server.requests
    named = {"name": "reply", "strict": True, "schema": {"type": "object"}}
    assert openai["response_format"] == {"type": "json_schema", "json_schema": named}
    assert other["response_format"] == {"type": "json_object", "schema": {"type": "object"}}
    assert openai["top_k"] == 3


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_refused_schema_is_said_clearly_and_at_once(status: int) -> None:
    with loopback(lambda _: error(status, "'response_format': input should be 'text'")) as server:
        with pytest.raises(UserError, match=r"takes no such JSON schema: HTTP .*Set schema_as = json_object"):
            _chat(server.address).reply(ASKED, "assistant", SCHEMA, 0)
        assert len(server.requests) == 1
