"""Routes that receive webhooks, and list and replay the stored deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.api.http.audit import note
from app.api.http.auth import Admin, Identity, Reader
from app.api.http.errors import problem
from app.api.http.middleware import VERIFIED
from app.api.http.paging import ListQuery, Paging
from app.api.models.base import documented
from app.api.models.web import ChangeReceipt, DeliveryDetail, DeliveryPage, DeliveryReplay, EventReceipt
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput, NotAllowed
from app.jobs.schedules.store import DEFAULT_TENANT
from app.sources.payloads.errors import InvalidPayload
from app.sources.webhooks import changedetection as change_intake
from app.sources.webhooks import deliveries
from app.sources.webhooks import firecrawl as firecrawl_intake
from app.sources.webhooks.deliveries import Payload, WebhookHandler
from app.sources.webhooks.firecrawl import MalformedSignature
from app.sources.webhooks.handlers import CHANGEDETECTION as FROM_CHANGEDETECTION
from app.sources.webhooks.handlers import FIRECRAWL as FROM_FIRECRAWL
from app.sources.webhooks.handlers import HANDLERS

router = APIRouter(prefix="/api", tags=["intake"])

FIRECRAWL = "/api/webhook/firecrawl"
CHANGEDETECTION = "/api/webhook/changedetection"
# Large enough for a page with its HTML.
MAX_EVENT_BYTES = 64 * 1024 * 1024
HINT = "See the body of the event in Firecrawl's documentation of webhooks; `errors` names what is wrong."
_EVENT = {
    "success": True,
    "type": "crawl.page",
    "id": "550e8400-e29b-41d4-a716-446655440000",
    "data": [
        {"markdown": "# Keys", "metadata": {"url": "https://docs.example.org/keys", "title": "Keys", "statusCode": 200}}
    ],
    "metadata": {},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": _EVENT}},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: documented(EventReceipt, "Acknowledged: the event has no page to index."),
    202: documented(EventReceipt, "A job for each page; `failed_documents` lists pages that cannot be indexed."),
    400: {"description": "The signature is malformed."},
    401: {"description": "The signature is missing or wrong."},
}


@router.post(
    "/webhook/firecrawl",
    summary="Receive an event from Firecrawl",
    status_code=202,
    openapi_extra=_BODY,
    responses=_ANSWERS,
)
async def receive_firecrawl_event(request: Request) -> Response:
    """Needs `X-Firecrawl-Signature: sha256=…` over the raw body. The event and a job for each page are stored before
    the answer. A repeated event gets the first answer."""
    signature = request.headers.get("x-firecrawl-signature")
    try:
        firecrawl_intake.check_header(signature)  # before the body is read, which may be large
        body = await request.body()
        await _verify(request, body, firecrawl_intake.verify, signature)
    except MalformedSignature as error:
        return problem(request.scope, 400, error.message, code=error.code)
    except NotAllowed as error:
        return problem(request.scope, 401, error.message, code=error.code)
    try:
        return await _store(request, body, FROM_FIRECRAWL)
    except InvalidPayload as error:
        detail = {"error": error.message, "validation_errors": error.errors, "hint": HINT}
        return problem(request.scope, 422, detail, code=error.code, errors=error.errors)


_NOTIFICATION = {
    "watch_id": "cc0cfffa-f449-477b-83ea-0caafd1dc091",
    "watch_url": "https://example.org/prices",
    "detected_at": "2026-01-31T12:00:00Z",
}
_CHANGE: dict[str, Any] = {
    "summary": "Receive a notification from changedetection.io",
    "status_code": 202,
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object"}, "example": _NOTIFICATION},
            },
        }
    },
    "responses": {
        200: documented(ChangeReceipt, "Acknowledged: a test, or the page is no longer watched."),
        202: documented(ChangeReceipt, "The job that reads the page again."),
        400: {"description": "The notification does not name the changed page."},
        401: {"description": "The token or the signature is missing or wrong."},
    },
}


@router.post("/webhook/changedetection", **_CHANGE)
async def receive_change(request: Request) -> Response:
    """Needs `Authorization: Bearer` with the token from `millrace watch template`, or `X-Signature`. The change and the
    job that reads the page again are stored before the answer."""
    return await _receive_change(request, None)


@router.post("/webhook/changedetection/{token}", **_CHANGE)
async def receive_change_with_token(request: Request, token: str) -> Response:
    """Takes the token in the path, for senders that cannot set headers."""
    return await _receive_change(request, token)


async def _receive_change(request: Request, token: str | None) -> Response:
    proofs = {"signature": request.headers.get("x-signature"), "authorization": request.headers.get("authorization")}
    try:
        if proofs["signature"] is None:  # a token needs no body
            change_intake.verify(b"", path_token=token, **proofs)
        body = await request.body()
        await _verify(request, body, change_intake.verify, path_token=token, **proofs)
    except NotAllowed as error:
        return problem(request.scope, 401, error.message, code=error.code)
    try:
        return await _store(request, body, FROM_CHANGEDETECTION)
    except InvalidInput as error:
        return problem(request.scope, 400, error.message, code=error.code)


async def _verify(
    request: Request, body: bytes, verify: Callable[..., None], *args: str | None, **kwargs: str | None
) -> None:
    """Verify the body, a large one in a thread: 64 MiB take a quarter of a second, before any authentication."""
    if len(body) <= deliveries.MAX_ROW_BYTES:
        verify(body, *args, **kwargs)
    else:
        await asyncio.to_thread(verify, body, *args, **kwargs)
    request.scope["state"][VERIFIED] = True


async def _store(request: Request, body: bytes, handler: WebhookHandler) -> Response:
    delivery = await deliveries.receive(DEFAULT_TENANT, handler, body, request.state.request_id)
    answer = await in_transaction(deliveries.store, delivery)
    return JSONResponse(answer.body, status_code=answer.status)


Source = Annotated[Literal["firecrawl", "changedetection"] | None, Query(description="Only from this sender.")]
DeliveryId = Annotated[int, Path(gt=0, le=2**62)]
Outcome = Annotated[Literal["accepted", "acknowledged"] | None, Query(description="Only with this outcome.")]


@router.get(
    "/deliveries/in", summary="List received webhooks, the newest first", responses={200: documented(DeliveryPage)}
)
async def list_deliveries(
    caller: Reader, paging: Paging, source: Source = None, outcome: Outcome = None
) -> dict[str, Any]:
    return await read(_page, caller, paging, source, outcome)


@router.get(
    "/deliveries/in/{delivery_id}",
    summary="Get a received webhook, with its body if that is short",
    responses={200: documented(DeliveryDetail)},
)
async def get_delivery(caller: Reader, delivery_id: DeliveryId) -> dict[str, Any]:
    row = await read(deliveries.get, caller.tenant, delivery_id)
    return deliveries.describe(row) | {"body": row.body}


@router.post(
    "/deliveries/in/{delivery_id}/replay",
    summary="Process a received webhook again",
    responses={200: documented(DeliveryReplay)},
)
async def replay_delivery(caller: Admin, delivery_id: DeliveryId) -> dict[str, Any]:
    """Pages that are indexed and unchanged stay as they are."""
    row = await read(deliveries.get, caller.tenant, delivery_id)
    handler = HANDLERS[row.source]
    payload = await asyncio.to_thread(handler.read, await deliveries.read_body(row))
    return await in_transaction(_replay, caller, row.id, handler, payload)


def _replay(
    session: Session, caller: Identity, delivery_id: int, handler: WebhookHandler, payload: Payload
) -> dict[str, Any]:
    answer = deliveries.replay(session, caller.tenant, delivery_id, payload, handler, caller.request_id)
    note(session, caller, "deliveries.replay", str(delivery_id), tenant=caller.tenant)
    return {"status": answer.status, "answer": answer.body}


def _page(
    session: Session, caller: Identity, paging: ListQuery, source: str | None, outcome: str | None
) -> dict[str, Any]:
    rows = deliveries.list_deliveries(
        session, caller.tenant, source=source, outcome=outcome, before_id=paging.after_number(), limit=paging.limit + 1
    )
    return paging.cut(rows, deliveries.describe, lambda row: [row.id])
