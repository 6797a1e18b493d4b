"""Speaks through any OpenAI-compatible endpoint. Runs without torch: a laptop with an address can collect and judge."""

from __future__ import annotations

import email.utils
import ipaddress
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from parrot_lite.chat import check_due, lanes
from parrot_lite.chat.choices import COVERED, Likeliest, way, weigh
from parrot_lite.chat.meter import Meter
from parrot_lite.chat.prompted import flipped, instruction
from parrot_lite.errors import UserError
from parrot_lite.progress import say
from parrot_lite.recipe import Decoding, Server
from parrot_lite.types import Dialogue, Instructed, Lasting, Reply, Role, derive_seed

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

# What servers say when the same request would be refused again.
LASTING: dict[str, Lasting] = {
    "context length": "context full",  # OpenAI, vLLM
    "maximum model length": "context full",  # newer vLLM
    "available context size": "context full",  # llama-server
    "context window": "context full",  # llama-cpp-python's server
    "content management policy": "content filter",  # Azure
}
REFUSED = (400, 413, 422)  # about this one request where the server answers others, about the set-up where it does not
PASSING = (408, 409, 425, 429)  # and 5xx: the same call may go well later
ILL = 3  # failures in a row from which an address is set aside ...
ASIDE = 30.0  # ... for so many seconds
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a call is made again; doubled each time
TOP = 20  # tokens that OpenAI and vLLM tell at one place
LONGEST_ASKED_FOR = 60.0  # seconds of a Retry-After that are waited


class Outcome(NamedTuple):
    """What came of one try of a call; ``kind`` names the failure, ``places`` are the reply's tokens where asked for."""

    reply: Reply
    kind: str | None = None
    again: bool = False  # whether the same call may go well later
    ill: bool = False  # whether it speaks against the address and not against the request
    wait: float | None = None  # seconds that the server asks for
    places: tuple[tuple[str, Likeliest], ...] = ()


