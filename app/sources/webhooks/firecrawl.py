"""What Firecrawl's events ask for: their crawl's state, and a job for each page."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import AppError, InvalidInput, Unauthenticated
from app.core.settings import get_settings
from app.documents.accept import quota
from app.documents.accept.accept import Accepted, accept
from app.documents.ingest.operations import NAMES
from app.metrics import operations
from app.metrics.operations import OperationStep
from app.sources.crawls import crawls
from app.sources.payloads.firecrawl_events import FirecrawlEvent, FirecrawlPage, parse
from app.sources.webhooks.deliveries import DeliveryResponse

_SIGNATURE = re.compile(r"sha256=([0-9A-Fa-f]{64})")


class MalformedSignature(InvalidInput):
    """A header that is not of the shape it must have."""

    code = "signature_shape"


def verify(body: bytes, signature: str | None) -> None:
    """That the secret's holder signed these bytes. Raises NotAllowed, or MalformedSignature for a header of another shape."""
    secret = get_settings().webhook_secret.get_secret_value()
    if not secret:
        raise Unauthenticated("webhooks are not set up here: MILLRACE_WEBHOOK_SECRET")
    if not signature:
        raise Unauthenticated("Missing X-Firecrawl-Signature header")
    match = _SIGNATURE.fullmatch(signature.strip())
    if match is None:
        raise MalformedSignature("X-Firecrawl-Signature must be sha256= and 64 hexadecimal digits")
    wanted = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted, match[1].lower()):
        raise Unauthenticated("Invalid webhook signature")


class FirecrawlWebhook:
    name = "firecrawl"

    def read(self, body: bytes) -> FirecrawlEvent:
        return parse(body)

    def apply(
        self, session: Session, tenant: str, told: FirecrawlEvent, delivery_id: int, request_id: str | None
    ) -> DeliveryResponse:
        if told.crawl_id is not None:
            asked = crawls.find_requester(session, told.crawl_id)
            if asked is not None and asked[1]:
                if crawls.is_known(session, tenant, told.crawl_id):  # by an event that came before Firecrawl's answer
                    crawls.follow(session, tenant, told)
                return DeliveryResponse(200, {"status": "acknowledged", "event_type": told.type})
            tenant = tenant if asked is None else asked[0]
            crawls.follow(session, tenant, told)
        if not told.success:
            message = "Failed event received and logged"
            said = {"status": "acknowledged", "message": message, "event_id": told.crawl_id or str(delivery_id)}
            return DeliveryResponse(200, said, failures=_failures_of(told))
        if told.step != "page":
            return DeliveryResponse(200, {"status": "acknowledged", "event_type": told.type})
        return _pages(session, tenant, told, request_id)


def _failures_of(told: FirecrawlEvent) -> list[dict[str, Any]]:
    """A page that failed: it is counted with its crawl."""
    if told.step != "page":
        return []
    url = next((page.url for page in told.pages() if page.url), None)
    return [{"url": url, "error": told.error or "no reason was given"}]


def _pages(session: Session, tenant: str, told: FirecrawlEvent, request_id: str | None) -> DeliveryResponse:
    started = clock.monotonic()
    jobs: list[str] = []
    failed: list[dict[str, Any]] = []
    for page in told.pages():
        error = page.error
        if error is None:
            try:
                jobs.append(_taken(session, tenant, page, request_id).job.id)
            except AppError as refused:
                error = refused.message
        if error is not None:
            failed.append({"url": page.url, "error": error})
    if not jobs and not failed:
        return DeliveryResponse(200, {"status": "no_documents", "queued_jobs": 0, "job_ids": []})
    spent_ms = round(1000 * (clock.monotonic() - started), 2)
    stored = OperationStep(*NAMES["store"], spent_ms, failed[0]["error"] if failed else None)
    operations.write(session, [stored], tenant=tenant, at=clock.now(), request_id=request_id, crawl_id=told.crawl_id)
    said: dict[str, Any] = {"status": "queued", "queued_jobs": len(jobs), "job_ids": jobs}
    return DeliveryResponse(202, said | ({"failed_documents": failed} if failed else {}), len(jobs), failed)


def _taken(session: Session, tenant: str, page: FirecrawlPage, request_id: str | None) -> Accepted:
    """Alone: a page that cannot be taken leaves nothing, and keeps no other out.

    Without a savepoint, which would be two statements more: accept() refuses such a page before it writes, and within()
    undoes what went over a quota.
    """
    assert page.about is not None and page.content is not None
    return quota.within(session, tenant, accept, page.about, page.content, tenant=tenant, request_id=request_id)
