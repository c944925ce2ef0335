"""Routes of the dashboard: forms are checked for their origin, and errors become pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.core.error_status import status_of
from app.core.errors import AppError, LimitReached, Unavailable
from app.core.logging import get_logger
from app.dashboard.frame import page
from app.dashboard.security import HEADERS, check_same_origin
from app.dashboard.visitor import SignInNeeded, Visitor, request_id_of, visitor_of

log = get_logger(__name__)


class DashboardRoute(APIRoute):
    """A route whose errors are pages with the same status as the API's answers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                check_same_origin(request)
                return await handle(request)
            except SignInNeeded as error:
                return _sign_in(request, error)
            except AppError as error:
                return await _error_page(request, status_of(error), error.message, error)
            except HTTPException as error:
                return await _error_page(request, error.status_code, str(error.detail))
            except RequestValidationError as error:
                faults = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors()[:5])
                return await _error_page(request, 422, faults)
            except Exception as error:  # whatever fails, a browser gets a page with the id of this log line
                log.error("unexpected error", path=request.url.path, exc_info=error)
                return await _error_page(request, 500, "This page has a fault; the log has it under the request below.")

        return handler


def router() -> APIRouter:
    """Return a router for pages below /ui."""
    return APIRouter(prefix="/ui", include_in_schema=False, route_class=DashboardRoute)


def see_other(path: str, message: str = "") -> RedirectResponse:
    """Return a redirect after a form was handled; the next page shows the message."""
    joint = "&" if "?" in path else "?"
    target = f"{path}{joint}message={quote(message)}" if message else path
    return RedirectResponse(target, status_code=303, headers=HEADERS)


def _sign_in(request: Request, error: SignInNeeded) -> Response:
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = f"?next={quote(target)}" if request.method == "GET" and target != "/ui/" else ""
    return RedirectResponse(f"/ui/sign-in{back}", status_code=303, headers=HEADERS)


async def _error_page(request: Request, status: int, detail: str, error: AppError | None = None) -> Response:
    if status >= 500:
        log.warning("page_failed", path=request.url.path, status=status, reason=detail)
    headers = {}
    if isinstance(error, LimitReached | Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or 1)))
    return page(
        request,
        "error.html",
        visitor=await _known_visitor(request),
        status=status,
        headers=headers,
        title=HTTPStatus(status).phrase,
        status_code=status,
        detail=detail,
        request_id=request_id_of(request),
    )


async def _known_visitor(request: Request) -> Visitor | None:
    """Return the visitor for the frame of an error page, None if it cannot be determined now."""
    try:
        return await visitor_of(request)
    except AppError:
        return None