class ServerChat:
    """The model behind ``spec.base_url``, asked for ``spec.concurrency`` replies at a time. Threads may share it.

    Every try of a call is counted by ``meter``, also those that are made again. Raises UserError where an address is
    none, or where it is not this machine and the key's variable is not set.
    """

    def __init__(self, spec: Server, meter: Meter | None = None) -> None:
        key = _key(spec)
        from openai import OpenAI  # takes a second to import

        self.name = spec.model
        self._spec, self._meter = spec, meter or Meter()
        # Not the client's own retries: it would tell nobody of them.
        self._clients = {
            address: OpenAI(base_url=address, api_key=key, timeout=spec.timeout, max_retries=0)
            for address in spec.addresses
        }
        self._addresses = Addresses(spec.addresses)
        self._room = threading.Semaphore(spec.concurrency)
        self._pool = ThreadPoolExecutor(lanes(spec)[0])
        self._closed = threading.Event()
        self._news = threading.Condition()
        self._asked = 0  # replies() at work
        self._answered = False  # whether any call has gone well; never unset
        self._told = instruction().read_text(encoding="utf-8").strip()

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """One reply a dialogue, in order. A user's turn is asked for with the roles flipped.

        A choice is weighed as ``chat.choices`` says; one of which too little can be read is a lasting failure. Raises
        UserError where the server refuses the key, knows no such model, tells no log-probs for a choice or takes no
        JSON schema. A refused request (400, 413, 422, 403)
        is a lasting failure once any call has gone well, those in flight included. Where none has, the set-up may be at
        fault: then a 403 raises and the others may be tried again.
        """
        check_due(dialogues, speaker)
        if speaker == "user":
            dialogues = [flipped(dialogue, self._told) for dialogue in dialogues]
        with self._news:
            self._asked += 1
        try:
            if len(dialogues) == 1:
                outcomes = [self._one(dialogues[0], decoding, seed)]
            else:
                outcomes = list(self._pool.map(lambda dialogue: self._one(dialogue, decoding, seed), dialogues))
        finally:
            with self._news:
                self._asked -= 1
                self._news.notify_all()
        return self._settled(outcomes)

    def stop(self) -> None:
        """Make no failed call again: the stage is ending."""
        self._closed.set()

    def close(self) -> None:
        """Close the connections; calls that wait to be made again are not."""
        self.stop()
        self._pool.shutdown()
        for client in self._clients.values():
            client.close()

    @property
    def _where(self) -> str:
        return ", ".join(self._spec.addresses)

    def _settled(self, outcomes: Sequence[Outcome]) -> list[Reply]:
        """The replies; whether a refusal lasts shows when a call in flight goes well, or none is left."""
        replies = [outcome.reply for outcome in outcomes]
        if not any(outcome.kind == "403" or outcome.reply.lasting == "refused request" for outcome in outcomes):
            return replies
        with self._news:
            self._news.wait_for(lambda: self._answered or not self._asked)
        if self._answered:
            return replies
        for outcome in outcomes:
            if outcome.kind == "403":
                raise self._wrong_key(outcome.reply.reason or "")
        return [
            reply.model_copy(update={"lasting": None}) if reply.lasting == "refused request" else reply
            for reply in replies
        ]

    def _one(self, dialogue: Dialogue, decoding: Decoding, seed: int) -> Outcome:
        request = request_for(self._spec, dialogue, decoding, seed)
        outcome = self._made(request)
        if decoding.choices and outcome.reply.text is not None:
            return self._weighed(request, outcome, decoding.choices)
        return outcome

    def _weighed(self, request: Mapping[str, Any], first: Outcome, texts: Sequence[str]) -> Outcome:
        """The choice that a reply makes, by its likeliest tokens and, where the server goes on, by further calls."""
        if not any(likeliest for _, likeliest in first.places):
            fix = "Start it with log-probs (llama_cpp.server: --logits_all true), or set eval.judge.verdict = written"
            raise UserError("the server does not tell how likely its tokens are", self._where, fix)
        known, calls = way(first.places), [first]

        def told(beginning: str) -> Likeliest | None:
            if beginning not in known and self._spec.continues:
                calls.append(self._made(continued(request, beginning)))
                known[beginning] = calls[-1].places[0][1] if calls[-1].places else {}
            return known.get(beginning)

        weights = weigh(texts, told)
        for call in calls:
            if call.reply.text is None:
                return call
        covered = sum(weights)
        if covered < COVERED:
            reason = f"only {covered:.1%} of the judge's probability can be read as one of the choices"
            return Outcome(Reply.failure(reason, first.reply.seconds, "off the choices"), "off the choices")
        best = texts[weights.index(max(weights))]
        shares = tuple(weight / covered for weight in weights)
        update = {"text": best, "stop": "end", "weights": shares, "covered": covered}
        return Outcome(first.reply.model_copy(update=update))

    def _made(self, request: Mapping[str, Any]) -> Outcome:
        """A call, made again while that may help."""
        address = None
        for number in range(self._spec.retries + 1):
            with self._room:
                address = self._addresses.pick(address)
                if (forbidden := self._meter.begin(self.name, address)) is not None:
                    return Outcome(Reply.failure(forbidden))
                outcome = self._try(address, request)
            if outcome.reply.text is not None and not self._answered:
                with self._news:
                    self._answered = True
                    self._news.notify_all()
            if not outcome.again or number == self._spec.retries:
                break
            wait = outcome.wait
            if wait is None:
                spread = (
                    derive_seed(request["seed"], "wait", number) / 2**31
                )  # or all that failed together come back together
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2**number) * (1 - spread / 2)
            if self._closed.wait(wait):
                break
        return outcome

    def _try(self, address: str, request: Mapping[str, Any]) -> Outcome:
        start = time.monotonic()
        try:
            outcome = self._call(address, request, start)
        except UserError:
            self._meter.end(self.name, Reply.failure("refused"), "refused", address)
            raise
        self._meter.end(self.name, outcome.reply, outcome.kind, address)
        if self._addresses.hear(address, outcome.ill):
            say(f"{address}: {ILL} failures in a row ({outcome.kind}), set aside for {ASIDE:.0f} s")
        return outcome

    def _call(self, address: str, request: Mapping[str, Any], start: float) -> Outcome:
        import openai

        def failed(reason: str, lasting: Lasting | None = None) -> Reply:
            return Reply.failure(reason, time.monotonic() - start, lasting)

        try:
            # Not chat.completions.create: going through the types of its parameters takes four times the processor's
            # time of everything else, and at hundreds of calls a second that is what limits.
            body = self._clients[address].post("/chat/completions", cast_to=str, body=request)
        except openai.AuthenticationError as error:
            raise self._wrong_key(_said(error)) from None
        except openai.NotFoundError as error:
            fix = f"Check model = '{self._spec.model}' and the path in base_url, which often ends in /v1"
            raise UserError(f"no such model or path: {_said(error)}", address, fix) from None
        except openai.APIStatusError as error:
            said, status = _said(error), error.status_code
            if "response_format" in request and "response_format" in said:  # llama-cpp-python says so with a 500
                fix = "Set schema_as = json_object for llama-cpp-python's server, or eval.judge.verdict = written"
                raise UserError(f"the server takes no such JSON schema: {said}", address, fix) from None
            broken = status >= 500
            return Outcome(
                failed(said, _lasting(status, said)),
                str(status),
                again=broken or status in PASSING,
                ill=broken,
                wait=_asked_for(error.response.headers),
            )
        except openai.APITimeoutError:
            return Outcome(failed(f"timeout: nothing within {self._spec.timeout:g} s"), "timeout", again=True, ill=True)
        except openai.APIError as error:
            kind = "unreachable" if type(error.__cause__).__name__ == "ConnectError" else "broken off"
            return Outcome(failed(f"connection: {error.__cause__ or error}"), kind, again=True, ill=True)
        return _parse(body, time.monotonic() - start)

    def _wrong_key(self, said: str) -> UserError:
        fix = f"Put a valid key into ${self._spec.api_key_env}"
        return UserError(f"the server refuses the key: {said}", self._where, fix)


