"""Speaks through any OpenAI-compatible endpoint. Runs without torch: a laptop with an address can collect and judge."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from parrot_lite.chat import addresses, check_due
from parrot_lite.errors import UserError
from parrot_lite.recipe import Decoding, Server
from parrot_lite.types import Dialogue, Lasting, Reply, Role, derive_seed

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI
    from openai.types.chat import ChatCompletionMessageParam

# What servers say when the same request would be refused again.
LASTING: dict[str, Lasting] = {
    "context length": "context full",  # OpenAI, vLLM
    "maximum model length": "context full",  # newer vLLM
    "available context size": "context full",  # llama-server
    "context window": "context full",  # llama-cpp-python's server
    "content management policy": "content filter",  # Azure
}
REFUSED = (400, 413, 422)  # about this one request where the server answers others, about the set-up where it does not
# A dialogue opens with its user, whom the endpoint plays as "assistant"; many templates insist that "user" comes first.
OPENING = "Hello! What can I do for you?"


class ServerChat:
    """The model behind ``spec.base_url``, asked for ``spec.concurrency`` replies at a time.

    Raises UserError where the address is none, or where it is not this machine and the key's variable is not set.
    """

    def __init__(self, spec: Server) -> None:
        key = _key(spec)
        from openai import OpenAI  # takes a second to import

        self.name = spec.model
        self._spec = spec
        self._client = OpenAI(base_url=spec.base_url, api_key=key, timeout=spec.timeout, max_retries=spec.retries)
        self._answered = False  # whether any call has gone well; set by the threads, and never unset
        self._denied: str | None = None  # what came with a 403
        self._asker = resources.files("parrot_lite.data").joinpath("prompts", "asker.txt").read_text(encoding="utf-8")

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """One reply a dialogue, in order. Raises UserError where the server refuses the key or knows no such model.

        A refused request (400, 413, 422, 403) is a lasting failure once any call has gone well, this batch included.
        Where none has, the set-up may be at fault: then a 403 raises and the others may be tried again.
        """
        check_due(dialogues, speaker)
        refuse_choices(self._spec, decoding)
        with ThreadPoolExecutor(self._spec.concurrency) as pool:
            replies = list(pool.map(lambda dialogue: self._one(dialogue, decoding, seed), dialogues))
        if self._answered:
            return replies
        if self._denied is not None:
            raise self._wrong_key(self._denied)
        return [_retryable(reply) if reply.lasting == "refused request" else reply for reply in replies]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def messages(self, dialogue: Dialogue) -> list[ChatCompletionMessageParam]:
        """What is sent for a dialogue. A user's turn is asked for with the roles flipped."""
        if dialogue.due == "assistant":
            return [_message(turn.role, turn.content) for turn in dialogue.turns]
        flipped: dict[Role, Role] = {"user": "assistant", "assistant": "user"}
        return [
            {"role": "system", "content": self._asker.strip()},
            {"role": "user", "content": OPENING},
            *(_message(flipped[turn.role], turn.content) for turn in dialogue.turns),
        ]

    def _one(self, dialogue: Dialogue, decoding: Decoding, seed: int) -> Reply:
        import openai

        start = time.monotonic()
        try:
            response = self._client.chat.completions.with_raw_response.create(
                **request(self._spec, dialogue, self.messages(dialogue), decoding, seed)
            )
        except openai.AuthenticationError as error:
            raise self._wrong_key(_said(error)) from None
        except openai.NotFoundError as error:
            fix = f"Check model = '{self._spec.model}' and the path in base_url, which often ends in /v1"
            raise UserError(f"no such model or path: {_said(error)}", self._spec.base_url, fix) from None
        except openai.APIStatusError as error:
            said = _said(error)
            if error.status_code == 403:  # a wrong key, or a filter that some endpoints have: reply() tells them apart
                self._denied = said
            return Reply.failure(said, time.monotonic() - start, _lasting(error.status_code, said))
        except openai.APITimeoutError:
            return Reply.failure(f"timeout: nothing within {self._spec.timeout:g} s", time.monotonic() - start)
        except openai.APIError as error:
            return Reply.failure(f"connection: {error.__cause__ or error}", time.monotonic() - start)
        reply = _parse(response.status_code, response.content, time.monotonic() - start)
        if reply.text is not None:
            self._answered = True
        return reply

    def _wrong_key(self, said: str) -> UserError:
        fix = f"Put a valid key into ${self._spec.api_key_env}"
        return UserError(f"the server refuses the key: {said}", self._spec.base_url, fix)


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    completion_tokens: int | None = Field(default=None, ge=0)


