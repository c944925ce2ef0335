"""Firecrawl, version 2 of its API: pages, crawls, batches and site maps; and anything else passed on as it comes.

    document = await firecrawl().scrape({"url": "https://example.org/", "formats": ["markdown"]})

Nothing is tried again here: the ledger does that for jobs, and a caller for a request.
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

from app.clients.firecrawl_errors import FirecrawlTimeout, page_fault, refusal, unreadable
from app.core import http
from app.core.errors import NotFound, Unavailable
from app.core.settings import get_settings
from app.core.sql import storable

CONNECT_TIMEOUT_S = 5.0
# What a scrape may take beyond its own limit: Firecrawl's answer has to travel, too.
SCRAPE_MARGIN_S = 10.0
DEFAULT_SCRAPE_MS = 60_000
NOT_CONFIGURED = "Firecrawl is not set up here: MILLRACE_FIRECRAWL_URL names it"
_VERSION = re.compile(r"/v[12]/*$")
_OF_A_VERSION = re.compile(r"/v[12]/.*")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")

Options = Mapping[str, Any]
Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class CrawlStatus:
    """A crawl or a batch as it stands. `next` is where its further pages are; status: scraping, completed, failed,
    cancelled."""

    status: str
    total: int
    completed: int
    credits_used: int
    expires_at: str | None
    data: list[dict[str, Any]]
    next: str | None

    @classmethod
    def of(cls, said: dict[str, Any]) -> CrawlStatus:
        """Raises InvalidResponse for what is none."""
        data = said.get("data") or []
        if not isinstance(said.get("status"), str) or not isinstance(data, list):
            raise unreadable("it tells no status")
        numbers = {name: said.get(name) for name in ("total", "completed", "creditsUsed")}
        total, completed, spent = (value if isinstance(value, int) else 0 for value in numbers.values())
        following, expires = said.get("next"), said.get("expiresAt")
        return cls(
            status=said["status"],
            total=total,
            completed=completed,
            credits_used=spent,
            expires_at=expires if isinstance(expires, str) else None,
            data=[one for one in data if isinstance(one, dict)],
            next=following if isinstance(following, str) and following else None,
        )


class Firecrawl:
    """One server as one event loop uses it. Errors are those of `firecrawl_errors`, by status and then by code."""

    def __init__(self, url: str, key: str) -> None:
        self.base = _VERSION.sub("", url.rstrip("/"))
        # Redirects are not followed: the key goes to this server alone.
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = http.async_client(base_url=self.base, headers=headers)

    async def scrape(self, options: Options) -> dict[str, Any]:
        """The document. Raises PageFault where the page cannot be had for a reason of its own."""
        limit_ms = (options.get("timeout") or DEFAULT_SCRAPE_MS) + (options.get("waitFor") or 0)
        said = await self._called("POST", "/v2/scrape", limit_ms / 1000 + SCRAPE_MARGIN_S, options)
        document = said.get("data")
        if not isinstance(document, dict):
            raise unreadable("it has no document")
        metadata = document.get("metadata")
        status = metadata.get("statusCode") if isinstance(metadata, dict) else None
        if isinstance(status, int) and status >= 400:
            raise page_fault(status, str(options.get("url")), metadata.get("error") if metadata else None)
        return document

    async def start_crawl(self, options: Options, *, idempotency_key: str | None = None) -> str:
        """The crawl's id. Raises Conflict where the key was used before, which does not tell that crawl's id."""
        headers = {"x-idempotency-key": idempotency_key} if idempotency_key else {}
        return _id(await self._called("POST", "/v2/crawl", None, options, headers))

    async def start_batch(self, options: Options) -> tuple[str, list[str]]:
        """The batch's id, and the URLs that are none."""
        said = await self._called("POST", "/v2/batch/scrape", None, options)
        invalid = said.get("invalidURLs")
        return _id(said), [str(url) for url in invalid] if isinstance(invalid, list) else []

    async def crawl_status(self, crawl_id: str, *, after: str | None = None, limit: int | None = None) -> CrawlStatus:
        """How it stands, with its first pages, or those at `after`: the `next` of the answer before."""
        return await self._status(_crawl(crawl_id), after, limit)

    async def batch_status(self, batch_id: str, *, after: str | None = None, limit: int | None = None) -> CrawlStatus:
        return await self._status(_batch(batch_id), after, limit)

    def crawl_pages(self, crawl_id: str) -> AsyncIterator[CrawlStatus]:
        """All that the crawl has brought until now, a part at a time; `next` may go on where nothing is yet."""
        return self._pages(_crawl(crawl_id))

    def batch_pages(self, batch_id: str) -> AsyncIterator[CrawlStatus]:
        return self._pages(_batch(batch_id))

    async def cancel_crawl(self, crawl_id: str) -> None:
        """Raises Conflict where it has ended, NotFound."""
        await self._called("DELETE", _crawl(crawl_id))

    async def cancel_batch(self, batch_id: str) -> None:
        await self._called("DELETE", _batch(batch_id))

    async def crawl_errors(self, crawl_id: str) -> list[dict[str, Any]]:
        """Pages that failed: {id, timestamp, url, error}."""
        return _dicts(await self._called("GET", _crawl(crawl_id) + "/errors"), "errors")

    async def active_crawls(self) -> list[dict[str, Any]]:
        """Crawls that run: {id, url, …}."""
        return _dicts(await self._called("GET", "/v2/crawl/active"), "crawls")

    async def batch_errors(self, batch_id: str) -> list[dict[str, Any]]:
        return _dicts(await self._called("GET", _batch(batch_id) + "/errors"), "errors")

    async def map(self, options: Options) -> list[dict[str, Any]]:
        """The site's URLs: {url, title?, description?}."""
        limit_ms = options.get("timeout") or DEFAULT_SCRAPE_MS
        return _dicts(await self._called("POST", "/v2/map", limit_ms / 1000 + SCRAPE_MARGIN_S, options), "links")

    async def forward(self, method: str, target: str, headers: Headers, body: bytes, timeout_s: float) -> http.Response:
        """The answer to this very request, its body unread: close it. Raises FirecrawlTimeout, Unavailable.

        `target` is path and query, encoded; the headers must name no credentials.
        """
        timeout = http.timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        # Not compressed, so that it can be passed on as it is, with its length.
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        pairs.append((b"accept-encoding", b"identity"))
        request = self._client.build_request(method, target, headers=pairs, content=body, timeout=timeout)
        return await self._sent(request, timeout_s)

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
            found = _OF_A_VERSION.search(parts.path)
            if found is None:
                raise unreadable("its `next` leads nowhere")
            # Host and scheme of `next` are what Firecrawl believes of itself, behind a proxy wrongly.
            path = found[0] + (f"?{parts.query}" if parts.query else "")
        elif limit is not None:
            path += f"?limit={limit}"
        return CrawlStatus.of(await self._called("GET", path))

    async def _called(
        self,
        method: str,
        path: str,
        timeout_s: float | None = None,
        body: Options | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The answer's object, where it is a success."""
        wait_s = timeout_s or get_settings().firecrawl_timeout_s
        timeout = http.timeout(wait_s, connect=CONNECT_TIMEOUT_S)
        given: dict[str, Any] = {} if body is None else {"json": dict(body)}
        request = self._client.build_request(method, path, headers=dict(headers or {}), timeout=timeout, **given)
        response: http.Response | None = None
        try:
            async with asyncio.timeout(wait_s):
                response = await self._sent(request, wait_s)
                read = await read_body(response)
        except TimeoutError as error:
            raise FirecrawlTimeout(f"Firecrawl did not answer within {wait_s:g} s") from error
        finally:
            if response is not None:
                await response.aclose()
        # Some answers are of many megabytes.
        return await asyncio.to_thread(_checked, response, read, of_a_job=method != "POST")

    async def _sent(self, request: Any, timeout_s: float) -> http.Response:
        try:
            return await self._client.send(request, stream=True)
        except http.ConnectError as error:
            raise Unavailable(f"Firecrawl cannot be reached: {error}", code="firecrawl_unavailable") from error
        except http.TimeoutException as error:
            raise FirecrawlTimeout(f"Firecrawl did not answer within {timeout_s:g} s") from error
        except http.HTTPError as error:
            raise _broken(error) from error


async def read_body(response: http.Response, first: bytes = b"") -> bytes:
    """The answer's body. Raises InvalidResponse where it is too large, Unavailable where it breaks off."""
    largest, parts, size = get_settings().firecrawl_max_bytes, [first], len(first)
    try:
        async for part in response.aiter_bytes():
            size += len(part)
            if size > largest:
                raise unreadable(f"it is larger than {largest:,} bytes")
            parts.append(part)
    except http.TimeoutException as error:
        raise FirecrawlTimeout("Firecrawl's answer does not go on") from error
    except http.HTTPError as error:
        raise _broken(error) from error
    return b"".join(parts)


def _broken(error: Exception) -> Unavailable:
    text = str(error) or type(error).__name__
    return Unavailable(f"Firecrawl's answer broke off: {text}", code="firecrawl_unavailable")


def _checked(response: http.Response, body: bytes, *, of_a_job: bool) -> dict[str, Any]:
    try:
        said = storable(json.loads(body))  # what SQL and our own answers can hold
    except (ValueError, RecursionError) as error:
        if response.is_success:
            raise unreadable("it is no JSON") from error
        said = None
    if response.is_success and not isinstance(said, dict):
        raise unreadable("it is no object")
    said = said if isinstance(said, dict) else {}
    if not response.is_success or said.get("success") is False:
        raise refusal(response.status_code, said, response.headers.get("retry-after", ""), of_a_job=of_a_job)
    return said


def _crawl(crawl_id: str) -> str:
    return f"/v2/crawl/{_job_id(crawl_id)}"


def _batch(batch_id: str) -> str:
    return f"/v2/batch/scrape/{_job_id(batch_id)}"


def _job_id(job_id: str) -> str:
    """Raises NotFound for what would be another path."""
    if not _JOB_ID.fullmatch(job_id):
        raise NotFound(f"{job_id[:60]!r} is no job of Firecrawl", code="firecrawl_job_not_found")
    return job_id


def _id(said: dict[str, Any]) -> str:
    found = said.get("id")
    if not isinstance(found, str) or not found:
        raise unreadable("it has no id")
    return found


def _dicts(said: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = said.get(name)
    if not isinstance(found, list):
        raise unreadable(f"it has no {name}")
    return [one for one in found if isinstance(one, dict)]


# A connection belongs to the loop it was made in.
_opened: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[tuple[str, str], Firecrawl]] = WeakKeyDictionary()


def is_configured() -> bool:
    return bool(get_settings().firecrawl_url)


def firecrawl() -> Firecrawl:
    """The one that the settings name, its connections shared by all on this loop. Raises Unavailable for none."""
    settings = get_settings()
    if not settings.firecrawl_url:
        raise Unavailable(NOT_CONFIGURED, code="firecrawl_not_configured", retry_after_s=3600)
    chosen = settings.firecrawl_url, settings.firecrawl_api_key.get_secret_value()
    loop = asyncio.get_running_loop()
    known = _opened.get(loop)
    if known is None or known[0] != chosen:
        known = _opened[loop] = chosen, Firecrawl(*chosen)
    return known[1]


async def close_firecrawl() -> None:
    """Give back what the running loop holds open."""
    known = _opened.pop(asyncio.get_running_loop(), None)
    if known is not None:
        await known[1].close()