class Addresses:
    """Where calls go: round and round, past addresses that have failed several times in a row. For many threads."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._order = tuple(dict.fromkeys(addresses))
        self._lock = threading.Lock()
        self._turn = 0
        self._ill = dict.fromkeys(self._order, 0)  # failures in a row
        self._aside = dict.fromkeys(self._order, 0.0)  # until when

    def pick(self, avoid: str | None = None) -> str:
        """The next address; not ``avoid`` where there is another. Where all are set aside, that which was so first."""
        with self._lock:
            now = time.monotonic()
            well = [address for address in self._order if self._aside[address] <= now]
            if not well:
                well = [min(self._order, key=self._aside.__getitem__)]
            choice = [address for address in well if address != avoid] or well
            self._turn += 1
            picked = choice[self._turn % len(choice)]
            if self._ill[picked] >= ILL:  # one call tries it, the others go on elsewhere until that is through
                self._aside[picked] = now + ASIDE
            return picked

    def hear(self, address: str, ill: bool) -> bool:
        """How a call went; whether the address is set aside for it."""
        with self._lock:
            self._ill[address] = self._ill[address] + 1 if ill else 0
            aside = self._ill[address] >= ILL
            self._aside[address] = time.monotonic() + ASIDE if aside else 0.0
            return self._ill[address] == ILL and len(self._order) > 1


class _Message(BaseModel):
    content: str | None = None


class _Likely(BaseModel):
    token: str
    logprob: float


class _Place(_Likely):
    top_logprobs: list[_Likely] = []


class _LogProbs(BaseModel):
    content: list[_Place] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _LogProbs | None = None

    @property
    def places(self) -> tuple[tuple[str, Likeliest], ...]:
        """The tokens of the reply, and what was likeliest at each."""
        content = (self.logprobs.content if self.logprobs else None) or []
        return tuple((place.token, {one.token: one.logprob for one in place.top_logprobs}) for place in content)


class _Usage(BaseModel):
    prompt_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)


class _Completion(BaseModel):
    """What this code reads of a chat completion. The client's own types are filled without being checked."""

    choices: list[_Choice]
    usage: _Usage | None = None


def _parse(body: str, seconds: float) -> Outcome:
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        detail = f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
        reason = f"HTTP 200, not a chat completion: {detail}; it begins {body[:120]}"
        return Outcome(Reply.failure(reason, seconds), "not a completion", again=True)
    usage = completion.usage or _Usage()

    def failed(reason: str, kind: str, lasting: Lasting | None = None) -> Outcome:
        # A failed reply may have been paid for.
        used = {"prompt_tokens": usage.prompt_tokens, "tokens": usage.completion_tokens}
        return Outcome(Reply.failure(reason, seconds, lasting).model_copy(update=used), kind, again=lasting is None)

    if not completion.choices:
        return failed("HTTP 200, no choices", "no choices")
    choice = completion.choices[0]
    text = (choice.message.content or "").strip()
    stopped = f"stopped as {choice.finish_reason}"
    if choice.finish_reason not in ("stop", "length"):
        filtered = choice.finish_reason == "content_filter"
        return failed(f"HTTP 200, {stopped}", stopped, "content filter" if filtered else None)
    if not text:
        return failed(f"HTTP 200, empty reply ({stopped})", "empty reply", "empty reply")
    return Outcome(
        Reply(
            text=text,
            stop="end" if choice.finish_reason == "stop" else "length",
            tokens=usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens,
            seconds=seconds,
        ),
        places=choice.places,
    )


