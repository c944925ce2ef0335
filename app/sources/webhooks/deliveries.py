"""A delivery becomes one stored row and the work that it asks for, in one transaction; once.

The answer needs nothing else: no Redis, and no other service. The same delivery again gets the first answer.
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

# A longer body is kept as a blob.
MAX_ROW_BYTES = 64 * 1024
DELIVERY = cast(sa.Table, Delivery.__table__)
_ANSWER = sa.update(DELIVERY).where(DELIVERY.c.id == sa.bindparam("delivery"))


@dataclass(frozen=True, slots=True)
class DeliveryResponse:
    """`jobs`: how many were made; `failures`: {url, error} of each page that could not be taken, or failed already."""

    status: int
    body: dict[str, Any]
    jobs: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


class Payload(Protocol):
    """What a delivery says, read."""

    @property
    def type(self) -> str: ...

    @property
    def run(self) -> str | None:
        """The crawl, or whatever else it is a part of."""

    @property
    def key(self) -> str | None:
        """What makes it the same delivery again, by its sender's word; None where only the bytes do."""


@dataclass(frozen=True, slots=True)
class ReceivedDelivery:
    """What came: the bytes, what they say, where they are kept, and whose they are."""

    tenant: str
    sender: WebhookHandler
    body: bytes
    told: Payload
    blob_key: str | None
    request_id: str | None = None


class WebhookHandler(Protocol):
    """How the deliveries of one kind of sender are read, and what they ask for."""

    name: str

    def read(self, body: bytes) -> Payload:
        """Raises InvalidInput for what is none of this sender's."""

    def apply(
        self, session: Session, tenant: str, told: Any, delivery_id: int, request_id: str | None
    ) -> DeliveryResponse:
        """Do what it asks for. Called once a delivery, and again for each replay."""


async def receive(tenant: str, sender: WebhookHandler, body: bytes, request_id: str | None) -> ReceivedDelivery:
    """The delivery read, and its bytes where they stay: what is long or no text is written to the store before the row
    that names it.

    Raises InvalidInput for what is no event: nothing is kept of that. Read before any transaction, since on SQLite one
    keeps all other writers waiting; and a long one off the loop, since it takes its time.
    """
    is_long = len(body) > MAX_ROW_BYTES
    told = await asyncio.to_thread(sender.read, body) if is_long else sender.read(body)
    key = None if not is_long and _is_text(body) else (await blobs().put(body)).key
    return ReceivedDelivery(tenant, sender, body, told, key, request_id)


def _is_text(body: bytes) -> bool:
    try:
        return "\0" not in body.decode()
    except UnicodeDecodeError:
        return False


def store(session: Session, given: ReceivedDelivery) -> DeliveryResponse:
    """Store the delivery, do what it asks for, and answer; for the same one again the first answer."""
    values = _row(given)
    delivery_id = add_unless_there(session, Delivery, values)
    if delivery_id is None:
        same = (Delivery.tenant == given.tenant, Delivery.source == given.sender.name)
        query = sa.select(Delivery).where(*same, Delivery.digest == values["digest"])
        before = session.scalars(query.with_for_update()).one()
        before.repeats += 1
        return DeliveryResponse(before.answer["status"], before.answer["body"])
    answered = given.sender.apply(session, given.tenant, given.told, delivery_id, given.request_id)
    session.connection().execute(_ANSWER, {"delivery": delivery_id, **_outcome(answered)})
    return answered


async def read_body(delivery: Delivery) -> bytes:
    """The bytes as they came. Raises NotFound where they were swept."""
    if delivery.blob_key is None:
        return (delivery.body or "").encode()
    return b"".join([part async for part in blobs().stream(delivery.blob_key)])


def replay(
    session: Session, tenant: str, delivery_id: int, told: Payload, sender: WebhookHandler, request_id: str | None
) -> DeliveryResponse:
    """Do what a stored delivery, read anew, asks for once more, as if it had just come."""
    row = get(session, tenant, delivery_id, lock=True)
    row.replayed_at = clock.now()
    answered = sender.apply(session, tenant, told, row.id, request_id)
    for name, value in _outcome(answered).items():
        setattr(row, name, value)
    return answered


def get(session: Session, tenant: str, delivery_id: int, *, lock: bool = False) -> Delivery:
    """Raises NotFound."""
    query = sa.select(Delivery).where(Delivery.tenant == tenant, Delivery.id == delivery_id)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound("Delivery not found", code="delivery_not_found")
    return row


def list_deliveries(
    session: Session, tenant: str, *, source: str | None, outcome: str | None, before_id: int | None, limit: int
) -> list[Delivery]:
    """The newest first."""
    query = sa.select(Delivery).where(Delivery.tenant == tenant)
    for column, value in ((Delivery.source, source), (Delivery.outcome, outcome)):
        query = query if value is None else query.where(column == value)
    if before_id is not None:
        query = query.where(Delivery.id < before_id)
    return list(session.scalars(query.order_by(Delivery.id.desc()).limit(limit)))


def describe(row: Delivery) -> dict[str, Any]:
    """Without the body."""
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


def _row(given: ReceivedDelivery) -> dict[str, Any]:
    key = given.told.key
    return {
        "tenant": given.tenant,
        "source": given.sender.name,
        "event_type": given.told.type,
        "digest": hashlib.sha256(key.encode() if key else given.body).hexdigest(),
        "body": None if given.blob_key else given.body.decode(),
        "blob_key": given.blob_key,
        "size_bytes": len(given.body),
        "crawl_id": given.told.run,
        "outcome": "acknowledged",
        "answer": {},
        "jobs": 0,
        "request_id": given.request_id,
        "received_at": clock.now(),
    }


def _outcome(answered: DeliveryResponse) -> dict[str, Any]:
    """What the delivery's row says of how it was answered."""
    return {
        "answer": {"status": answered.status, "body": answered.body},
        "jobs": answered.jobs,
        "failures": answered.failures or None,
        "outcome": "accepted" if answered.jobs else "acknowledged",
    }


def find_blob_keys(session: Session, keys: list[str]) -> set[str]:
    """Which of these blobs hold a delivery."""
    query = sa.select(Delivery.blob_key).where(Delivery.blob_key.in_(keys))
    return {key for key in session.scalars(query) if key is not None}
