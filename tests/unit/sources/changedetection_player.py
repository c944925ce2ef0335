"""A server that answers as changedetection.io's API does (0.60.10), and does wrong what a test asks for."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Player:
    """drops: the connection is dropped before or after a watch is made. refuses: URLs that it takes for none.

    meanwhile: what others do while a watch is made.
    """

    def __init__(self) -> None:
        self.watches: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, str] = {}
        self.history: dict[str, list[int]] = {}
        self.asked: list[str] = []
        self.key = "key"
        self.drops: str | None = None
        self.refuses: set[str] = set()
        self.meanwhile: Callable[[], object] = lambda: None
        self.url = ""

    def add(self, url: str, **more: Any) -> str:
        found = str(uuid.uuid4())
        base = {"uuid": found, "url": url, "title": None, "last_changed": 0, "last_checked": 0, "last_error": False}
        self.watches[found] = {**base, "tags": [], "paused": False, **more}
        return found

    @contextmanager
    def playing(self) -> Iterator[Player]:
        player = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                player._answer(self, None)

            do_DELETE = do_GET  # noqa: N815  the name it is called by

            def do_POST(self) -> None:
                player._answer(self, json.loads(self.rfile.read(int(self.headers["content-length"]))))

            do_PUT = do_POST  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)

    def _answer(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        self.asked.append(f"{handler.command} {handler.path}")
        if handler.headers.get("x-api-key") != self.key:
            return _say(handler, 403, "Invalid access - API key invalid.")
        parts = urlsplit(handler.path)
        names = parts.path.removeprefix("/api/v1").strip("/").split("/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, said = self._said(handler.command, names, query, body)
        if status:
            return _say(handler, status, said)
        handler.close_connection = True
        handler.connection.close()

    def _said(self, method: str, names: list[str], query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Status 0: the connection is dropped."""
        match (method, *names):
            case ("GET", "search"):
                return 200, {key: one for key, one in self.watches.items() if one["url"] == query["q"]}
            case ("GET", "tags"):
                return 200, {key: {"uuid": key, "title": title} for title, key in self.tags.items()}
            case ("POST", "tag"):
                self.tags[body["title"]] = str(uuid.uuid4())
                return 201, {"uuid": self.tags[body["title"]]}
            case ("GET", "watch"):
                return 200, self.watches
            case ("POST", "watch"):
                return self._made(body)
            case (_, "watch", key, *_) if key not in self.watches:
                status = 400 if method == "DELETE" else 404
                return status, {"message": f"No watch exists with the UUID of {key}"}
            case ("GET", "watch", key):
                return 200, self.watches[key]
            case ("DELETE", "watch", key):
                del self.watches[key]
                return 204, None
            case ("GET", "watch", key, "history"):
                return 200, {str(at): f"/datastore/{at}.txt" for at in self.history.get(key, [])}
        return 404, {"message": "Not found"}

    def _made(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.drops == "before":
            return 0, None
        if body["url"] in self.refuses:
            return 400, "Invalid or unsupported URL"
        found = self.add(**body)
        self.meanwhile()
        return (0, None) if self.drops == "after" else (201, {"uuid": found})


def _say(handler: BaseHTTPRequestHandler, status: int, said: Any) -> None:
    raw = b"" if said is None else json.dumps(said).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw)
