"""Handle events of Firecrawl: update the state of the crawl and enqueue a job for each page."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import AppError, InvalidInput, Unauthenticated
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.documents import urls
from app.documents.accept import quota
from app.documents.accept.accept import About, Accepted, accept, known_id
from app.documents.operations import NAMES
from app.jobs.ledger.enqueue import enqueue
from app.metrics import operations
from app.metrics.operations import OperationStep
from app.sources.crawls import crawls
from app.sources.fetching.page_text import split_url
from app.sources.jobs import FetchPage
from app.sources.payloads.firecrawl_events import FirecrawlEvent, FirecrawlPage, parse
from app.sources.webhooks.deliveries import DeliveryResponse

log = get_logger(__name__)

# An error page of a crawl is fetched again after this time.
RETRY_AFTER = timedelta(minutes=1)
_SIGNATURE = re.compile(r"sha256=([0-9A-Fa-f]{64})")


class MalformedSignature(InvalidInput):
    """The signature header does not have the required format."""

    code = "signature_shape"


def check_header(signature: str | None) -> str:
    """Return the digest in the header; needs no body. Raises NotAllowed, MalformedSignature."""
    if not get_settings().webhook_secret.get_secret_value():
        raise Unauthenticated("webhooks are not set up here: MILLRACE_WEBHOOK_SECRET")
    if not signature:
        raise Unauthenticated("Missing X-Firecrawl-Signature header")
    match = _SIGNATURE.fullmatch(signature.strip())
    if match is None:
        raise MalformedSignature("X-Firecrawl-Signature must be sha256= and 64 hexadecimal digits")
    return match[1].lower()


def verify(body: bytes, signature: str | None) -> None:
    """Check the signature of the body. Raises NotAllowed, MalformedSignature."""
    expected = check_header(signature)
    secret = get_settings().webhook_secret.get_secret_value()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(digest, expected):
        raise Unauthenticated("Invalid webhook signature")


class FirecrawlWebhook:
    name = "firecrawl"

    def read(self, body: bytes) -> FirecrawlEvent:
        return parse(body)

    def apply(
        self, session: Session, tenant: str, event: FirecrawlEvent, delivery_id: int, request_id: str | None
    ) -> DeliveryResponse:
        if event.crawl_id is not None:
            requester = crawls.find_requester(session, event.crawl_id)
            if requester is not None and requester[1]:
                if crawls.is_known(session, tenant, event.crawl_id):  # its first event came before Firecrawl's response
                    crawls.follow(session, tenant, event)
                return DeliveryResponse(200, {"status": "acknowledged", "event_type": event.type})
            tenant = tenant if requester is None else requester[0]
            crawls.follow(session, tenant, event)
        if not event.success:
            for page in event.pages() if event.step == "page" else ():
                if page.is_temporary:
                    _try_later(session, tenant, page, request_id)
            message = "Failed event received and logged"
            body = {"status": "acknowledged", "message": message, "event_id": event.crawl_id or str(delivery_id)}
            return DeliveryResponse(200, body, failures=_failures_of(event))
        if event.step != "page":
            return DeliveryResponse(200, {"status": "acknowledged", "event_type": event.type})
        return _accept_pages(session, tenant, event, request_id)


def _failures_of(event: FirecrawlEvent) -> list[dict[str, Any]]:
    """Return the failed page of a page event; it counts as a page of its crawl."""
    if event.step != "page":
        return []
    url = next((page.url for page in event.pages() if page.url), None)
    return [{"url": url, "error": event.error or "no reason was given"}]


def _accept_pages(session: Session, tenant: str, event: FirecrawlEvent, request_id: str | None) -> DeliveryResponse:
    started = clock.monotonic()
    jobs: list[str] = []
    failed: list[dict[str, Any]] = []
    for page in event.pages():
        error = page.error
        if error is None:
            try:
                jobs.append(_accept_page(session, tenant, page, request_id).job.id)
            except AppError as refusal:
                error = refusal.message
        if error is not None:
            failed.append({"url": page.url, "error": error})
        if page.is_temporary:
            _try_later(session, tenant, page, request_id)
    if not jobs and not failed:
        return DeliveryResponse(200, {"status": "no_documents", "queued_jobs": 0, "job_ids": []})
    spent_ms = round(1000 * (clock.monotonic() - started), 2)
    step = OperationStep(*NAMES["store"], spent_ms, failed[0]["error"] if failed else None)
    operations.write(session, [step], tenant=tenant, at=clock.now(), request_id=request_id, crawl_id=event.crawl_id)
    body: dict[str, Any] = {"status": "queued", "queued_jobs": len(jobs), "job_ids": jobs}
    return DeliveryResponse(202, body | ({"failed_documents": failed} if failed else {}), len(jobs), failed)


def _try_later(session: Session, tenant: str, page: FirecrawlPage, request_id: str | None) -> None:
    """Enqueue a job that fetches the page once its server may answer again; one for each page at a time."""
    url = str(page.url)
    try:
        split_url(urls.check_url(url))
        document_id = known_id(session, About(url=url), tenant=tenant)
        job = FetchPage(document_id=document_id, url=urls.check_url(url), source="firecrawl")
        key = hashlib.sha256(urls.canonical(url).encode("utf-8", "replace")).hexdigest()
        due_at = clock.now() + RETRY_AFTER
        quota.within(session, tenant, enqueue, job, tenant=tenant, due_at=due_at, unique_key=key, request_id=request_id)
    except AppError as refusal:
        log.info("page_not_retried", url=url, reason=refusal.message)


def _accept_page(session: Session, tenant: str, page: FirecrawlPage, request_id: str | None) -> Accepted:
    """Accept one page; a refused page writes nothing and does not affect the others.

    Needs no savepoint, which would cost two statements: accept() refuses before it writes, and within() undoes what
    exceeds a quota.
    """
    assert page.about is not None and page.content is not None
    return quota.within(session, tenant, accept, page.about, page.content, tenant=tenant, request_id=request_id)
