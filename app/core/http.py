"""The only module that imports httpx, so that it can be replaced easily."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from app.core.errors import Rejected
from app.core.network.inflate import ACCEPTED, Inflater
from app.core.telemetry import trace, tracing

HTTPError = httpx.HTTPError
InvalidURL = httpx.InvalidURL
Response = httpx.Response
Client = httpx.Client
AsyncClient = httpx.AsyncClient
Cookies = httpx.Cookies
ConnectError = httpx.ConnectError
TimeoutException = httpx.TimeoutException


def declared_length(response: httpx.Response) -> str | None:
    """Return the Content-Length that the server sent, which is that of the compressed body; None without one."""
    length: str | None = response.extensions.get(_DECLARED_LENGTH)
    return length


def timeout(seconds: float, *, connect: float) -> httpx.Timeout:
    """Return the timeouts of one call: this many seconds in total, fewer to connect."""
    return httpx.Timeout(seconds, connect=connect)


USER_AGENT = "Millrace/0.1"
# Resolves a host and port to the addresses that may be connected to, best first; raises if there are none.
AddressesOf = Callable[[str, int], Awaitable[list[str]]]
MAX_CONNECTIONS = 200
MAX_IDLE_CONNECTIONS = 40
IDLE_S = 15.0
_DECLARED_LENGTH = "millrace_declared_length"
DEFAULT_MAX_ANSWER_BYTES = 64 * 1024 * 1024


def client(
    timeout_s: float = 10.0, *, max_bytes: int | None = DEFAULT_MAX_ANSWER_BYTES, **options: Any
) -> httpx.Client:
    """Return a client for threads: no environment proxies, no redirects by default; calls continue the trace.

    An answer is decompressed piece by piece as it is read; only one compression is accepted. Reading more than
    `max_bytes` of an answer raises HTTPError; None for callers that count themselves or trust the server.
    """
    options.setdefault("transport", _Transport(max_bytes))
    defaults = {"headers": _headers(options), **_traced(options, _trace)}
    return _TracedClient(timeout=timeout_s, trust_env=False, **defaults)


def async_client(
    timeout_s: float | httpx.Timeout = 10.0,
    *,
    max_bytes: int | None = DEFAULT_MAX_ANSWER_BYTES,
    is_raw: bool = False,
    **options: Any,
) -> httpx.AsyncClient:
    """Return a client for the event loop, like client(); with `is_raw` answers stay compressed."""
    options.setdefault("transport", _AsyncTransport(max_bytes, is_raw=is_raw))
    defaults = {"headers": _headers(options), **_traced(options, _trace_async)}
    return _TracedAsyncClient(timeout=timeout_s, trust_env=False, **defaults)


class _TracedClient(httpx.Client):
    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        with _call(request) as result:
            response = super().send(request, **options)
            result.status = response.status_code
        return response


class _TracedAsyncClient(httpx.AsyncClient):
    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        with _call(request) as result:
            response = await super().send(request, **options)
            result.status = response.status_code
        return response


@contextmanager
def _call(request: httpx.Request) -> Iterator[tracing.CallResult]:
    """Surround the request with a span. Its URL is sent without query, which may hold secrets."""
    url = request.url
    shown = str(url.copy_with(query=None, fragment=None, userinfo=b""))
    with tracing.call(request.method, shown, url.host, url.port) as result:
        if result.traceparent is not None:
            request.headers.setdefault("traceparent", result.traceparent)
        yield result


@cache
def _authorities() -> ssl.SSLContext:
    """Return the trusted certificates. Loaded once: it takes 25 ms, which each client would spend again."""
    return httpx.create_ssl_context(trust_env=False)


def _headers(options: dict[str, Any]) -> dict[str, str]:
    return {"user-agent": USER_AGENT, "accept-encoding": ACCEPTED, **options.pop("headers", {})}


def is_temporary(status: int) -> bool:
    """Return True for a status after which a later request may succeed."""
    return status in (408, 425, 429) or status >= 500


def _traced(options: dict[str, Any], hook: Any) -> dict[str, Any]:
    hooks = dict(options.pop("event_hooks", {}))
    return {**options, "event_hooks": {**hooks, "request": [hook, *hooks.get("request", [])]}}


def _trace(request: httpx.Request) -> None:
    traceparent = trace.child()
    if traceparent is not None:
        request.headers.setdefault("traceparent", traceparent)


async def _trace_async(request: httpx.Request) -> None:
    _trace(request)


def pinned(url: str, address: str) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Return how to call a checked address for a URL: the URL to call, its Host header and request extensions."""
    parts = urlsplit(url)
    literal = f"[{address}]" if ":" in address else address
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    there = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
    return there, {"host": parts.netloc.rpartition("@")[2]}, {"sni_hostname": parts.hostname or ""}


