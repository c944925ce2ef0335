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

from app.core import trace

HTTPError = httpx.HTTPError
InvalidURL = httpx.InvalidURL
Response = httpx.Response
Client = httpx.Client
AsyncClient = httpx.AsyncClient
Cookies = httpx.Cookies
ConnectError = httpx.ConnectError
TimeoutException = httpx.TimeoutException


def timeout(seconds: float, *, connect: float) -> httpx.Timeout:
    """Return the timeouts of one call: this many seconds in total, fewer to connect."""
    return httpx.Timeout(seconds, connect=connect)


USER_AGENT = "Millrace/0.1"
# httpx would also offer br and zstd, whose decoders it finds installed; only the fetcher bounds what they unpack to.
ACCEPT_ENCODING = "gzip, deflate"
# Resolves a host and port to the addresses that may be connected to, best first; raises if there are none.
AddressesOf = Callable[[str, int], Awaitable[list[str]]]
MAX_CONNECTIONS = 200
MAX_IDLE_CONNECTIONS = 40
IDLE_S = 15.0


def client(timeout_s: float = 10.0, **options: Any) -> httpx.Client:
    """Return a client for threads: no environment proxies, no redirects by default; calls continue the trace."""
    defaults = {"headers": _headers(options), "verify": _authorities(), **_traced(options, _trace)}
    return httpx.Client(timeout=timeout_s, trust_env=False, **defaults)


def async_client(timeout_s: float | httpx.Timeout = 10.0, **options: Any) -> httpx.AsyncClient:
    """Return a client for the event loop, like client()."""
    defaults = {"headers": _headers(options), "verify": _authorities(), **_traced(options, _trace_async)}
    return httpx.AsyncClient(timeout=timeout_s, trust_env=False, **defaults)


@cache
def _authorities() -> ssl.SSLContext:
    """Return the trusted certificates. Loaded once: it takes 25 ms, which each client would spend again."""
    return httpx.create_ssl_context(trust_env=False)


def _headers(options: dict[str, Any]) -> dict[str, str]:
    return {"user-agent": USER_AGENT, "accept-encoding": ACCEPT_ENCODING, **options.pop("headers", {})}


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
