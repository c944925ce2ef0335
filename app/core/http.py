"""The one module that knows httpx, so that a successor can replace it in an hour."""

from __future__ import annotations

from typing import Any

import httpx

HTTPError = httpx.HTTPError
InvalidURL = httpx.InvalidURL
Response = httpx.Response
Client = httpx.Client
AsyncClient = httpx.AsyncClient
ConnectError = httpx.ConnectError
TimeoutException = httpx.TimeoutException
USER_AGENT = "Millrace/0.1"


def client(timeout_s: float = 10.0, **options: Any) -> httpx.Client:
    """A client for threads; no environment proxies, redirects only where asked for."""
    return httpx.Client(timeout=timeout_s, trust_env=False, headers=_headers(options), **options)


def async_client(timeout_s: float = 10.0, **options: Any) -> httpx.AsyncClient:
    """The same for the loop."""
    return httpx.AsyncClient(timeout=timeout_s, trust_env=False, headers=_headers(options), **options)


def _headers(options: dict[str, Any]) -> dict[str, str]:
    return {"user-agent": USER_AGENT, **options.pop("headers", {})}