def _asked_for(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: milliseconds, seconds or a date. None where it does not say."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / divisor
        except ValueError:
            continue
        return min(max(0.0, seconds), LONGEST_ASKED_FOR)
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return None if date is None else min(max(0.0, email.utils.mktime_tz(date) - time.time()), LONGEST_ASKED_FOR)


def _lasting(status: int, said: str) -> Lasting | None:
    """Why the same request would be refused again, if the set-up is not at fault."""
    for words, lasting in LASTING.items():
        if words in said.lower():
            return lasting
    if status == 403:
        return "content filter"
    return "refused request" if status in REFUSED else None


def _said(error: APIStatusError) -> str:
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return " ".join(f"HTTP {error.status_code}: {message or error.response.text}".split())[:300]


def _key(spec: Server) -> str:
    hosts = {address: _host(address) for address in spec.addresses}
    for address, host in hosts.items():
        if host is None:
            fix = "Write e.g. http://127.0.0.1:8000/v1"
            raise UserError("not an http address", f"base_url = '{address}'", fix)
    key = os.environ.get(spec.api_key_env, "").strip()
    if key:
        return key
    for address, host in hosts.items():
        if not _is_loopback(host or ""):
            raise UserError(
                f"the environment variable {spec.api_key_env} is not set",
                address,
                f"Put the key into it; for a server that asks for none: export {spec.api_key_env}=none",
            )
    return "none"  # servers on one's own machine rarely ask for one, but the client insists on some text


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

    return OpenAI(base_url=spec.addresses[0], api_key=key, timeout=spec.timeout, max_retries=spec.retries)


def refuse_choices(spec: Server, decoding: Decoding) -> None:
    """Raises UserError where a choice of replies is to be weighed, which may take a second call."""
    if decoding.choices:
        fix = "Set batch = false, or eval.judge.verdict = written"
        raise UserError("a batch cannot be asked to weigh a choice of replies", ", ".join(spec.addresses), fix)


def request_for(spec: Server, dialogue: Dialogue, decoding: Decoding, seed: int) -> dict[str, Any]:
    """What the endpoint is asked for a dialogue's next message."""
    told = [{"role": "system", "content": dialogue.system}] if isinstance(dialogue, Instructed) else []
    request = {
        "model": spec.model,
        "messages": [*told, *({"role": turn.role, "content": turn.content} for turn in dialogue.turns)],
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "max_tokens": decoding.max_tokens,
        "seed": derive_seed(seed, dialogue.id, len(dialogue.turns)),
    }
    if decoding.choices:
        longest = max(map(len, decoding.choices))  # no token is shorter than a character
        request |= {"logprobs": True, "top_logprobs": TOP, "max_tokens": longest}
    if decoding.json_schema is not None:
        request["response_format"] = (
            {"type": "json_object", "schema": decoding.json_schema}
            if spec.schema_as == "json_object"
            else {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": decoding.json_schema},
            }
        )
    return request | spec.body


def continued(request: Mapping[str, Any], beginning: str) -> dict[str, Any]:
    """A request for the token behind a beginning of the reply, in the words of vLLM; llama-server does it unasked."""
    messages = [*request["messages"], {"role": "assistant", "content": beginning}]
    flags = {"continue_final_message": True, "add_generation_prompt": False}
    return {**request, "messages": messages, "max_tokens": 1, **flags}


def read_response(status: int, body: bytes) -> Reply:
    """The reply in what came over HTTP, or its failure, lasting where the same request would be refused again."""
    text = body.decode(errors="replace")
    if status == 200:
        return _parse(text, 0.0).reply
    with suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["error"]["message"]
    said = " ".join(f"HTTP {status}: {text}".split())[:300]
    return Reply.failure(said, lasting=_lasting(status, said))
