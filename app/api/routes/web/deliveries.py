"""Webhooks in: an event is stored, answered and never lost; what came can be listed and done again."""

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
from app.api.http.paging import Page, Paging
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput, NotAllowed
from app.jobs.schedules.store import DEFAULT_TENANT
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
# A page with its HTML; what is larger is no event.
LARGEST_BODY_BYTES = 64 * 1024 * 1024
HINT = "See the body of the event in Firecrawl's documentation of webhooks; `errors` names what is wrong."
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Acknowledged: there was nothing to index."},
    202: {"description": "A job for each page; `failed_documents` names those that are none."},
    400: {"description": "The signature is not of its shape."},
    401: {"description": "The signature is missing or wrong."},
}


@router.post(
    "/webhook/firecrawl", summary="Take an event of Firecrawl", status_code=202, openapi_extra=_BODY, responses=_ANSWERS
)
async def firecrawl(request: Request) -> Response:
    """Signed by `X-Firecrawl-Signature: sha256=…` over the raw body. Stored, with a job for each page, before the
    answer; the same event again is answered as the first time."""
    body = await request.body()
    try:
        await _apart(body, firecrawl_intake.verify, request.headers.get("x-firecrawl-signature"))
    except MalformedSignature as error:
        return problem(request.scope, 400, error.message, code=error.code)
    except NotAllowed as error:
        return problem(request.scope, 401, error.message, code=error.code)
    try:
        return await _taken(request, body, FROM_FIRECRAWL)
    except InvalidInput as error:
        if error.code != "webhook_payload":
            raise
        detail = {"error": error.message, "validation_errors": error.errors, "hint": HINT}
        return problem(request.scope, 422, detail, code=error.code, errors=error.errors)


_CHANGE: dict[str, Any] = {
    "summary": "Take a notification of changedetection.io",
    "status_code": 202,
    "openapi_extra": {"requestBody": {"required": True, "content": {"*/*": {"schema": {"type": "string"}}}}},
    "responses": {
        200: {"description": "Acknowledged: nobody wants to hear of that page any more."},
        202: {"description": "A job that reads the page again."},
        400: {"description": "It does not say which page has changed."},
        401: {"description": "The token or the signature is missing or wrong."},
    },
}


@router.post("/webhook/changedetection", **_CHANGE)
async def changedetection(request: Request) -> Response:
    """With `Authorization: Bearer` and the token that `millrace watch template` shows, or signed by `X-Signature`.
    Stored, with the change and the job that reads the page again, before the answer."""
    return await _changed(request, None)


@router.post("/webhook/changedetection/{token}", **_CHANGE)
async def changedetection_by_path(request: Request, token: str) -> Response:
    """The same with the token in the path, for senders that set no header."""
    return await _changed(request, token)


async def _changed(request: Request, token: str | None) -> Response:
    body = await request.body()
    said = {"signature": request.headers.get("x-signature"), "authorization": request.headers.get("authorization")}
    try:
        await _apart(body, change_intake.verify, path_token=token, **said)
    except NotAllowed as error:
        return problem(request.scope, 401, error.message, code=error.code)
    try:
        return await _taken(request, body, FROM_CHANGEDETECTION)
    except InvalidInput as error:
        return problem(request.scope, 400, error.message, code=error.code)


async def _apart(body: bytes, verify: Callable[..., None], *args: str | None, **kwargs: str | None) -> None:
    """Verify the body; a large one, which anybody may send, off the loop: 64 MiB take a quarter of a second."""
    if len(body) <= deliveries.MAX_ROW_BYTES:
        verify(body, *args, **kwargs)
    else:
        await asyncio.to_thread(verify, body, *args, **kwargs)


async def _taken(request: Request, body: bytes, sender: WebhookHandler) -> Response:
    given = await deliveries.receive(DEFAULT_TENANT, sender, body, request.state.request_id)
    answered = await in_transaction(deliveries.store, given)
    return JSONResponse(answered.body, status_code=answered.status)


Source = Annotated[Literal["firecrawl", "changedetection"] | None, Query(description="Only of this sender.")]
DeliveryId = Annotated[int, Path(gt=0, le=2**62)]
Outcome = Annotated[Literal["accepted", "acknowledged"] | None, Query(description="Only with this outcome.")]


@router.get("/deliveries/in", summary="What senders delivered, the newest first")
async def list_deliveries(
    caller: Reader, paging: Paging, source: Source = None, outcome: Outcome = None
) -> dict[str, Any]:
    return await read(_page, caller, paging, source, outcome)


@router.get("/deliveries/in/{delivery_id}", summary="One delivery, with its body where that is short")
async def show_delivery(caller: Reader, delivery_id: DeliveryId) -> dict[str, Any]:
    row = await read(deliveries.get, caller.tenant, delivery_id)
    return deliveries.describe(row) | {"body": row.body}


@router.post("/deliveries/in/{delivery_id}/replay", summary="Do once more what a delivery asks for")
async def replay(caller: Admin, delivery_id: DeliveryId) -> dict[str, Any]:
    """What is already indexed and has not changed is left as it is."""
    row = await read(deliveries.get, caller.tenant, delivery_id)
    sender = HANDLERS[row.source]
    told = await asyncio.to_thread(sender.read, await deliveries.read_body(row))
    return await in_transaction(_replay, caller, row.id, sender, told)


def _replay(
    session: Session, caller: Identity, delivery_id: int, sender: WebhookHandler, told: Payload
) -> dict[str, Any]:
    answered = deliveries.replay(session, caller.tenant, delivery_id, told, sender, caller.request_id)
    note(session, caller, "deliveries.replay", str(delivery_id), tenant=caller.tenant)
    return {"status": answered.status, "answer": answered.body}


def _page(session: Session, caller: Identity, paging: Page, source: str | None, outcome: str | None) -> dict[str, Any]:
    rows = deliveries.list_deliveries(
        session, caller.tenant, source=source, outcome=outcome, before_id=paging.after_number(), limit=paging.limit + 1
    )
    return paging.cut(rows, deliveries.describe, lambda row: [row.id])
