"""OpenAI's Batch API on 127.0.0.1: files, batches that take a few looks to end, results and errors as files."""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Row = dict[str, Any]  # "response" and "error" of a result line


def answered(text: str, finish: str = "stop", tokens: int = 5) -> Row:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    body = {
        "object": "chat.completion",
        "choices": [choice],
        "usage": {"prompt_tokens": 11, "completion_tokens": tokens},
    }
    return {"response": {"status_code": 200, "request_id": "r", "body": body}, "error": None}


def refused(status: int, message: str) -> Row:
    return {"response": {"status_code": status, "body": {"error": {"message": message}}}, "error": None}


def expired() -> Row:
    return {"response": None, "error": {"code": "batch_expired", "message": "not executed within the window"}}


class Batches:
    """``result`` gives the row of a request, None for no row at all; ``life`` is a batch's, look by look.

    ``script`` answers the next requests by (method, path) with a status instead, 0 = the connection is closed; what a
    closed connection asked for is done all the same.
    """

    def __init__(self, address: str, result: Callable[[dict[str, Any]], Row | None]) -> None:
        self.address, self.result = address, result
        self.life = ["validating", "in_progress", "completed"]
        self.errors: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.purposes: list[str] = []
        self.batches: dict[str, dict[str, Any]] = {}
        self.created: list[list[dict[str, Any]]] = []  # the requests of each batch, in order
        self.seen: list[tuple[str, str]] = []
        self.script: dict[tuple[str, str], deque[int]] = {}
        self.held = threading.Event()  # set = nothing goes beyond in_progress
        self.lock = threading.Lock()

    def names(self, batch: int = -1) -> list[str]:
        return [request["custom_id"] for request in self.created[batch]]

    def upload(self, content_type: str, body: bytes) -> dict[str, Any]:
        (boundary,) = re.findall(r"boundary=(\S+)", content_type)
        parts = {}
        for part in body.split(b"--" + boundary.encode()):
            head, _, content = part.partition(b"\r\n\r\n")
            if found := re.search(rb'name="(\w+)"', head):
                parts[found[1].decode()] = content.removesuffix(b"\r\n")
        self.purposes.append(parts["purpose"].decode())
        return self.keep(parts["file"])

    def keep(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": 0,
            "filename": "f",
            "purpose": "batch",
        }

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        requests = [json.loads(line) for line in self.files[wanted["input_file_id"]].decode().split("\n") if line]
        name = f"batch_{len(self.created)}"
        self.created.append(requests)
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "created_at": 0,
            "status": self.life[0],
            "request_counts": {"total": len(requests), "completed": 0, "failed": 0},
            **wanted,
        }
        return self.batches[name]

    def look(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        at = self.life.index(batch["status"])
        if at + 1 < len(self.life) and not (self.held.is_set() and batch["status"] == "in_progress"):
            batch["status"] = self.life[at + 1]
        if batch["status"] == "failed":
            batch["errors"] = {"object": "list", "data": self.errors}
        elif batch["status"] in ("completed", "expired", "cancelled") and "output_file_id" not in batch:
            self.finish(batch)
        return batch

    def finish(self, batch: dict[str, Any]) -> None:
        good, bad = [], []
        for request in json.loads(json.dumps(self.created[int(batch["id"].rpartition("_")[2])])):
            row = self.result(request)
            if row is not None:
                fine = row["response"] is not None and row["response"]["status_code"] == 200
                (good if fine else bad).append(json.dumps({"id": "x", "custom_id": request["custom_id"], **row}))
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}
        for key, rows in (("output_file_id", good), ("error_file_id", bad)):
            # Results come in any order.
            batch[key] = self.keep("\n".join(reversed(rows)).encode())["id"] if rows else None


@contextmanager
def batches(result: Callable[[dict[str, Any]], Row | None]) -> Iterator[Batches]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/files":
                self.answer(lambda: state.upload(self.headers["Content-Type"], body))
            elif self.path == "/v1/batches":
                self.answer(lambda: state.create(json.loads(body)))
            else:
                self.answer(lambda: None)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/v1/batches":
                self.answer(lambda: {"object": "list", "data": list(state.batches.values()), "has_more": False})
            elif (found := re.fullmatch(r"/v1/batches/(\w+)", path)) and found[1] in state.batches:
                self.answer(lambda: state.look(found[1]))
            elif found := re.fullmatch(r"/v1/files/([\w-]+)/content", path):
                self.answer(lambda: state.files[found[1]])
            else:
                self.answer(lambda: None)

        def answer(self, act: Callable[[], Any]) -> None:
            with state.lock:
                at = (self.command, self.path.partition("?")[0])
                state.seen.append(at)
                script = state.script.get(at)
                status = script.popleft() if script else 200
                result = act() if status in (0, 200) else {"error": {"message": "as scripted"}}
                if result is None:
                    status, result = 404, {"error": {"message": "nothing here"}}
                body = result if isinstance(result, bytes) else json.dumps(result).encode()
            self.close_connection = True
            if status == 0:
                return
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                pass  # the client was killed, as a test wants it to be

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Batches(f"http://127.0.0.1:{server.server_address[1]}/v1", result)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
