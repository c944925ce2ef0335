"""Firecrawl's API under /v2, passed on with the key of Millrace: its clients need no change, and runs are recorded."""

from __future__ import annotations

import asyncio
import string
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.http.auth import Identity, ProxyCaller
from app.api.http.errors import problem
from app.api.models.base import documented
from app.api.models.firecrawl import (
    FirecrawlAnswer,
    FirecrawlCancelled,
    FirecrawlConcurrency,
    FirecrawlCrawlParams,
    FirecrawlCrawls,
    FirecrawlError,
    FirecrawlErrors,
    FirecrawlExtraction,
    FirecrawlMap,
    FirecrawlQueueStatus,
    FirecrawlRun,
    FirecrawlScrape,
    FirecrawlSearch,
    FirecrawlStatus,
    FirecrawlUsage,
)
from app.clients import firecrawl
from app.clients.firecrawl_errors import FirecrawlNotConfigured, FirecrawlTimeout, InvalidResponse
from app.core import http
from app.core.errors import OutsideError
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.sources.scraping import proxy
from app.sources.scraping.proxy_body import check_body
from app.tenants import scopes

log = get_logger(__name__)

router = APIRouter(prefix="/v2", tags=["firecrawl"])

# Longer answers are streamed.
MAX_BUFFERED_BYTES = 1024 * 1024
TIMEOUT = "Firecrawl API timeout"
# Requests that start a run, with the name under which the run is recorded.
STARTS = {
    "/scrape": "scrape",
    "/batch/scrape": "scrape_batch",
    "/crawl": "crawl",
    "/map": "map",
    "/search": "search",
    "/extract": "extract",
}
LISTS = ("/crawl/ongoing", "/crawl/active")
_REFUSALS = {
    400: "Firecrawl found a fault in the request.",
    401: "The key of Millrace, or the one that Millrace uses at Firecrawl, is missing or wrong.",
    402: "The credits at Firecrawl are used up.",
    403: "The key has not the scope for this, or Firecrawl refuses the page.",
    404: "Firecrawl does not know the run, or another tenant started it.",
    408: "Firecrawl gave up waiting for the page.",
    409: "The run has ended.",
    413: "The body is too large.",
    415: "The body is not JSON in UTF-8.",
    422: "The request is invalid.",
    429: "Too many requests, here or at Firecrawl.",
    500: "A bug, here or at Firecrawl.",
    502: "Firecrawl cannot be reached, or its answer is invalid.",
    503: "Firecrawl is not configured, or unavailable.",
    504: "Firecrawl did not answer in time.",
}
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: documented(FirecrawlError, description) | {"content": _PROBLEM} for status, description in _REFUSALS.items()
}


@dataclass(frozen=True, slots=True)
class ProxiedRoute:
    """A route of Firecrawl: its name in clients, its answer, and an example of its body."""

    method: str
    path: str
    name: str
    summary: str
    answer: type[FirecrawlAnswer]
    example: dict[str, Any] | None = None


