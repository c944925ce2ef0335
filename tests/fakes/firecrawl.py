"""A server that plays FakeFirecrawl, right or wrong, and remembers what it was request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from tests.fakes.server import FakeServer, Request, Response

KEY = "fc-of-the-tests"
CRAWL = "550e8400-e29b-41d4-a716-446655440000"
BATCH = "550e8400-e29b-41d4-a716-446655440001"
PAGES_IN_A_PART = 2
EXPIRES = "2026-11-23T09:00:00.000Z"


def reply(
    status: int = 200,
    body: Any = None,
    headers: dict[str, str] | None = None,
    *,
    withheld_bytes: int = 0,
    delay_s: float = 0.0,
    gzipped: bool = False,
) -> Response:
    """Return a response of FakeFirecrawl, JSON by default."""
    headers = {"content-type": "application/json"} | (headers or {})
    return Response(body, status, headers, withheld_bytes=withheld_bytes, delay_s=delay_s, gzipped=gzipped)


def document(url: str, **more: Any) -> dict[str, Any]:
    """Return a page in Firecrawl's form."""
    metadata = {"sourceURL": url, "url": url, "title": "Docs", "statusCode": 200, "contentType": "text/html"}
    return {"markdown": f"# Docs of {url}", "html": f"<h1>Docs of {url}</h1>", "metadata": {**metadata, **more}}


class FakeFirecrawl(FakeServer):
    """Scrapes any page, has one crawl of five pages and one batch; `wrong` may answer instead."""

    keep_alive = True

    def __init__(self) -> None:
        super().__init__()
        self.wrong: Callable[[Request], Response | None] = lambda request: None
        self.pages = [document(f"https://example.org/{number}") for number in range(5)]

    def respond(self, request: Request) -> Response:
        wrong = self.wrong(request)
        if wrong is not None:
            return wrong
        route = _ROUTES.get((request.method, request.path))
        return route(self, request) if route else reply(404, {"success": False, "error": "Job not found"})

    def part(self, request: Request, job: str, path: str) -> Response:
        skip = int(parse_qs(request.query).get("skip", ["0"])[0])
        end = skip + PAGES_IN_A_PART
        # A self-hosted server reports a scheme and host that are not its own.
        following = f"https://elsewhere.example{path}/{job}?skip={end}" if end < len(self.pages) else None
        body = {
            "success": True, "status": "completed", "total": len(self.pages), "completed": len(self.pages),
            "creditsUsed": len(self.pages), "expiresAt": EXPIRES, "data": self.pages[skip:end], "next": following,
        }  # fmt: skip
        return reply(200, body)


def _scrape(server: FakeFirecrawl, request: Request) -> Response:
    try:
        return reply(200, {"success": True, "data": document(request.json["url"])})
    except (KeyError, TypeError, ValueError):
        return reply(400, {"success": False, "code": "BAD_REQUEST", "error": "Invalid request body"})


def _started(job: str, path: str) -> Callable[[FakeFirecrawl, Request], Response]:
    def start(server: FakeFirecrawl, request: Request) -> Response:
        body = {"success": True, "id": job, "url": f"https://elsewhere.example{path}/{job}"}
        return reply(200, body | ({"invalidURLs": []} if path.endswith("scrape") else {}))

    return start


def _always(body: Any) -> Callable[[FakeFirecrawl, Request], Response]:
    return lambda server, request: reply(200, body)


_ERRORS = {
    "errors": [{"id": "1", "timestamp": "2026-08-01T10:00:00.000Z", "url": "https://a.org/x", "error": "timeout"}],
    "robotsBlocked": ["https://a.org/private"],
}
_ROUTES: dict[tuple[str, str], Callable[[FakeFirecrawl, Request], Response]] = {
    ("POST", "/v2/scrape"): _scrape,
    ("POST", "/v2/crawl"): _started(CRAWL, "/v2/crawl"),
    ("GET", f"/v2/crawl/{CRAWL}"): lambda server, request: server.part(request, CRAWL, "/v2/crawl"),
    ("DELETE", f"/v2/crawl/{CRAWL}"): _always({"status": "cancelled"}),
    ("GET", f"/v2/crawl/{CRAWL}/errors"): _always(_ERRORS),
    ("GET", "/v2/crawl/active"): _always({"success": True, "crawls": []}),
    ("POST", "/v2/batch/scrape"): _started(BATCH, "/v2/batch/scrape"),
    ("GET", f"/v2/batch/scrape/{BATCH}"): lambda server, request: server.part(request, BATCH, "/v2/batch/scrape"),
    ("DELETE", f"/v2/batch/scrape/{BATCH}"): _always({"success": True, "message": "cancelled"}),
    ("GET", f"/v2/batch/scrape/{BATCH}/errors"): _always(_ERRORS),
    ("POST", "/v2/map"): _always({"success": True, "links": [{"url": "https://example.org/a", "title": "A"}]}),
    ("POST", "/v2/search"): _always({"success": True, "data": {"web": []}, "id": "search-1", "creditsUsed": 2}),
    ("POST", "/v2/extract"): _always({"success": True, "id": "extract-1"}),
    ("GET", "/v2/team/queue-status"): _always({"success": True, "jobsInQueue": 0}),
}
