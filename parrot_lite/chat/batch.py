"""Speaks through OpenAI's Batch API: all calls of a stage in files, answered within a day.

For stages whose calls do not wait for each other. What was sent and what came back is kept by the hash of each request,
so that a stage which is killed, or has failed calls, never pays for a request twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from parrot_lite.chat import check_due
from parrot_lite.chat.meter import Meter
from parrot_lite.chat.server import client_of, read_response, refuse_choices, request_for
from parrot_lite.errors import UserError
from parrot_lite.progress import say
from parrot_lite.recipe import Decoding, Server
from parrot_lite.store import read, write_atomically
from parrot_lite.types import Dialogue, Record, Reply, Role

if TYPE_CHECKING:
    from openai import APIError
    from openai.types import Batch

# The API's limits on one file.
MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0  # seconds between two looks at a batch
PATIENCE = 3600.0  # seconds without any answer about a batch after which this process gives up; the batch runs on
ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True)
class Request:
    """One line of a batch file. ``key`` is the hash of the line and of the address that it is sent to."""

    name: str
    line: bytes
    key: str


class Sent(Record):
    """A file of requests on its way: their keys by ``custom_id``. ``batch`` is None from just before it is created."""

    file: str  # the server's name of the uploaded file
    batch: str | None
    requests: dict[str, str]


class Known(Record):
    """What came back for a request, where asking again would bring nothing better."""

    request: str
    reply: Reply


class BatchChat:
    """The model behind ``spec.base_url``, asked through files of requests; ``folder`` keeps what must not be lost.

    ``HASH.json`` there names a batch that is not settled yet, ``HASH.jsonl`` holds the replies of one that is; HASH is
    that of the requests. Deleting the folder makes every request new. Of several addresses the first one is used.

    ``meter`` counts a call when it is sent and its tokens when its reply is there. So a budget of calls holds, while
    one of money only keeps further batches from being sent.
    """

    def __init__(self, spec: Server, folder: Path, meter: Meter | None = None) -> None:
        self.name = spec.model
        self._spec, self._folder, self._address = spec, folder, spec.addresses[0]
        self._meter = meter or Meter()
        self._client = client_of(spec)
        self._answered = False  # whether any call has gone well

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """One reply a dialogue, in order, when all batches have ended: hours. Answers alone: queries are for loops.

        Raises UserError where the server refuses the key, has no Batch API or falls silent; running the stage again
        then finds the batches where they are.
        """
        check_due(dialogues, "assistant")
        refuse_choices(self._spec, decoding)
        requests: dict[str, Request] = {}
        names = []
        for dialogue in dialogues:
            one = self._request(dialogue, decoding, seed)
            if requests.setdefault(one.name, one) != one:
                raise ValueError(f"two different calls for {one.name}")
            names.append(one.name)
        replies = self._known({one.key for one in requests.values()})
        missing = {name: one for name, one in requests.items() if one.key not in replies}
        if missing:
            replies |= self._ask(missing)
        return [replies[requests[name].key] for name in names]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _request(self, dialogue: Dialogue, decoding: Decoding, seed: int) -> Request:
        name = f"{dialogue.id}#{len(dialogue.turns)}"
        body = request_for(self._spec, dialogue, decoding, seed)
        row = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        return Request(name, line, hashlib.sha256(self._address.encode() + b"\n" + line).hexdigest()[:32])

    def _known(self, wanted: set[str]) -> dict[str, Reply]:
        files = sorted(self._folder.glob("*.jsonl"))
        return {one.request: one.reply for file in files for one in read(file, Known) if one.request in wanted}

    def _ask(self, missing: Mapping[str, Request]) -> dict[str, Reply]:
        """Replies by key: of batches on their way that hold some of ``missing``, and of new ones for the rest."""
        import openai

        replies: dict[str, Reply] = {}
        try:
            running = self._find_again({one.key for one in missing.values()})
            sent = {key for path in running for key in _sent(path).requests.values()}
            allowed: list[Request] = []
            for one in (one for one in missing.values() if one.key not in sent):
                if (forbidden := self._meter.begin(self.name, self._address)) is None:
                    allowed.append(one)
                else:
                    replies[one.key] = Reply.failure(forbidden)
            for file in _files(allowed):
                path = self._folder / f"{_hash(file)}.json"
                failed = self._send(path, file)
                if failed is None:
                    running.append(path)
                else:
                    replies |= {one.key: failed for one in file}
                    self._count(len(file) * [failed])
            return replies | self._wait(running)
        except openai.AuthenticationError as error:
            fix = f"Put a valid key into ${self._spec.api_key_env}"
            raise UserError(f"the server refuses the key: {_said(error)}", self._address, fix) from None
        except openai.APIError as error:
            raise UserError(f"{_said(error)}; what was sent is kept", self._address, "Run it again to go on") from None

    def _count(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            failure = (reply.lasting or "failed") if reply.text is None else None
            self._meter.end(self.name, reply, failure, self._address)

    def _find_again(self, wanted: set[str]) -> list[Path]:
        """The files of batches on their way that hold one of the ``wanted`` requests."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            sent = _sent(path)
            if wanted.isdisjoint(sent.requests.values()):
                continue
            if sent.batch is None:
                # Killed, or cut off, between asking for a batch and hearing its name: only the server knows.
                batches = self._client.batches.list(limit=100)
                there = next((one.id for one in batches if one.input_file_id == sent.file), None)
                if there is None:
                    path.unlink()
                    continue
                sent = sent.model_copy(update={"batch": there})
                write_atomically(path, sent.model_dump_json())
            say(f"batch {sent.batch}: sent before, not sent again")
            found.append(path)
        return found

    def _send(self, path: Path, file: Sequence[Request]) -> Reply | None:
        """Upload a file and ask for its batch; the failure of all its requests where the server refuses it."""
        import openai

        self._folder.mkdir(parents=True, exist_ok=True)
        content = b"".join(one.line for one in file)
        try:
            uploaded = self._client.files.create(file=(f"{path.stem}.jsonl", content), purpose="batch")
            sent = Sent(file=uploaded.id, batch=None, requests={one.name: one.key for one in file})
            write_atomically(path, sent.model_dump_json())
            batch = self._client.with_options(max_retries=0).batches.create(  # a retry could create a second one
                input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        except openai.NotFoundError as error:
            path.unlink(missing_ok=True)
            raise UserError(f"no Batch API there: {_said(error)}", self._address, "Set batch = false") from None
        except openai.APIStatusError as error:
            if error.status_code >= 500:  # it may be there all the same
                raise
            path.unlink(missing_ok=True)
            if isinstance(error, openai.AuthenticationError):
                raise
            return Reply.failure(_said(error))
        write_atomically(path, sent.model_copy(update={"batch": batch.id}).model_dump_json())
        say(f"batch {batch.id}: {len(file)} requests sent, {len(content) / 1e6:.1f} MB")
        return None

    def _wait(self, running: Sequence[Path]) -> dict[str, Reply]:
        replies: dict[str, Reply] = {}
        waiting, shown = list(running), dict.fromkeys(running, "")
        wait, heard = FIRST_WAIT, time.monotonic()
        while waiting:
            for path in list(waiting):
                batch = self._look(path, heard)
                if batch is None:
                    continue
                heard = time.monotonic()
                if (line := _progress(batch)) != shown[path]:
                    shown[path] = line
                    say(f"batch {batch.id}: {line}")
                if batch.status in ENDED:
                    replies |= self._settle(path, batch)
                    waiting.remove(path)
            if waiting:
                time.sleep(wait)
                wait = min(LONGEST_WAIT, wait * 1.5)
        return replies

    def _look(self, path: Path, heard: float) -> Batch | None:
        """The batch as it stands; None where the server does not say, which over a day is no reason to stop."""
        import openai

        name = _sent(path).batch or ""
        try:
            return self._client.batches.retrieve(name)
        except openai.NotFoundError:
            fix = "Use the key that it was sent with, or delete that file to send its requests again"
            raise UserError(f"the server knows no batch {name}", str(path), fix) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise
        except openai.APIError as error:
            if time.monotonic() - heard > PATIENCE:
                what = f"no word about batch {name} for {PATIENCE / 60:.0f} minutes ({_said(error)})"
                raise UserError(what, self._address, "It runs on; run the stage again to fetch it") from None
            return None

    def _settle(self, path: Path, batch: Batch) -> dict[str, Reply]:
        """The replies of a batch that has ended, by key, kept unless asking again may help."""
        files = [name for name in (batch.output_file_id, batch.error_file_id) if name]
        rows = {row.custom_id: row for name in files for row in _rows(self._client.files.content(name).content)}
        errors = batch.errors.data if batch.errors and batch.errors.data else []
        why = f"batch {batch.id} {batch.status}" + (f": {errors[0].message}" if errors else ", no row for this request")
        replies = {
            key: _read(rows[name]) if name in rows else Reply.failure(why) for name, key in _sent(path).requests.items()
        }
        self._answered = self._answered or any(reply.text is not None for reply in replies.values())
        if not self._answered:  # then the set-up may be at fault, not the requests
            replies = {key: _without_blame(reply) for key, reply in replies.items()}
        self._count(replies.values())
        kept = [Known(request=key, reply=one) for key, one in replies.items() if one.text is not None or one.lasting]
        if kept:
            write_atomically(path.with_suffix(".jsonl"), "".join(one.model_dump_json() + "\n" for one in kept))
        path.unlink()
        return replies


class _Response(BaseModel):
    status_code: int
    body: Any = None


class _Error(BaseModel):
    code: str | None = None
    message: str | None = None


class _Row(BaseModel):
    """What this code reads of a line of an output or error file."""

    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


def _rows(content: bytes) -> Iterator[_Row]:
    for line in content.split(b"\n"):
        if line.strip():
            try:
                yield _Row.model_validate_json(line)
            except ValidationError:
                continue  # the request that it was for is then one without a row


def _read(row: _Row) -> Reply:
    if row.response is not None:
        return read_response(row.response.status_code, json.dumps(row.response.body).encode())
    error = row.error or _Error()
    return Reply.failure(": ".join(part for part in (error.code, error.message) if part) or "a row without a response")


def _without_blame(reply: Reply) -> Reply:
    refused = reply.lasting in ("refused request", "content filter")
    return reply.model_copy(update={"lasting": None}) if refused else reply


def _said(error: APIError) -> str:
    response = getattr(error, "response", None)  # of what came with a status
    if response is None:
        return f"connection: {error.__cause__ or error}"
    return read_response(response.status_code, response.content).reason or ""


def _sent(path: Path) -> Sent:
    return next(read(path, Sent))


def _hash(file: Sequence[Request]) -> str:
    return hashlib.sha256("".join(one.key for one in file).encode()).hexdigest()[:32]


def _files(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """The requests in files within the API's limits, in order."""
    file: list[Request] = []
    size = 0
    for one in requests:
        if file and (len(file) == MOST_REQUESTS or size + len(one.line) > MOST_BYTES):
            yield file
            file, size = [], 0
        file.append(one)
        size += len(one.line)
    if file:
        yield file


def _progress(batch: Batch) -> str:
    """Its state and, in twentieths, how far it is: a day of looks should not fill a screen."""
    counts = batch.request_counts
    if counts is None or not counts.total:
        return batch.status
    if batch.status in ENDED:
        return f"{batch.status}, {counts.completed} of {counts.total} requests answered"
    return f"{batch.status}, {(counts.completed + counts.failed) * 20 // counts.total * 5}% of {counts.total} requests"