class _Completion(BaseModel):
    """What this code reads of a chat completion. The client's own types are filled without being checked."""

    choices: list[_Choice]
    usage: _Usage | None = None


def _parse(status: int, body: bytes, seconds: float) -> Reply:
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        detail = f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
        start = body[:120].decode(errors="replace")
        return Reply.failure(f"HTTP {status}, not a chat completion: {detail}; it begins {start}", seconds)
    if not completion.choices:
        return Reply.failure(f"HTTP {status}, no choices", seconds)
    choice = completion.choices[0]
    text = (choice.message.content or "").strip()
    if choice.finish_reason not in ("stop", "length"):
        lasting: Lasting | None = "content filter" if choice.finish_reason == "content_filter" else None
        return Reply.failure(f"HTTP {status}, stopped as {choice.finish_reason}", seconds, lasting)
    if not text:
        return Reply.failure(f"HTTP {status}, empty reply (stopped as {choice.finish_reason})", seconds, "empty reply")
    tokens = completion.usage.completion_tokens if completion.usage else None
    return Reply(text=text, stop="end" if choice.finish_reason == "stop" else "length", tokens=tokens, seconds=seconds)


def _message(role: Role, content: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": content} if role == "user" else {"role": "assistant", "content": content}


def _lasting(status: int, said: str) -> Lasting | None:
    """Why the same request would be refused again, if the set-up is not at fault."""
    for words, lasting in LASTING.items():
        if words in said.lower():
            return lasting
    if status == 403:
        return "content filter"
    return "refused request" if status in REFUSED else None


def _retryable(reply: Reply) -> Reply:
    return reply.model_copy(update={"lasting": None})


def _said(error: APIStatusError) -> str:
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return " ".join(f"HTTP {error.status_code}: {message or error.response.text}".split())[:300]


def _key(spec: Server) -> str:
    host = _host(spec.base_url)
    if host is None:
        raise UserError("not an http address", f"base_url = '{spec.base_url}'", "Write e.g. http://127.0.0.1:8000/v1")
    key = os.environ.get(spec.api_key_env, "").strip()
    if key:
        return key
    if _is_loopback(host):
        return "none"  # servers on one's own machine rarely ask for one, but the client insists on some text
    raise UserError(
        f"the environment variable {spec.api_key_env} is not set",
        spec.base_url,
        f"Put the key into it; for a server that asks for none: export {spec.api_key_env}=none",
    )


def _host(address: str) -> str | None:
    try:
        url = urlsplit(address)
    except ValueError:
        return None
    return url.hostname if url.scheme in ("http", "https") else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_of(spec: Server) -> OpenAI:
    """A client for the first address of a server. Raises UserError where its address or its key does not hold."""
    key = _key(spec)
    from openai import OpenAI

    return OpenAI(base_url=addresses(spec)[0], api_key=key, timeout=spec.timeout, max_retries=spec.retries)


def refuse_choices(spec: Server, decoding: Decoding) -> None:
    """Raises UserError where a choice of replies is to be weighed."""
    if decoding.choices:
        fix = "Set eval.judge.verdict = written, or judge with a gguf or local speaker"
        raise UserError("a server cannot be asked to weigh a choice of replies", addresses(spec)[0], fix)


def request(spec: Server, dialogue: Dialogue, messages: Sequence[Any], decoding: Decoding, seed: int) -> dict[str, Any]:
    """What the endpoint is asked for a dialogue's next message, shown as ``messages``."""
    return {
        "model": spec.model,
        "messages": list(messages),
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "max_tokens": decoding.max_tokens,
        "seed": derive_seed(seed, dialogue.id, len(dialogue.turns)),
    }


def read_response(status: int, body: bytes) -> Reply:
    """The reply in what came over HTTP, or its failure, lasting where the same request would be refused again."""
    if status == 200:
        return _parse(status, body, 0.0)
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")
    said = " ".join(f"HTTP {status}: {message}".split())[:300]
    return Reply.failure(said, lasting=_lasting(status, said))
