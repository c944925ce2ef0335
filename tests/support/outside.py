"""A local server whose answers a test writes itself, and which keeps what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Asked:
    method: str
    # As it came, with its query.
    path: str
    # Names in lower case.
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Told:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    # How many times the body is sent, and how long it takes before each.
    times: int = 1
    pause_s: float = 0.0


class Outside(ThreadingHTTPServer):
    def __init__(self, answer: Callable[[Asked], Told]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.asked = answer, list[Asked]()
        self.url = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def answering(self) -> Iterator[Outside]:
        """For the length of a block."""
        thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    server: Outside

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        self.server.asked.append(asked)
        told = self.server.answer(asked)
        try:
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()
            for _ in range(told.times):
                time.sleep(told.pause_s)
                self.wfile.write(told.body)
        except (BrokenPipeError, ConnectionResetError):
            return  # the caller has seen enough

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        return