_URL = "https://example.org/docs"
ROUTES = (
    ProxiedRoute("POST", "/scrape", "scrape", "Scrape a page", FirecrawlScrape, {"url": _URL, "formats": ["markdown"]}),
    ProxiedRoute("POST", "/batch/scrape", "start_batch_scrape", "Scrape many pages", FirecrawlRun, {"urls": [_URL]}),
    ProxiedRoute("POST", "/crawl", "start_crawl", "Crawl a site", FirecrawlRun, {"url": _URL, "limit": 100}),
    ProxiedRoute("POST", "/map", "map_site", "List the URLs of a site", FirecrawlMap, {"url": "https://example.org"}),
    ProxiedRoute("POST", "/search", "search", "Search the web", FirecrawlSearch, {"query": "durable queues"}),
    ProxiedRoute(
        "POST", "/extract", "start_extract", "Extract data from pages", FirecrawlRun,
        {"urls": [_URL], "prompt": "company name"},
    ),
    ProxiedRoute(
        "POST", "/crawl/params-preview", "preview_crawl_params", "Derive crawl options from a prompt",
        FirecrawlCrawlParams, {"url": _URL, "prompt": "the guides, without the blog"},
    ),
    ProxiedRoute(
        "POST", "/x402/search", "search_with_payment", "Search the web, paid by request", FirecrawlSearch,
        {"query": "durable queues"},
    ),
    ProxiedRoute("GET", "/crawl/ongoing", "list_ongoing_crawls", "List running crawls", FirecrawlCrawls),
    ProxiedRoute("GET", "/crawl/active", "list_active_crawls", "List running crawls", FirecrawlCrawls),
    ProxiedRoute("GET", "/team/credit-usage", "get_credit_usage", "Get the remaining credits", FirecrawlUsage),
    ProxiedRoute(
        "GET", "/team/credit-usage/historical", "list_credit_usage", "List the use of credits by period", FirecrawlUsage
    ),
    ProxiedRoute("GET", "/team/token-usage", "get_token_usage", "Get the remaining tokens", FirecrawlUsage),
    ProxiedRoute(
        "GET", "/team/token-usage/historical", "list_token_usage", "List the use of tokens by period", FirecrawlUsage
    ),
    ProxiedRoute("GET", "/team/queue-status", "get_queue_status", "Count the queued jobs", FirecrawlQueueStatus),
    ProxiedRoute(
        "GET", "/concurrency-check", "check_concurrency", "Get the number of running jobs", FirecrawlConcurrency
    ),
    ProxiedRoute("GET", "/scrape/{run_id}", "get_scrape", "Get the result of a scrape", FirecrawlScrape),
    ProxiedRoute("GET", "/batch/scrape/{run_id}", "get_batch_scrape", "Get a batch and its pages", FirecrawlStatus),
    ProxiedRoute("DELETE", "/batch/scrape/{run_id}", "cancel_batch_scrape", "Cancel a batch", FirecrawlCancelled),
    ProxiedRoute(
        "GET", "/batch/scrape/{run_id}/errors", "list_batch_scrape_errors", "List the failed pages of a batch",
        FirecrawlErrors,
    ),
    ProxiedRoute("GET", "/crawl/{run_id}", "get_crawl", "Get a crawl and its pages", FirecrawlStatus),
    ProxiedRoute("DELETE", "/crawl/{run_id}", "cancel_crawl", "Cancel a crawl", FirecrawlCancelled),
    ProxiedRoute(
        "GET", "/crawl/{run_id}/errors", "list_crawl_errors", "List the failed pages of a crawl", FirecrawlErrors
    ),
    ProxiedRoute("GET", "/extract/{run_id}", "get_extract", "Get the data of an extraction", FirecrawlExtraction),
)  # fmt: skip

RunId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,255}$")]


async def start(request: Request, caller: ProxyCaller) -> Response:
    """Forwards the request and records the run that it starts; `_webhook_meta` in the answer shows the record."""
    body = await _checked_body(request)
    begun = proxy.RunStart.parse(caller.tenant, STARTS[_route(request).removeprefix("/v2")], body)
    response = await _ask(request, _route(request), body)
    if isinstance(response, Response):
        return response
    return await _buffered(request, response, begun)


async def forward(request: Request, caller: ProxyCaller) -> Response:
    """Forwards the request unchanged."""
    response = await _ask(request, _route(request), await _checked_body(request))
    return response if isinstance(response, Response) else await _forwarded(request, response)


async def list_runs(request: Request, caller: ProxyCaller) -> Response:
    """Forwards the request. The answer has the runs that the tenant started; for an operator all of the account."""
    response = await _ask(request, _route(request), b"")
    if isinstance(response, Response):
        return response
    if caller.may(scopes.OPERATOR):
        return await _forwarded(request, response)
    answer = await _buffered(request, response, None)
    if not response.is_success or answer.status_code != response.status_code:
        return answer
    try:
        body = await proxy.own_runs(caller.tenant, bytes(answer.body))
    except InvalidResponse as error:
        return _failed(request, error)
    return _with_headers(Response(body, response.status_code), response)


async def forward_run(request: Request, caller: ProxyCaller, run_id: RunId) -> Response:
    """Forwards the request unchanged. 404 for a run of another tenant."""
    await _require_run(caller, run_id)
    response = await _ask(request, _route(request).replace("{run_id}", run_id), b"")
    return response if isinstance(response, Response) else await _forwarded(request, response)


async def cancel(request: Request, caller: ProxyCaller, run_id: RunId) -> Response:
    """Forwards the request, and marks the record of the run as cancelled if Firecrawl cancelled it. 404 for a run of
    another tenant."""
    await _require_run(caller, run_id)
    response = await _ask(request, _route(request).replace("{run_id}", run_id), b"")
    if isinstance(response, Response):
        return response
    answer = await _buffered(request, response, None)
    if response.is_success:
        await proxy.record_cancel(caller.tenant, run_id, bytes(answer.body))
    return answer


async def _require_run(caller: Identity, run_id: str) -> None:
    await proxy.require_run(caller.tenant, run_id, is_operator=caller.may(scopes.OPERATOR))


