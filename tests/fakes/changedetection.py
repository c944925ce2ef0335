"""Fake changedetection.io with the API of 0.60.10, and the faults that a test asks for."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from tests.fakes.server import FakeServer, Request, Response


class FakeChangeDetection(FakeServer):
    """`drops`: drop the connection "before" or "after" a watch is created. `refuses`: URLs that are refused.

    `on_create` runs while a watch is created.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watches: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, str] = {}
        self.history: dict[str, list[int]] = {}
        self.calls: list[str] = []
        self.key = "key"
        self.drops: str | None = None
        self.refuses: set[str] = set()
        self.on_create: Callable[[], object] = lambda: None

    def add(self, url: str, **more: Any) -> str:
        watch_id = str(uuid.uuid4())
        base = {"uuid": watch_id, "url": url, "title": None, "last_changed": 0, "last_checked": 0, "last_error": False}
        self.watches[watch_id] = {**base, "tags": [], "paused": False, **more}
        return watch_id

    def respond(self, request: Request) -> Response:
        self.calls.append(f"{request.method} {request.target}")
        if request.headers.get("x-api-key") != self.key:
            return Response("Invalid access - API key invalid.", 403)
        names = request.path.removeprefix("/api/v1").strip("/").split("/")
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        status, body = self._route(request.method, names, query, request.json if request.body else None)
        return Response(b"" if body is None else body, status or 200, drop=not status)

    def _route(self, method: str, names: list[str], query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Return status and body; status 0 drops the connection."""
        match (method, *names):
            case ("GET", "search"):
                return 200, {key: watch for key, watch in self.watches.items() if watch["url"] == query["q"]}
            case ("GET", "tags"):
                return 200, {key: {"uuid": key, "title": title} for title, key in self.tags.items()}
            case ("POST", "tag"):
                self.tags[body["title"]] = str(uuid.uuid4())
                return 201, {"uuid": self.tags[body["title"]]}
            case ("GET", "watch"):
                return 200, self.watches
            case ("POST", "watch"):
                return self._create(body)
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
        return 404, {"message": "Not watch_id"}

    def _create(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.drops == "before":
            return 0, None
        if body["url"] in self.refuses:
            return 400, "Invalid or unsupported URL"
        watch_id = self.add(**body)
        self.on_create()
        return (0, None) if self.drops == "after" else (201, {"uuid": watch_id})
