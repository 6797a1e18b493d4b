"""An OpenAI-compatible endpoint on loopback that is slow and, in a share of its calls, broken; a double for load tests.

Run: python recipes/bench/faulty_server.py --latency 0.2 --faults 0.1. It prints its address, answers POST
/v1/chat/completions until it is killed, GET /counts with what it has done so far by kind, and GET /calls with the
second and the kind of each call.

What it says depends on the request's seed and messages alone; whether a call is broken, and how, on ``--seed``, the
request and how often that request has come before. So faults never change a text, and a retry may go through.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import time
from collections import Counter
from typing import Any

FAULTS = ("429", "500", "hang", "truncated", "no choices", "wrong JSON")
SYLLABLES = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
LIMIT = 1 << 22  # bytes of a request


def digest(*parts: object) -> bytes:
    """32 bytes that depend on nothing but the parts."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()


def words(seed: bytes, count: int) -> str:
    """So many made-up words of three syllables; two texts of one conversation have next to none in common."""
    stream = digest(seed.hex(), "words") + digest(seed.hex(), "more words")
    return " ".join("".join(SYLLABLES[byte % 70] for byte in stream[3 * n : 3 * n + 3]) for n in range(count))


def completion(request: dict[str, Any]) -> dict[str, Any]:
    """What the endpoint says: a query where it is told to play the user, else an answer or a verdict."""
    drawn = digest(request["seed"], json.dumps(request["messages"]))
    asked = "human user" in request["messages"][0]["content"]
    text = f"How does {words(drawn, 7)}?" if asked else f"It is {words(drawn, 20)}."
    if "double square brackets" in request["messages"][-1]["content"]:
        text += f" Rating: [[{1 + drawn[0] % 10}]]"
    length = sum(len(message["content"].split()) for message in request["messages"])
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": length, "completion_tokens": len(text.split()), "total_tokens": 0},
    }


class Endpoint:
    """Serves connections. ``counts`` holds calls, good ones and faults by kind, ``calls`` when each came."""

    def __init__(self, latency: float, faults: float, seed: int, retry_after: str, hang: float) -> None:
        self._latency, self._faults, self._seed = latency, faults, seed
        self._retry_after, self._hang = retry_after, hang
        self._come: Counter[bytes] = Counter()
        self.counts: Counter[str] = Counter({"calls": 0, "good": 0})
        self.calls: list[tuple[float, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it closes or a fault breaks it."""
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and await self._answer(head, reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client closed, or was killed
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if head.startswith(b"GET"):
            _write(writer, 200, json.dumps(self.calls if head.startswith(b"GET /calls ") else self.counts).encode())
            return True
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        body = await reader.readexactly(length)
        self.counts["calls"] += 1
        fault = self._fault(body)
        self.counts[fault or "good"] += 1
        self.calls.append((round(time.monotonic(), 3), fault or "good"))
        await asyncio.sleep(self._hang if fault == "hang" else self._latency)
        if fault == "hang" or writer.is_closing():
            return False
        if fault in ("429", "500"):
            message = json.dumps({"error": {"message": f"a fault, as told: {fault}"}}).encode()
            _write(writer, int(fault), message, f"Retry-After: {self._retry_after}\r\n" if fault == "429" else "")
            return True
        answer = completion(json.loads(body))
        if fault == "no choices":
            answer["choices"] = []
        text = json.dumps(answer).encode()
        if fault == "wrong JSON":
            text = text[: len(text) // 2]
        _write(writer, 200, text, missing=len(text) if fault == "truncated" else 0)
        return fault != "truncated"

    def _fault(self, body: bytes) -> str | None:
        key = digest(self._seed, body)
        self._come[key] += 1
        drawn = int.from_bytes(digest(key.hex(), self._come[key])[:6], "big")
        return FAULTS[drawn % len(FAULTS)] if drawn / 2**48 < self._faults else None


def _write(writer: asyncio.StreamWriter, status: int, body: bytes, headers: str = "", missing: int = 0) -> None:
    """``missing`` bytes are announced and never sent."""
    length = len(body) + missing
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
    writer.write(head.encode() + body)


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 = a free one")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--faults", type=float, default=0.1, help="share of the calls")
    parser.add_argument("--retry-after", default="0.1", help="seconds, in the header of a 429")
    parser.add_argument("--hang", type=float, default=60.0, help="seconds that a hanging call stays open")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    endpoint = Endpoint(given.latency, given.faults, given.seed, given.retry_after, given.hang)
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", given.port, limit=LIMIT, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