async def _checked_body(request: Request) -> bytes:
    """Return the body. Raises InvalidInput, Unsupported for one that must not reach Firecrawl."""
    if request.method != "POST":
        return b""
    body, headers = await request.body(), request.headers
    types, encodings = headers.getlist("content-type"), headers.getlist("content-encoding")
    await asyncio.to_thread(check_body, body, types, encodings)
    return body


def _endpoint(route: ProxiedRoute) -> Any:
    if route.path in STARTS:
        return start
    if route.path in LISTS:
        return list_runs
    if "{run_id}" not in route.path:
        return forward
    return cancel if route.method == "DELETE" else forward_run


def _add(route: ProxiedRoute) -> None:
    body = {"application/json": {"schema": {"type": "object"}, "example": route.example}}
    router.add_api_route(
        route.path,
        _endpoint(route),
        methods=[route.method],
        summary=f"{route.summary} (Firecrawl)",
        responses={200: documented(route.answer, "The answer of Firecrawl, with its status."), **_ERRORS},
        operation_id=f"firecrawl_{route.name}",
        openapi_extra={"requestBody": {"required": True, "content": body}} if route.example else None,
    )


for _proxied in ROUTES:
    _add(_proxied)


def _route(request: Request) -> str:
    path: str = request.scope["route"].path
    return path


async def _ask(request: Request, path: str, body: bytes) -> http.Response | Response:
    """Return the answer of Firecrawl with its body unread, or an error response if Firecrawl gave no answer."""
    query: bytes = request.scope["query_string"]
    target = path + ("?" + quote(query, safe=string.punctuation) if query else "")
    limit_s = get_settings().firecrawl_proxy_timeout_s
    headers = proxy.request_headers((name.lower(), value) for name, value in request.headers.items())
    try:
        async with asyncio.timeout(limit_s):
            answer = await firecrawl.firecrawl().forward(request.method, target, headers, body, limit_s)
    except (OutsideError, TimeoutError) as error:
        return _failed(request, error)
    if answer.status_code == 401:
        log.error("firecrawl_refuses_us", status=401)
    return answer


async def _buffered(request: Request, response: http.Response, begun: proxy.RunStart | None) -> Response:
    """Return the whole answer, and record the run that it started."""
    try:
        async with asyncio.timeout(get_settings().firecrawl_proxy_timeout_s):
            body = await firecrawl.read_body(response)
    except (OutsideError, TimeoutError) as error:
        return _failed(request, error)
    finally:
        await response.aclose()
    if begun is not None and response.is_success:
        body = await proxy.record_run(begun, body)
    return _with_headers(Response(body, response.status_code), response)


async def _forwarded(request: Request, response: http.Response) -> Response:
    """Return a short answer whole, so that a broken one becomes a 502; stream a long one."""
    try:
        length = http.declared_length(response)
        if length is not None and int(length or 0) <= MAX_BUFFERED_BYTES:
            return await _buffered(request, response, None)
        return _with_headers(StreamedAnswer(response), response)
    except ValueError:
        await response.aclose()
        return _failed(request, InvalidResponse("the Content-Length of Firecrawl's answer is not a number"))


def _with_headers(answer: Response, response: http.Response) -> Response:
    headers = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.raw)
    pairs = proxy.response_headers(headers)
    answer.raw_headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    return answer


class StreamedAnswer(StreamingResponse):
    """A streamed answer; it breaks off where Firecrawl's breaks off or is too large."""

    def __init__(self, response: http.Response) -> None:
        super().__init__(self._parts(), status_code=response.status_code)
        self._response = response
        length = response.headers.get("content-length")
        if length is not None and "content-encoding" not in response.headers:
            self.headers["content-length"] = length

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The server closes the connection of an answer without an end.
        try:
            with suppress(_Broken):
                await super().__call__(scope, receive, send)
        finally:
            await self._response.aclose()

    async def _parts(self) -> AsyncIterator[bytes]:
        size, max_bytes = 0, get_settings().firecrawl_max_bytes
        try:
            async for part in self._response.aiter_bytes():
                size += len(part)
                if size > max_bytes:
                    log.warning("firecrawl_answer_cut", size_bytes=size)
                    raise _Broken
                yield part
        except http.HTTPError as error:
            log.warning("firecrawl_answer_broke_off", reason=str(error))
            raise _Broken from error


class _Broken(Exception):
    """The answer broke off."""


def _failed(request: Request, error: OutsideError | TimeoutError) -> Response:
    if isinstance(error, TimeoutError | FirecrawlTimeout):
        return problem(request.scope, 504, TIMEOUT, code="firecrawl_timeout", error=TIMEOUT)
    if isinstance(error, FirecrawlNotConfigured):
        return problem(request.scope, 503, error.message, code=error.code, error=error.message)
    return problem(request.scope, 502, error.message, code=error.code, error=error.message)
