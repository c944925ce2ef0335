"""Client of Firecrawl's API version 2: pages, crawls, batches and site maps; other requests are forwarded unchanged.

    document = await firecrawl().scrape({"url": "https://example.org/", "formats": ["markdown"]})

Nothing is retried here: the ledger retries jobs, and a caller repeats a request.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from app.clients.firecrawl_errors import FirecrawlNotConfigured, FirecrawlTimeout, page_error, refusal, unreadable
from app.core import http
from app.core.errors import NotFound, Unavailable
from app.core.settings import get_settings
from app.core.sql import storable

CONNECT_TIMEOUT_S = 5.0
# Added to a scrape's own time limit for the transfer of the response.
SCRAPE_MARGIN_S = 10.0
DEFAULT_SCRAPE_MS = 60_000
NOT_CONFIGURED = "Firecrawl is not set up: set MILLRACE_FIRECRAWL_URL"
_VERSION = re.compile(r"/v[12]/*$")
_VERSIONED_PATH = re.compile(r"/v[12]/.*")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")

Options = Mapping[str, Any]
Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class CrawlStatus:
    """State of a crawl or batch: scraping, completed, failed or cancelled. `next` is the URL of its further pages."""

    status: str
    total: int
    completed: int
    credits_used: int
    expires_at: str | None
    data: list[dict[str, Any]]
    next: str | None

    @classmethod
    def parse(cls, body: dict[str, Any]) -> CrawlStatus:
        """Read the state from a response body. Raises InvalidResponse."""
        data = body.get("data") or []
        if not isinstance(body.get("status"), str) or not isinstance(data, list):
            raise unreadable("it has no status")
        numbers = {name: body.get(name) for name in ("total", "completed", "creditsUsed")}
        total, completed, spent = (value if isinstance(value, int) else 0 for value in numbers.values())
        following, expires = body.get("next"), body.get("expiresAt")
        return cls(
            status=body["status"],
            total=total,
            completed=completed,
            credits_used=spent,
            expires_at=expires if isinstance(expires, str) else None,
            data=[document for document in data if isinstance(document, dict)],
            next=following if isinstance(following, str) and following else None,
        )


class Firecrawl:
    """Connections to one server; used on one event loop. Raises the errors of `firecrawl_errors`."""

    def __init__(self, url: str, key: str) -> None:
        self.base = _VERSION.sub("", url.rstrip("/"))
        # Redirects are not followed: the key must reach this server only.
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # read_body() and the proxy count the bytes, by a setting.
        self._client = http.async_client(base_url=self.base, headers=headers, max_bytes=None)

    async def scrape(self, options: Options) -> dict[str, Any]:
        """Return the document. Raises PageFault if the page itself is the cause of the failure."""
        limit_ms = (options.get("timeout") or DEFAULT_SCRAPE_MS) + (options.get("waitFor") or 0)
        body = await self._request("POST", "/v2/scrape", limit_ms / 1000 + SCRAPE_MARGIN_S, options)
        document = body.get("data")
        if not isinstance(document, dict):
            raise unreadable("it has no document")
        fault = page_error(document.get("metadata"), str(options.get("url")))
        if fault is not None:
            raise fault
        return document

    async def start_crawl(self, options: Options, *, idempotency_key: str | None = None) -> str:
        """Start a crawl and return its id. Raises Conflict if the key was used before; that error has no crawl id."""
        headers = {"x-idempotency-key": idempotency_key} if idempotency_key else {}
        return _id(await self._request("POST", "/v2/crawl", None, options, headers))

    async def start_batch(self, options: Options) -> tuple[str, list[str]]:
        """Start a batch; return its id and the URLs that Firecrawl refused as invalid."""
        body = await self._request("POST", "/v2/batch/scrape", None, options)
        invalid = body.get("invalidURLs")
        return _id(body), [str(url) for url in invalid] if isinstance(invalid, list) else []

    async def crawl_status(self, crawl_id: str, *, after: str | None = None, limit: int | None = None) -> CrawlStatus:
        """Return the state with the first pages, or with those at `after`, the `next` of the previous response."""
        return await self._status(_crawl(crawl_id), after, limit)

    async def batch_status(self, batch_id: str, *, after: str | None = None, limit: int | None = None) -> CrawlStatus:
        return await self._status(_batch(batch_id), after, limit)

    def crawl_pages(self, crawl_id: str) -> AsyncIterator[CrawlStatus]:
        """Yield the crawl's pages so far, one part at a time; the last part may have a `next` without pages."""
        return self._pages(_crawl(crawl_id))

    def batch_pages(self, batch_id: str) -> AsyncIterator[CrawlStatus]:
        return self._pages(_batch(batch_id))

    async def cancel_crawl(self, crawl_id: str) -> None:
        """Cancel the crawl. Raises Conflict if it has ended, NotFound."""
        await self._request("DELETE", _crawl(crawl_id))

    async def cancel_batch(self, batch_id: str) -> None:
        await self._request("DELETE", _batch(batch_id))

    async def crawl_errors(self, crawl_id: str) -> list[dict[str, Any]]:
        """Return the pages that failed: {id, timestamp, url, error}."""
        return _dicts(await self._request("GET", _crawl(crawl_id) + "/errors"), "errors")

    async def active_crawls(self) -> list[dict[str, Any]]:
        """Return the running crawls: {id, url, …}."""
        return _dicts(await self._request("GET", "/v2/crawl/active"), "crawls")

    async def batch_errors(self, batch_id: str) -> list[dict[str, Any]]:
        return _dicts(await self._request("GET", _batch(batch_id) + "/errors"), "errors")

    async def map(self, options: Options) -> list[dict[str, Any]]:
        """Return the site's URLs: {url, title?, description?}."""
        limit_ms = options.get("timeout") or DEFAULT_SCRAPE_MS
        return _dicts(await self._request("POST", "/v2/map", limit_ms / 1000 + SCRAPE_MARGIN_S, options), "links")

    async def forward(self, method: str, target: str, headers: Headers, body: bytes, timeout_s: float) -> http.Response:
        """Forward a request and return the response with its body unread; the caller closes it.

        `target` is the encoded path and query; the headers must hold no credentials. Raises FirecrawlTimeout,
        Unavailable.
        """
        timeout = http.timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        # Not compressed, so that the body can be forwarded unchanged, with its length.
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        pairs.append((b"accept-encoding", b"identity"))
        request = self._client.build_request(method, target, headers=pairs, content=body, timeout=timeout)
        return await self._send(request, timeout_s)

    async def close(self) -> None:
        await self._client.aclose()

    async def _pages(self, path: str) -> AsyncIterator[CrawlStatus]:
        part, seen = await self._status(path, None, None), set[str]()
        yield part
        while part.next and part.data and part.next not in seen:
            seen.add(part.next)
            part = await self._status(path, part.next, None)
            yield part

    async def _status(self, path: str, after: str | None, limit: int | None) -> CrawlStatus:
        if after is not None:
            parts = urlsplit(after)
            match = _VERSIONED_PATH.search(parts.path)
            if match is None:
                raise unreadable("its `next` has no path of this API")
            # Host and scheme of `next` are wrong when Firecrawl runs behind a proxy.
            path = match[0] + (f"?{parts.query}" if parts.query else "")
        elif limit is not None:
            path += f"?limit={limit}"
        return CrawlStatus.parse(await self._request("GET", path))

    async def _request(
        self,
        method: str,
        path: str,
        timeout_s: float | None = None,
        body: Options | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request and return the object of a successful response."""
        wait_s = timeout_s or get_settings().firecrawl_timeout_s
        timeout = http.timeout(wait_s, connect=CONNECT_TIMEOUT_S)
        content: dict[str, Any] = {} if body is None else {"json": dict(body)}
        request = self._client.build_request(method, path, headers=dict(headers or {}), timeout=timeout, **content)
        response: http.Response | None = None
        try:
            async with asyncio.timeout(wait_s):
                response = await self._send(request, wait_s)
                data = await read_body(response)
        except TimeoutError as error:
            raise FirecrawlTimeout(f"Firecrawl did not answer within {wait_s:g} s") from error
        finally:
            if response is not None:
                await response.aclose()
        # In a thread: some bodies have many megabytes.
        return await asyncio.to_thread(_parse, response, data, has_job_id=method != "POST")

    async def _send(self, request: Any, timeout_s: float) -> http.Response:
        try:
            return await self._client.send(request, stream=True)
        except http.ConnectError as error:
            raise Unavailable(f"Firecrawl cannot be reached: {error}", code="firecrawl_unavailable") from error
        except http.TimeoutException as error:
            raise FirecrawlTimeout(f"Firecrawl did not answer within {timeout_s:g} s") from error
        except http.HTTPError as error:
            raise _broken(error) from error


async def read_body(response: http.Response, first: bytes = b"") -> bytes:
    """Return the body. Raises InvalidResponse if it is too large, Unavailable if the connection breaks."""
    max_bytes, parts, size = get_settings().firecrawl_max_bytes, [first], len(first)
    try:
        async for part in response.aiter_bytes():
            size += len(part)
            if size > max_bytes:
                raise unreadable(f"it is larger than {max_bytes:,} bytes")
            parts.append(part)
    except http.TimeoutException as error:
        raise FirecrawlTimeout("Firecrawl's response stalled") from error
    except http.HTTPError as error:
        raise _broken(error) from error
    return b"".join(parts)


def _broken(error: Exception) -> Unavailable:
    text = str(error) or type(error).__name__
    return Unavailable(f"Firecrawl's response broke off: {text}", code="firecrawl_unavailable")


def _parse(response: http.Response, data: bytes, *, has_job_id: bool) -> dict[str, Any]:
    try:
        body = storable(json.loads(data))  # text that SQL and our own responses can hold
    except (ValueError, RecursionError) as error:
        if response.is_success:
            raise unreadable("it is not JSON") from error
        body = None
    if response.is_success and not isinstance(body, dict):
        raise unreadable("it is not a JSON object")
    body = body if isinstance(body, dict) else {}
    if not response.is_success or body.get("success") is False:
        raise refusal(response.status_code, body, response.headers.get("retry-after", ""), has_job_id=has_job_id)
    return body


def _crawl(crawl_id: str) -> str:
    return f"/v2/crawl/{_job_id(crawl_id)}"


def _batch(batch_id: str) -> str:
    return f"/v2/batch/scrape/{_job_id(batch_id)}"


def _job_id(job_id: str) -> str:
    """Return the id. Raises NotFound for one with other characters, which could change the path."""
    if not _JOB_ID.fullmatch(job_id):
        raise NotFound(f"Firecrawl has no job {job_id[:60]!r}", code="firecrawl_job_not_found")
    return job_id


def _id(body: dict[str, Any]) -> str:
    job_id = body.get("id")
    if not isinstance(job_id, str) or not job_id:
        raise unreadable("it has no id")
    return job_id


def _dicts(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = body.get(name)
    if not isinstance(items, list):
        raise unreadable(f"it has no {name}")
    return [item for item in items if isinstance(item, dict)]


# A connection belongs to the event loop that opened it.
_opened: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[tuple[str, str], Firecrawl]] = WeakKeyDictionary()


def is_configured() -> bool:
    return bool(get_settings().firecrawl_url)


def firecrawl() -> Firecrawl:
    """Return this loop's client of the server in the settings. Raises FirecrawlNotConfigured without one."""
    settings = get_settings()
    if not settings.firecrawl_url:
        raise FirecrawlNotConfigured(NOT_CONFIGURED, retry_after_s=3600)
    server = settings.firecrawl_url, settings.firecrawl_api_key.get_secret_value()
    loop = asyncio.get_running_loop()
    opened = _opened.get(loop)
    if opened is None or opened[0] != server:
        opened = _opened[loop] = server, Firecrawl(*server)
    return opened[1]


async def close_firecrawl() -> None:
    """Close the running loop's connections, if any."""
    opened = _opened.pop(asyncio.get_running_loop(), None)
    if opened is not None:
        await opened[1].close()