def guarded_client(addresses_of: AddressesOf, timeouts: httpx.Timeout, **options: Any) -> httpx.AsyncClient:
    """Return a client for untrusted servers: each connection goes to an address that `addresses_of` has checked.

    Connections are pooled by name, so certificates are checked against the name. Cookies are not stored: they would
    link
    the requests of different tenants.
    """
    cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    transport = _GuardedTransport(addresses_of)
    return async_client(timeouts, transport=transport, cookies=cookies, **options)


class _Transport(httpx.HTTPTransport):
    """Gives the bodies of answers in small pieces, up to a number of bytes."""

    def __init__(self, max_bytes: int | None) -> None:
        super().__init__(verify=_authorities(), trust_env=False)
        self._max_bytes = max_bytes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        try:
            body = _Body(request, response, self._max_bytes, is_raw=False)
        except httpx.DecodingError:
            response.close()
            raise
        return body.response(_BoundedStream(response.stream, body))


class _AsyncTransport(httpx.AsyncHTTPTransport):
    """Like _Transport, for the event loop."""

    def __init__(self, max_bytes: int | None, *, is_raw: bool) -> None:
        super().__init__(verify=_authorities(), trust_env=False)
        self._max_bytes, self._is_raw = max_bytes, is_raw

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        try:
            body = _Body(request, response, self._max_bytes, is_raw=self._is_raw)
        except httpx.DecodingError:
            await response.aclose()
            raise
        return body.response(_AsyncBoundedStream(response.stream, body))


class _Body:
    """Decompresses and counts the body of one answer. Raises DecodingError for an encoding that was not asked for.

    httpx itself would undo any number of compressions, each piece at once: 20 kB can become gigabytes.
    """

    def __init__(
        self, request: httpx.Request, response: httpx.Response, max_bytes: int | None, *, is_raw: bool
    ) -> None:
        self._request, self._answer = request, response
        self._left = max_bytes
        encoding = "" if is_raw else response.headers.get("content-encoding", "")
        self._is_encoded = encoding.strip().lower() not in ("", "identity")
        try:
            self._inflater = Inflater(encoding)
        except Rejected as error:
            raise httpx.DecodingError(error.message, request=request) from error

    def response(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> httpx.Response:
        """Return the answer with this stream; headers of the compressed body are left out."""
        dropped = (b"content-encoding", b"content-length") if self._is_encoded else ()
        headers = [(name, value) for name, value in self._answer.headers.raw if name.lower() not in dropped]
        extensions = self._answer.extensions | {_DECLARED_LENGTH: self._answer.headers.get("content-length")}
        return httpx.Response(self._answer.status_code, headers=headers, stream=stream, extensions=extensions)

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        self._count(len(packed) if self._is_encoded else 0)
        try:
            for piece in self._inflater.pieces(packed):
                self._count(len(piece))
                yield piece
        except Rejected as error:
            raise httpx.DecodingError(error.message, request=self._request) from error

    def _count(self, size: int) -> None:
        if self._left is None:
            return
        self._left -= size
        if self._left < 0:
            raise httpx.DecodingError("the answer is larger than its limit", request=self._request)


class _BoundedStream(httpx.SyncByteStream):
    def __init__(self, stream: Any, body: _Body) -> None:
        self._stream, self._body = stream, body

    def __iter__(self) -> Iterator[bytes]:
        for packed in self._stream:
            yield from self._body.pieces(packed)

    def close(self) -> None:
        self._stream.close()


class _AsyncBoundedStream(httpx.AsyncByteStream):
    def __init__(self, stream: Any, body: _Body) -> None:
        self._stream, self._body = stream, body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for packed in self._stream:
            for piece in self._body.pieces(packed):
                yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class _GuardedBackend(httpcore.AnyIOBackend):
    """Opens connections; no other code resolves names."""

    def __init__(self, addresses_of: AddressesOf) -> None:
        self._addresses_of = addresses_of

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failed: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in await self._addresses_of(host, port):
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = failed or error
        raise failed or httpcore.ConnectError(f"{host} has no address")


class _GuardedTransport(httpx.AsyncBaseTransport):
    """httpx's own transport does not accept a backend; this one repeats its few lines around a pool with ours."""

    def __init__(self, addresses_of: AddressesOf) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_authorities(),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_S,
            network_backend=_GuardedBackend(addresses_of),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        asked = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _in_words_of_httpx():
            answer = await self._pool.handle_async_request(asked)
        stream = _Stream(answer)
        return httpx.Response(answer.status, headers=answer.headers, stream=stream, extensions=answer.extensions)

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _in_words_of_httpx():
            async for part in self._answer.aiter_stream():
                yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


@contextmanager
def _in_words_of_httpx() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException(str(error)) from error
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise httpx.ProtocolError(str(error)) from error
    except (httpcore.NetworkError, httpcore.ConnectionNotAvailable) as error:
        raise httpx.NetworkError(str(error)) from error
