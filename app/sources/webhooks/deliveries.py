"""Store a delivery as one row and enqueue its work, once and in one transaction.

The response needs neither Redis nor another service. A repeated delivery gets the first response.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.blobs import blobs
from app.core.clock import moment
from app.core.errors import NotFound
from app.core.inserts import add_unless_there
from app.sources.models import Delivery

# A longer body is stored as a blob.
MAX_ROW_BYTES = 64 * 1024
DELIVERY = cast(sa.Table, Delivery.__table__)
_ANSWER = sa.update(DELIVERY).where(DELIVERY.c.id == sa.bindparam("delivery"))


@dataclass(frozen=True, slots=True)
class DeliveryResponse:
    """Response to a delivery.

    `jobs` is the number of jobs enqueued. `failures` has {url, error} of each page that was refused or had failed.
    """

    status: int
    body: dict[str, Any]
    jobs: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


class Payload(Protocol):
    """A parsed delivery."""

    @property
    def type(self) -> str: ...

    @property
    def run_id(self) -> str | None:
        """Id of the crawl or other run that the delivery belongs to."""

    @property
    def key(self) -> str | None:
        """The sender's key of the delivery, equal for repeats; None if only equal bytes are a repeat."""


@dataclass(frozen=True, slots=True)
class ReceivedDelivery:
    """A delivery whose bytes are read and, if long, stored as a blob."""

    tenant: str
    handler: WebhookHandler
    body: bytes
    payload: Payload
    blob_key: str | None
    request_id: str | None = None


class WebhookHandler(Protocol):
    """Parses and processes the deliveries of one webhook source."""

    name: str

    def read(self, body: bytes) -> Payload:
        """Parse the body. Raises InvalidInput for an invalid one."""

    def apply(
        self, session: Session, tenant: str, payload: Any, delivery_id: int, request_id: str | None
    ) -> DeliveryResponse:
        """Do the work of a delivery; called once for each delivery, and again for each replay."""


async def receive(tenant: str, handler: WebhookHandler, body: bytes, request_id: str | None) -> ReceivedDelivery:
    """Parse a delivery; write a long or binary body to the blob store, first the row that names it.

    Parses first any transaction, because on SQLite a transaction blocks all other writers. A long body is parsed in a
    thread. An invalid event raises InvalidInput and stores nothing.
    """
    is_long = len(body) > MAX_ROW_BYTES
    payload = await asyncio.to_thread(handler.read, body) if is_long else handler.read(body)
    key = None if not is_long and _is_text(body) else (await blobs().put(body)).key
    return ReceivedDelivery(tenant, handler, body, payload, key, request_id)


def _is_text(body: bytes) -> bool:
    try:
        return "\0" not in body.decode()
    except UnicodeDecodeError:
        return False


def store(session: Session, delivery: ReceivedDelivery) -> DeliveryResponse:
    """Store the delivery, do its work and return the response; return the first response for a repeat."""
    values = _row(delivery)
    delivery_id = add_unless_there(session, Delivery, values)
    if delivery_id is None:
        same = (Delivery.tenant == delivery.tenant, Delivery.source == delivery.handler.name)
        query = sa.select(Delivery).where(*same, Delivery.digest == values["digest"])
        first = session.scalars(query.with_for_update()).one()
        first.repeats += 1
        return DeliveryResponse(first.answer["status"], first.answer["body"])
    response = delivery.handler.apply(session, delivery.tenant, delivery.payload, delivery_id, delivery.request_id)
    session.connection().execute(_ANSWER, {"delivery": delivery_id, **_outcome(response)})
    return response


async def read_body(delivery: Delivery) -> bytes:
    """Return the original bytes. Raises NotFound if they were swept."""
    if delivery.blob_key is None:
        return (delivery.body or "").encode()
    return b"".join([part async for part in blobs().stream(delivery.blob_key)])


def replay(
    session: Session, tenant: str, delivery_id: int, payload: Payload, handler: WebhookHandler, request_id: str | None
) -> DeliveryResponse:
    """Do the work of a stored delivery again, as if it had just arrived; `payload` is its body, parsed again."""
    row = get(session, tenant, delivery_id, lock=True)
    row.replayed_at = clock.now()
    response = handler.apply(session, tenant, payload, row.id, request_id)
    for name, value in _outcome(response).items():
        setattr(row, name, value)
    return response


def get(session: Session, tenant: str, delivery_id: int, *, lock: bool = False) -> Delivery:
    """Return the tenant's delivery. Raises NotFound."""
    query = sa.select(Delivery).where(Delivery.tenant == tenant, Delivery.id == delivery_id)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound("Delivery not found", code="delivery_not_found")
    return row


def list_deliveries(
    session: Session, tenant: str, *, source: str | None, outcome: str | None, before_id: int | None, limit: int
) -> list[Delivery]:
    """Return the tenant's deliveries, newest first."""
    query = sa.select(Delivery).where(Delivery.tenant == tenant)
    for column, value in ((Delivery.source, source), (Delivery.outcome, outcome)):
        query = query if value is None else query.where(column == value)
    if before_id is not None:
        query = query.where(Delivery.id < before_id)
    return list(session.scalars(query.order_by(Delivery.id.desc()).limit(limit)))


def describe(row: Delivery) -> dict[str, Any]:
    """Return the delivery as JSON, without its body."""
    return {
        "id": str(row.id),
        "source": row.source,
        "event_type": row.event_type,
        "crawl_id": row.crawl_id,
        "outcome": row.outcome,
        "answer": row.answer,
        "jobs": row.jobs,
        "failures": row.failures or [],
        "repeats": row.repeats,
        "size_bytes": row.size_bytes,
        "request_id": row.request_id,
        "received_at": moment(row.received_at),
        "replayed_at": moment(row.replayed_at) if row.replayed_at else None,
    }


def _row(delivery: ReceivedDelivery) -> dict[str, Any]:
    key = delivery.payload.key
    return {
        "tenant": delivery.tenant,
        "source": delivery.handler.name,
        "event_type": delivery.payload.type,
        "digest": hashlib.sha256(key.encode() if key else delivery.body).hexdigest(),
        "body": None if delivery.blob_key else delivery.body.decode(),
        "blob_key": delivery.blob_key,
        "size_bytes": len(delivery.body),
        "crawl_id": delivery.payload.run_id,
        "outcome": "acknowledged",
        "answer": {},
        "jobs": 0,
        "request_id": delivery.request_id,
        "received_at": clock.now(),
    }


def _outcome(response: DeliveryResponse) -> dict[str, Any]:
    """Return the columns of the delivery's row that record the response."""
    return {
        "answer": {"status": response.status, "body": response.body},
        "jobs": response.jobs,
        "failures": response.failures or None,
        "outcome": "accepted" if response.jobs else "acknowledged",
    }


def find_blob_keys(session: Session, keys: list[str]) -> set[str]:
    """Return those of the blob keys that a delivery uses."""
    query = sa.select(Delivery.blob_key).where(Delivery.blob_key.in_(keys))
    return {key for key in session.scalars(query) if key is not None}
