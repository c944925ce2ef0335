"""HTTP server on the loopback whose responses a test sets, and which records its requests."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from app.core import clock


@dataclass
class Request:
    """A request. `target` is path and query as sent; names in `headers` are in lower case.

    `begun_at` and `ended_at` are monotonic times of the arrival and of the beginning of the response.
    """

    method: str
    target: str
    header_pairs: list[tuple[str, str]]
    body: bytes
    port: int
    begun_at: float
    ended_at: float = 0.0

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        return urlsplit(self.target).query

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.header_pairs}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> list[str]:
        """Return all values of the header."""
        return [value for key, value in self.header_pairs if key.lower() == name]


@dataclass(frozen=True)
class Response:
    """A response. `body` is sent unchanged if bytes, otherwise as JSON.

    The body is sent `repeat` times with `pause_s` before each; more than once without a length. `delay_s` passes before
    the response. The last `withheld_bytes` are not sent. With `drop` the connection is closed without a response.
    """

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    repeat: int = 1
    pause_s: float = 0.0
    delay_s: float = 0.0
    withheld_bytes: int = 0
    gzipped: bool = False
    drop: bool = False

    def data(self) -> bytes:
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return gzip.compress(data) if self.gzipped else data

    def all_headers(self) -> dict[str, str]:
        """Return the response's headers with the defaults for its body."""
        headers = dict(self.headers)
        if not isinstance(self.body, bytes):
            headers.setdefault("content-type", "application/json")
        if self.gzipped:
            headers["content-encoding"] = "gzip"
        if self.repeat > 1:
            headers["connection"] = "close"
        elif self.status not in (204, 304):
            headers.setdefault("content-length", str(len(self.data())))
        return headers


class FakeServer(ThreadingHTTPServer):
    """Answers with `answer(request)`; a subclass for a service overrides `respond`."""

    daemon_threads = True
    # Connections that a client keeps outlive a test whose event loop ends without closing its clients.
    keep_alive = False

    def __init__(self, answer: Callable[[Request], Response] = lambda request: Response(b"", 404)) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.requests: list[Request] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def respond(self, request: Request) -> Response:
        return self.answer(request)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Serve inside the block; `stop` ends it before."""
        thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join(5)

    def stop(self) -> None:
        """Stop serving and release delayed responses; may be called twice."""
        if not self.stopping.is_set():
            self.stopping.set()
            self.shutdown()
            self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        return  # the caller disconnected


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        pairs = list(self.headers.items())
        request = Request(self.command, self.path, pairs, body, self.client_address[1], clock.monotonic())
        self.server.requests.append(request)
        response = self.server.respond(request)
        if response.delay_s:
            self.server.stopping.wait(response.delay_s)
        request.ended_at = clock.monotonic()
        if response.drop:
            self.close_connection = True
            self.connection.close()
            return
        try:
            self._send(response)
        except OSError:
            self.close_connection = True  # the caller disconnected

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.all_headers().items():
            self.send_header(name, value)
        if not self.server.keep_alive and response.repeat == 1:
            self.send_header("connection", "close")
        self.end_headers()
        data = response.data()
        for _ in range(response.repeat):
            time.sleep(response.pause_s)
            self.wfile.write(data[: len(data) - response.withheld_bytes])
        declared = response.all_headers().get("content-length", "0")
        if response.withheld_bytes or (declared.isdigit() and int(declared) > len(data)):
            self.close_connection = True  # the caller must not wait for the rest

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        return
