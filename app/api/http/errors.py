"""Errors as HTTP answers: one table and one shape (RFC 9457)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from pydantic_core import PydanticSerializationError
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from app.core.error_status import status_of
from app.core.errors import (
    AppError,
    LimitReached,
    Unauthenticated,
    Unavailable,
)
from app.core.logging import get_logger

log = get_logger(__name__)

# Routes of the old service: their 422 has the list of faults in `detail`.
OLD_ROUTES = (
    "/api/search",
    "/api/stats",
    "/api/index",
    "/api/test-index",
    "/api/webhook/",
    "/api/content/",
    "/api/metrics/",
    "/api/v2/",
    "/v2/",
)
CODES = {
    400: "bad_request",
    401: Unauthenticated.code,
    403: "not_allowed",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_input",
    429: "limit_reached",
    431: "head_too_large",
    500: "internal_error",
    502: "rejected",
    503: "unavailable",
    504: "timeout",
}


class RateLimited(LimitReached):
    """A caller was faster than `limit` requests in `window_s` seconds."""

    def __init__(self, message: str, retry_after_s: float, *, policy: str, limit: int, window_s: int) -> None:
        super().__init__(message, retry_after_s, code="rate_limited")
        self.policy = policy
        self.limit = limit
        self.window_s = window_s


class Problem(Response):
    """An `application/problem+json` answer, in ASCII so that any text of a caller can be sent back."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        return json.dumps(_finite(content), default=str, separators=(",", ":")).encode("ascii")


def request_id_of(scope: Scope) -> str | None:
    request_id: str | None = scope.get("state", {}).get("request_id")
    return request_id


def problem(
    scope: Scope,
    status: int,
    detail: Any,
    *,
    code: str | None = None,
    errors: list[dict[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Problem:
    """Return the answer for an error."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code or CODES.get(status, "error"),
        "request_id": request_id_of(scope),
        "errors": errors or [],
        **more,
    }
    return Problem(body, status_code=status, headers=dict(headers or {}))


def _finite(value: Any) -> Any:
    """Return the value with NaN and infinities, which JSON lacks, as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


async def app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)
    status = status_of(error)
    if status == 500:
        return await unexpected(request, error)
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, LimitReached):
        headers |= _limit_headers(error)
        more["error"] = error.message
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s or 1))
        log.warning("unavailable", code=error.code, reason=error.message)
    detail: Any = error.message
    if status == 422 and _is_old(request.scope) and error.errors:
        detail = error.errors
    return problem(request.scope, status, detail, code=error.code, errors=error.errors, headers=headers, **more)


def _limit_headers(error: LimitReached) -> dict[str, str]:
    """Return RateLimit and RateLimit-Policy of the IETF draft, and Retry-After."""
    seconds = max(1, math.ceil(error.retry_after_s))
    policy, limit, window = error.code, 1, seconds
    if isinstance(error, RateLimited):
        policy, limit, window = error.policy, error.limit, error.window_s
    return {
        "Retry-After": str(seconds),
        "RateLimit": f'"{policy}";r=0;t={seconds}',
        "RateLimit-Policy": f'"{policy}";q={limit};w={window}',
    }


async def http_error(request: Request, error: Exception) -> Response:
    """Translate errors of FastAPI: 404, 405, 400 for an unreadable body; and 413 of the middleware."""
    assert isinstance(error, HTTPException)
    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    return problem(request.scope, error.status_code, error.detail, headers=error.headers)


async def invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    faults = [
        {"field": ".".join(map(str, fault["loc"])), "message": fault["msg"], "type": fault["type"]}
        for fault in error.errors()
    ]
    detail: Any = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults[:5])
    if _is_old(request.scope):
        detail = [{name: fault.get(name) for name in ("type", "loc", "msg", "input")} for fault in error.errors()]
    return problem(request.scope, 422, detail, errors=faults)


async def not_storable(request: Request, error: Exception) -> Response:
    """Refuse text with half a surrogate pair or a NUL: JSON can express it, SQL cannot store it."""
    if isinstance(error, PydanticSerializationError) and "surrogates" not in str(error):
        return await unexpected(request, error)
    log.warning("value_not_storable", path=request.scope["path"], exc_info=error)
    return problem(
        request.scope,
        422,
        "the request has text that cannot be stored (a NUL or half a surrogate pair)",
        code="not_storable",
    )


async def gone(request: Request, error: Exception) -> Response:
    """Answer a caller that closed the connection while sending; the answer is not read."""
    return problem(request.scope, 400, "the connection closed before the body ended")


async def unexpected(request: Request, error: Exception) -> Response:
    """Answer a bug: the log gets the traceback, the caller gets the request id of that log line."""
    log.error("unexpected error", path=request.scope["path"], exc_info=error)
    return problem(request.scope, 500, "Internal server error", error="internal error")


def _is_old(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith(OLD_ROUTES)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    AppError: app_error,
    HTTPException: http_error,
    RequestValidationError: invalid_request,
    WebSocketRequestValidationError: invalid_request,
    ClientDisconnect: gone,
    DataError: not_storable,
    UnicodeEncodeError: not_storable,
    PydanticSerializationError: not_storable,
    Exception: unexpected,
}
