"""A server that plays Firecrawl, right or wrong, and remembers what it was asked."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "fc-of-the-tests"
CRAWL = "550e8400-e29b-41d4-a716-446655440000"
BATCH = "550e8400-e29b-41d4-a716-446655440001"
PAGES_IN_A_PART = 2
EXPIRES = "2026-11-23T09:00:00.000Z"


@dataclass
class Reply:
    """`body`: bytes as they are, anything else as JSON. `cut` bytes of it are held back, `slow_s` passes before."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    slow_s: float = 0.0
    gzipped: bool = False

    def data(self) -> bytes:
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return gzip.compress(data) if self.gzipped else data


@dataclass
class Asked:
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


def document(url: str, **more: Any) -> dict[str, Any]:
    """A page as Firecrawl gives it."""
    metadata = {"sourceURL": url, "url": url, "title": "Docs", "statusCode": 200, "contentType": "text/html"}
    return {"markdown": f"# Docs of {url}", "html": f"<h1>Docs of {url}</h1>", "metadata": {**metadata, **more}}


class Firecrawl(ThreadingHTTPServer):
    """Scrapes any page, has one crawl of five pages and one batch; `wrong` may answer in its place."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Played)
        self.asked: list[Asked] = []
        self.wrong: Callable[[Asked], Reply | None] = lambda asked: None
        self.pages = [document(f"https://example.org/{number}") for number in range(5)]
        self.released = threading.Event()

    @contextmanager
    def playing(self) -> Iterator[Firecrawl]:
        """Answers for the length of a block; `stop` ends it before."""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reply(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        wrong = self.wrong(asked)
        if wrong is not None:
            return wrong
        found = _ROUTES.get((asked.method, asked.path))
        return found(self, asked) if found else Reply(404, {"success": False, "error": "Job not found"})

    def part(self, asked: Asked, job: str, path: str) -> Reply:
        skip = int(parse_qs(asked.query).get("skip", ["0"])[0])
        end = skip + PAGES_IN_A_PART
        # As a server without TLS behind no proxy says it: with a scheme and a host that are not its own.
        following = f"https://elsewhere.example{path}/{job}?skip={end}" if end < len(self.pages) else None
        body = {
            "success": True, "status": "completed", "total": len(self.pages), "completed": len(self.pages),
            "creditsUsed": len(self.pages), "expiresAt": EXPIRES, "data": self.pages[skip:end], "next": following,
        }  # fmt: skip
        return Reply(200, body)


def _scrape(server: Firecrawl, asked: Asked) -> Reply:
    try:
        return Reply(200, {"success": True, "data": document(asked.json["url"])})
    except (KeyError, TypeError, ValueError):
        return Reply(400, {"success": False, "code": "BAD_REQUEST", "error": "Invalid request body"})


def _started(job: str, path: str) -> Callable[[Firecrawl, Asked], Reply]:
    def start(server: Firecrawl, asked: Asked) -> Reply:
        body = {"success": True, "id": job, "url": f"https://elsewhere.example{path}/{job}"}
        return Reply(200, body | ({"invalidURLs": []} if path.endswith("scrape") else {}))

    return start


def _always(body: Any) -> Callable[[Firecrawl, Asked], Reply]:
    return lambda server, asked: Reply(200, body)


_ERRORS = {
    "errors": [{"id": "1", "timestamp": "2026-08-01T10:00:00.000Z", "url": "https://a.org/x", "error": "timeout"}],
    "robotsBlocked": ["https://a.org/private"],
}
_ROUTES: dict[tuple[str, str], Callable[[Firecrawl, Asked], Reply]] = {
    ("POST", "/v2/scrape"): _scrape,
    ("POST", "/v2/crawl"): _started(CRAWL, "/v2/crawl"),
    ("GET", f"/v2/crawl/{CRAWL}"): lambda server, asked: server.part(asked, CRAWL, "/v2/crawl"),
    ("DELETE", f"/v2/crawl/{CRAWL}"): _always({"status": "cancelled"}),
    ("GET", f"/v2/crawl/{CRAWL}/errors"): _always(_ERRORS),
    ("GET", "/v2/crawl/active"): _always({"success": True, "crawls": []}),
    ("POST", "/v2/batch/scrape"): _started(BATCH, "/v2/batch/scrape"),
    ("GET", f"/v2/batch/scrape/{BATCH}"): lambda server, asked: server.part(asked, BATCH, "/v2/batch/scrape"),
    ("DELETE", f"/v2/batch/scrape/{BATCH}"): _always({"success": True, "message": "cancelled"}),
    ("GET", f"/v2/batch/scrape/{BATCH}/errors"): _always(_ERRORS),
    ("POST", "/v2/map"): _always({"success": True, "links": [{"url": "https://example.org/a", "title": "A"}]}),
    ("POST", "/v2/search"): _always({"success": True, "data": {"web": []}, "id": "search-1", "creditsUsed": 2}),
    ("POST", "/v2/extract"): _always({"success": True, "id": "extract-1"}),
    ("GET", "/v2/team/queue-status"): _always({"success": True, "jobsInQueue": 0}),
}


class _Played(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Firecrawl

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        asked = Asked(self.command, parts.path, parts.query, list(self.headers.items()), body)
        reply = self.server.reply(asked)
        if reply.slow_s:
            self.server.released.wait(reply.slow_s)
        data = reply.data()
        headers = {"content-type": "application/json", "content-length": str(len(data))} | reply.headers
        if reply.gzipped:
            headers["content-encoding"] = "gzip"
        try:
            self.send_response(reply.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) - reply.cut])
        except OSError:
            return  # the caller has seen enough
        if reply.cut:
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass
