"""An OpenAI-compatible server on 127.0.0.1 that makes the faults it is told to make, and counts what it sees."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int = 0  # bytes that are announced and never sent


def completion(text: str | None, finish: str = "stop", delay: float = 0.0, **fields: Any) -> Answer:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], **fields}
    return Answer(200, json.dumps(body).encode(), delay=delay)


def error(status: int, message: str = "no reason", **headers: str) -> Answer:
    return Answer(status, json.dumps({"error": {"message": message}}).encode(), headers)


def truncated() -> Answer:
    body = completion("half of this never arrives").body
    return Answer(200, body[: len(body) // 2], cut=len(body) // 2)


class Loopback:
    """``script`` answers the next requests one by one, ``usual`` all further ones."""

    def __init__(self, address: str, usual: Callable[[dict[str, Any]], Answer]) -> None:
        self.address, self.usual = address, usual
        self.script: deque[Answer] = deque()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.in_flight = self.peak = 0
        self.lock = threading.Lock()


@contextmanager
def loopback(usual: Callable[[dict[str, Any]], Answer] = lambda request: completion("ok")) -> Iterator[Loopback]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.requests.append(request)
                state.keys.append(self.headers["Authorization"])
                state.in_flight += 1
                state.peak = max(state.peak, state.in_flight)
                answer = state.script.popleft() if state.script else state.usual(request)
            time.sleep(answer.delay)
            with state.lock:
                state.in_flight -= 1
            try:
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.body) + answer.cut))
                for name, value in answer.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(answer.body)
            except ConnectionError:
                pass  # the client gave up, as a timeout test wants it to
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Loopback(f"http://127.0.0.1:{server.server_address[1]}/v1", usual)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
