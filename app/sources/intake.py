"""A delivery becomes one stored row and the work that it asks for, in one transaction; once.

The answer needs nothing else: no Redis, and no other service. The same delivery again gets the first answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.blobs import blobs
from app.core.errors import NotFound
from app.jobs.view import moment
from app.sources.models import Delivery

# A longer body is kept as a blob.
LONGEST_ROW_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answered:
    """`jobs`: how many were made; `failures`: {url, error} of each page that could not be taken, or failed already."""

    status: int
    body: dict[str, Any]
    jobs: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


class Told(Protocol):
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
class Given:
    """What came: the bytes, what they say, where they are kept, and whose they are."""

    tenant: str
    source: str
    body: bytes
    told: Told
    blob_key: str | None
    request_id: str | None = None


class Sender(Protocol):
    """How the deliveries of one kind of sender are read, and what they ask for."""

    name: str

    def read(self, body: bytes) -> Told:
        """Raises InvalidInput for what is none of this sender's."""

    def apply(self, session: Session, tenant: str, told: Any, delivery: Delivery, request_id: str | None) -> Answered:
        """Do what it asks for. Called once a delivery, and again for each replay."""


async def kept(tenant: str, sender: Sender, body: bytes, request_id: str | None) -> Given:
    """The delivery read, and its bytes where they stay: what is long or no text is written to the store before the row
    that names it.

    Raises InvalidInput for what is no event: nothing is kept of that. Read outside of any transaction, since a large
    one takes its time.
    """
    told = await asyncio.to_thread(sender.read, body)
    key = None if len(body) <= LONGEST_ROW_BYTES and _is_text(body) else (await blobs().put(body)).key
    return Given(tenant, sender.name, body, told, key, request_id)


def _is_text(body: bytes) -> bool:
    try:
        return "\0" not in body.decode()
    except UnicodeDecodeError:
        return False


def take(session: Session, given: Given, sender: Sender) -> Answered:
    """Store the delivery, do what it asks for, and answer; for the same one again the first answer."""
    told = given.told
    digest = hashlib.sha256(told.key.encode() if told.key else given.body).hexdigest()
    before = _known(session, given, digest)
    if before is None:
        try:
            with session.begin_nested():
                row = _stored(session, given, told, digest)
        except IntegrityError:  # the same delivery, a moment ago
            before = _known(session, given, digest)
            assert before is not None
    if before is not None:
        before.repeats += 1
        return Answered(before.answer["status"], before.answer["body"])
    return _done(row, sender.apply(session, given.tenant, told, row, given.request_id))


async def body_of(delivery: Delivery) -> bytes:
    """The bytes as they came. Raises NotFound where they were swept."""
    if delivery.blob_key is None:
        return (delivery.body or "").encode()
    return b"".join([part async for part in blobs().stream(delivery.blob_key)])


def replay(
    session: Session, tenant: str, delivery_id: int, told: Told, sender: Sender, request_id: str | None
) -> Answered:
    """Do what a stored delivery, read anew, asks for once more, as if it had just come."""
    row = get(session, tenant, delivery_id, lock=True)
    row.replayed_at = clock.now()
    return _done(row, sender.apply(session, tenant, told, row, request_id))


def get(session: Session, tenant: str, delivery_id: int, *, lock: bool = False) -> Delivery:
    """Raises NotFound."""
    query = sa.select(Delivery).where(Delivery.tenant == tenant, Delivery.id == delivery_id)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound("Delivery not found", code="delivery_not_found")
    return row


def listed(
    session: Session, tenant: str, *, source: str | None, outcome: str | None, before_id: int | None, limit: int
) -> list[Delivery]:
    """The newest first."""
    query = sa.select(Delivery).where(Delivery.tenant == tenant)
    for column, value in ((Delivery.source, source), (Delivery.outcome, outcome)):
        query = query if value is None else query.where(column == value)
    if before_id is not None:
        query = query.where(Delivery.id < before_id)
    return list(session.scalars(query.order_by(Delivery.id.desc()).limit(limit)))


def shown(row: Delivery) -> dict[str, Any]:
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


def _known(session: Session, given: Given, digest: str) -> Delivery | None:
    same = (Delivery.tenant == given.tenant, Delivery.source == given.source, Delivery.digest == digest)
    return session.scalars(sa.select(Delivery).where(*same).with_for_update()).one_or_none()


def _stored(session: Session, given: Given, told: Told, digest: str) -> Delivery:
    text = None if given.blob_key else given.body.decode()
    row = Delivery(
        tenant=given.tenant,
        source=given.source,
        event_type=told.type,
        digest=digest,
        body=text,
        blob_key=given.blob_key,
        size_bytes=len(given.body),
        crawl_id=told.run,
        outcome="acknowledged",
        answer={},
        jobs=0,
        repeats=0,
        request_id=given.request_id,
        received_at=clock.now(),
    )
    session.add(row)
    session.flush()
    return row


def _done(row: Delivery, answered: Answered) -> Answered:
    row.answer = {"status": answered.status, "body": answered.body}
    row.jobs, row.failures = answered.jobs, answered.failures or None
    row.outcome = "accepted" if row.jobs else "acknowledged"
    return answered


def named_blobs(session: Session, keys: list[str]) -> set[str]:
    """Which of these blobs hold a delivery."""
    query = sa.select(Delivery.blob_key).where(Delivery.blob_key.in_(keys))
    return {key for key in session.scalars(query) if key is not None}
