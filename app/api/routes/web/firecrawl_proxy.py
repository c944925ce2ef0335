"""Firecrawl's own API under /v2, passed on with our key: a client of it needs no change, and its crawls are known."""

from __future__ import annotations

import asyncio
import string
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.http.auth import PassingCaller
from app.api.http.errors import problem
from app.clients import firecrawl
from app.clients.firecrawl_errors import FirecrawlTimeout, InvalidResponse
from app.core import http
from app.core.errors import OutsideError
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.sources.scraping import proxy

log = get_logger(__name__)

router = APIRouter(prefix="/v2", tags=["firecrawl"])

# What is longer is passed on while it comes.
HELD_BYTES = 1024 * 1024
TIMEOUT = "Firecrawl API timeout"
# These begin a run, by the name under which it is recorded.
STARTS = {
    "/scrape": "scrape",
    "/batch/scrape": "scrape_batch",
    "/crawl": "crawl",
    "/map": "map",
    "/search": "search",
    "/extract": "extract",
}
PLAIN = {
    "POST": ["/crawl/params-preview", "/x402/search"],
    "GET": [
        "/crawl/ongoing",
        "/crawl/active",
        "/team/credit-usage",
        "/team/credit-usage/historical",
        "/team/token-usage",
        "/team/token-usage/historical",
        "/team/queue-status",
        "/concurrency-check",
    ],
}
OF_A_RUN = {
    "GET": [
        "/scrape/{run_id}",
        "/batch/scrape/{run_id}",
        "/batch/scrape/{run_id}/errors",
        "/crawl/{run_id}",
        "/crawl/{run_id}/errors",
        "/extract/{run_id}",
    ],
    "DELETE": ["/batch/scrape/{run_id}", "/crawl/{run_id}"],
}
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "What Firecrawl answers, with its own status."},
    502: {"description": "Firecrawl cannot be reached, or its answer cannot be used."},
    504: {"description": "Firecrawl takes too long."},
}

RunId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,255}$")]


async def start(request: Request, caller: PassingCaller) -> Response:
    """Passed on; a run that it begins is recorded, and `_webhook_meta` in the answer says so."""
    body = await request.body()
    begun = proxy.RunStart.of(caller.tenant, STARTS[_route(request).removeprefix("/v2")], body)
    response = await _ask(request, _route(request), body)
    if isinstance(response, Response):
        return response
    return await _held(request, response, begun)


async def plain(request: Request, caller: PassingCaller) -> Response:
    """Passed on as it is."""
    response = await _ask(request, _route(request), await request.body())
    return response if isinstance(response, Response) else await _passed(request, response)


async def of_a_run(request: Request, caller: PassingCaller, run_id: RunId) -> Response:
    """Passed on as it is."""
    response = await _ask(request, _route(request).replace("{run_id}", run_id), b"")
    return response if isinstance(response, Response) else await _passed(request, response)


async def cancel(request: Request, caller: PassingCaller, run_id: RunId) -> Response:
    """Passed on; where Firecrawl has cancelled the run, its record says so."""
    response = await _ask(request, _route(request).replace("{run_id}", run_id), b"")
    if isinstance(response, Response):
        return response
    answer = await _held(request, response, None)
    if response.is_success:
        await proxy.record_cancel(caller.tenant, run_id, bytes(answer.body))
    return answer


def _add(path: str, method: str, endpoint: Any, **more: Any) -> None:
    words = f"{path.strip('/').replace('/', ' ')} (Firecrawl)"
    words_of_path = [word.strip("{}").replace("-", "_") for word in path.split("/") if word]
    name = "_".join(["firecrawl", method.lower(), *words_of_path])
    router.add_api_route(path, endpoint, methods=[method], summary=words, responses=_ANSWERS, operation_id=name, **more)


for _path in STARTS:
    _add(_path, "POST", start, openapi_extra=_BODY)
for _method, _paths in PLAIN.items():
    for _path in _paths:
        _add(_path, _method, plain, openapi_extra=_BODY if _method == "POST" else None)
for _method, _paths in OF_A_RUN.items():
    for _path in _paths:
        _add(_path, _method, cancel if _method == "DELETE" else of_a_run)


def _route(request: Request) -> str:
    path: str = request.scope["route"].path
    return path


async def _ask(request: Request, path: str, body: bytes) -> http.Response | Response:
    """Firecrawl's answer, its body unread, or our own where there is none."""
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


async def _held(request: Request, response: http.Response, begun: proxy.RunStart | None) -> Response:
    """The whole answer, of which a run that it tells of is recorded."""
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


async def _passed(request: Request, response: http.Response) -> Response:
    """The answer: short ones whole, so that one that breaks off is still our 502, long ones as they come."""
    try:
        if int(response.headers.get("content-length") or 0) <= HELD_BYTES and "content-length" in response.headers:
            return await _held(request, response, None)
        return _with_headers(Streamed(response), response)
    except ValueError:
        await response.aclose()
        return _failed(request, InvalidResponse("Firecrawl's answer has a length that is none"))


def _with_headers(answer: Response, response: http.Response) -> Response:
    given = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.raw)
    pairs = proxy.response_headers(given)
    answer.raw_headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    return answer


class Streamed(StreamingResponse):
    """An answer passed on as it comes; what breaks off or is too large breaks off here too."""

    def __init__(self, response: http.Response) -> None:
        super().__init__(self._parts(), status_code=response.status_code)
        self._response = response
        length = response.headers.get("content-length")
        if length is not None and "content-encoding" not in response.headers:
            self.headers["content-length"] = length

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # An answer that is not ended is how the server knows to cut the connection.
        try:
            with suppress(_Broken):
                await super().__call__(scope, receive, send)
        finally:
            await self._response.aclose()

    async def _parts(self) -> AsyncIterator[bytes]:
        size, largest = 0, get_settings().firecrawl_max_bytes
        try:
            async for part in self._response.aiter_bytes():
                size += len(part)
                if size > largest:
                    log.warning("firecrawl_answer_cut", size_bytes=size)
                    raise _Broken
                yield part
        except http.HTTPError as error:
            log.warning("firecrawl_answer_broke_off", reason=str(error))
            raise _Broken from error


class _Broken(Exception):
    """The rest does not come."""


def _failed(request: Request, error: OutsideError | TimeoutError) -> Response:
    if isinstance(error, TimeoutError | FirecrawlTimeout):
        return problem(request.scope, 504, TIMEOUT, code="firecrawl_timeout", error=TIMEOUT)
    if error.code == "firecrawl_not_configured":
        return problem(request.scope, 503, error.message, code=error.code, error=error.message)
    return problem(request.scope, 502, error.message, code=error.code, error=error.message)
