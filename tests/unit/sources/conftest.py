"""A web site in a thread: pages that tests put there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.core import clock


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "text/html; charset=utf-8"})
    # How many times the body is sent, without saying its length before.
    times: int = 1
    takes_s: float = 0.0


@dataclass(frozen=True)
class Asked:
    path: str
    headers: dict[str, str]
    port: int
    begun: float
    ended: float


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        return  # whoever asked has gone in the midst of it


class Site:
    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.asked: list[tuple[str, str]] = []
        # Of each request: its headers, the port it came from, and when it was answered (monotonic).
        self.requests: list[Asked] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((self.path, self.headers.get("host", "")))
                answer = site.pages.get(self.path, Answer(b"no such page", 404))
                begun = clock.monotonic()
                if answer.takes_s:
                    time.sleep(answer.takes_s)
                etag = answer.headers.get("etag")
                if etag and self.headers.get("if-none-match") == etag:
                    answer = Answer(status=304, headers={"etag": etag})
                headers = {name.lower(): value for name, value in self.headers.items()}
                site.requests.append(Asked(self.path, headers, self.client_address[1], begun, clock.monotonic()))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.times == 1 and "content-length" not in answer.headers and answer.status != 304:
                    self.send_header("content-length", str(len(answer.body)))
                elif answer.times > 1:
                    self.send_header("connection", "close")
                self.end_headers()
                try:
                    for _ in range(answer.times):
                        self.wfile.write(answer.body)
                except (BrokenPipeError, ConnectionResetError):
                    return  # the caller has seen enough

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    running.thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    running.thread.join(5)
