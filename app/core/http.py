"""The one module that knows httpx, so that a successor can replace it in an hour."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx

from app.core import trace

HTTPError = httpx.HTTPError
InvalidURL = httpx.InvalidURL
Response = httpx.Response
Client = httpx.Client
AsyncClient = httpx.AsyncClient
ConnectError = httpx.ConnectError
TimeoutException = httpx.TimeoutException


def timeout(seconds: float, *, connect: float) -> httpx.Timeout:
    """Of one call: so long for everything, but less for being let in."""
    return httpx.Timeout(seconds, connect=connect)


USER_AGENT = "Millrace/0.1"


def client(timeout_s: float = 10.0, **options: Any) -> httpx.Client:
    """A client for threads; no environment proxies, redirects only where asked for; calls go on with the trace."""
    return httpx.Client(timeout=timeout_s, trust_env=False, headers=_headers(options), **_traced(options, _trace))


def async_client(timeout_s: float = 10.0, **options: Any) -> httpx.AsyncClient:
    """The same for the loop."""
    headers = _headers(options)
    return httpx.AsyncClient(timeout=timeout_s, trust_env=False, headers=headers, **_traced(options, _trace_async))


def _headers(options: dict[str, Any]) -> dict[str, str]:
    return {"user-agent": USER_AGENT, **options.pop("headers", {})}


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
    """How to ask an address that was checked for a URL: the URL to call, its Host header and request extensions."""
    parts = urlsplit(url)
    literal = f"[{address}]" if ":" in address else address
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    there = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
    return there, {"host": parts.netloc.rpartition("@")[2]}, {"sni_hostname": parts.hostname or ""}
