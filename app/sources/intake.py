"""A delivery becomes one stored row, its crawl's state and a job for each page, in one transaction; once.

The answer needs nothing else: no Redis, and no other service. The same bytes again get the first answer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.blobs import blobs
from app.core.errors import AppError, InvalidInput, NotAllowed, NotFound
from app.core.settings import get_settings
from app.documents import quota
from app.documents.accept import accept
from app.documents.operations import NAMES
from app.jobs.view import moment
from app.metrics import operations
from app.metrics.operations import Step
from app.sources import crawls
from app.sources.firecrawl_events import Event, parse
from app.sources.models import Delivery

# A longer body is kept as a blob.
LONGEST_ROW_BYTES = 64 * 1024
_SIGNATURE = re.compile(r"sha256=([0-9A-Fa-f]{64})")


class Malformed(InvalidInput):
    """A header that is not of the shape it must have."""

    code = "signature_shape"


@dataclass(frozen=True, slots=True)
class Given:
    """What came: the bytes, where they are kept, and whose they are."""

    tenant: str
    source: str
    body: bytes
    blob_key: str | None
    request_id: str | None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    body: dict[str, Any]


def verify(body: bytes, signature: str | None) -> None:
    """That the secret's holder signed these bytes. Raises NotAllowed, or Malformed for a header of another shape."""
    secret = get_settings().webhook_secret.get_secret_value()
    if not secret:
        raise NotAllowed("webhooks are not set up here: MILLRACE_WEBHOOK_SECRET", code="unauthenticated")
    if not signature:
        raise NotAllowed("Missing X-Firecrawl-Signature header", code="unauthenticated")
    match = _SIGNATURE.fullmatch(signature.strip())
    if match is None:
        raise Malformed("X-Firecrawl-Signature must be sha256= and 64 hexadecimal digits")
    wanted = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted, match[1].lower()):
        raise NotAllowed("Invalid webhook signature", code="unauthenticated")


async def kept(tenant: str, source: str, body: bytes, request_id: str | None) -> Given:
    """The bytes where they stay: a long body is written to the store before the row that names it."""
    key = (await blobs().put(body)).key if len(body) > LONGEST_ROW_BYTES else None
    return Given(tenant, source, body, key, request_id)


def take_firecrawl(session: Session, given: Given) -> Answered:
    """Store the delivery, do what it asks for, and answer; for the same bytes again the first answer.

    Raises InvalidInput for what is no event: that is not stored.
    """
    event = parse(_json(given.body))
    before = _known(session, given)
    if before is not None:
        before.repeats += 1
        return Answered(before.answer["status"], before.answer["body"])
    try:
        with session.begin_nested():
            row = _stored(session, given, event)
    except IntegrityError:  # the same delivery, a moment ago
        before = _known(session, given)
        assert before is not None
        before.repeats += 1
        return Answered(before.answer["status"], before.answer["body"])
    answered = _apply(session, given.tenant, event, row, given.request_id)
    _note(row, answered)
    return answered


async def body_of(delivery: Delivery) -> bytes:
    """The bytes as they came. Raises NotFound where they were swept."""
    if delivery.blob_key is None:
        return (delivery.body or "").encode("utf-8", "surrogateescape")
    return b"".join([part async for part in blobs().stream(delivery.blob_key)])


def replay(session: Session, tenant: str, delivery_id: int, body: bytes, request_id: str | None) -> Answered:
    """Do what a stored delivery asks for once more, as if it had just come."""
    row = get(session, tenant, delivery_id, lock=True)
    answered = _apply(session, tenant, parse(_json(body)), row, request_id)
    _note(row, answered)
    row.replayed_at = clock.now()
    return answered


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
        "repeats": row.repeats,
        "size_bytes": row.size_bytes,
        "request_id": row.request_id,
        "received_at": moment(row.received_at),
        "replayed_at": moment(row.replayed_at) if row.replayed_at else None,
    }


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        fault = {"type": "json_invalid", "loc": ["body"], "msg": "it is no JSON", "field": "body", "message": "no JSON"}
        raise InvalidInput("Invalid webhook payload structure", code="webhook_payload", errors=[fault]) from error


def _known(session: Session, given: Given) -> Delivery | None:
    same = (Delivery.tenant == given.tenant, Delivery.source == given.source, Delivery.digest == given.digest)
    return session.scalars(sa.select(Delivery).where(*same).with_for_update()).one_or_none()


def _stored(session: Session, given: Given, event: Event) -> Delivery:
    text = None if given.blob_key else given.body.decode("utf-8", "surrogateescape").replace("\0", "")
    row = Delivery(
        tenant=given.tenant,
        source=given.source,
        event_type=event.type,
        digest=given.digest,
        body=text,
        blob_key=given.blob_key,
        size_bytes=len(given.body),
        crawl_id=event.crawl_id,
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


def _note(row: Delivery, answered: Answered) -> None:
    row.answer = {"status": answered.status, "body": answered.body}
    row.jobs = int(answered.body.get("queued_jobs", 0))
    row.outcome = "accepted" if row.jobs else "acknowledged"


def _apply(session: Session, tenant: str, event: Event, row: Delivery, request_id: str | None) -> Answered:
    """What the event asks for: its crawl's state, and a job for each of its pages."""
    if event.crawl_id is not None:
        crawls.follow(session, tenant, event)
    if not event.success:
        message = "Failed event received and logged"
        return Answered(200, {"status": "acknowledged", "message": message, "event_id": event.crawl_id or str(row.id)})
    if event.step != "page":
        return Answered(200, {"status": "acknowledged", "event_type": event.type})
    started = clock.monotonic()
    jobs: list[str] = []
    failed: list[dict[str, Any]] = []
    for page in event.pages():
        error = page.error
        if page.about is not None and page.content is not None:
            put: Callable[..., Any] = accept
            try:
                with session.begin_nested():
                    taken = quota.within(
                        session, tenant, put, page.about, page.content, tenant=tenant, request_id=request_id
                    )
                jobs.append(taken.job.id)
            except AppError as refused:
                error = refused.message
        if error is not None:
            failed.append({"url": page.url, "error": error})
    if not jobs and not failed:
        return Answered(200, {"status": "no_documents", "queued_jobs": 0, "job_ids": []})
    spent_ms = round(1000 * (clock.monotonic() - started), 2)
    stored = Step(*NAMES["store"], spent_ms, failed[0]["error"] if failed else None)
    operations.write(session, [stored], tenant=tenant, at=clock.now(), request_id=request_id, crawl_id=event.crawl_id)
    body: dict[str, Any] = {"status": "queued", "queued_jobs": len(jobs), "job_ids": jobs}
    return Answered(202, body | ({"failed_documents": failed} if failed else {}))


def named_blobs(session: Session, keys: list[str]) -> set[str]:
    """Which of these blobs hold a delivery."""
    query = sa.select(Delivery.blob_key).where(Delivery.blob_key.in_(keys))
    return {key for key in session.scalars(query) if key is not None}
