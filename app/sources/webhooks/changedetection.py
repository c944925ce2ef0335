"""Handle notifications of changedetection.io: record the change and enqueue a job that reads the page again."""

from __future__ import annotations

import hashlib
import hmac
import re

from sqlalchemy.orm import Session

from app.core.errors import Unauthenticated
from app.core.settings import get_settings
from app.sources.changes import changes
from app.sources.changes.jobs import Rescrape
from app.sources.payloads.change_bodies import PageChange, parse, webhook_token
from app.sources.webhooks.deliveries import DeliveryResponse

_SIGNATURE = re.compile(r"(?:sha256=)?([0-9A-Fa-f]{64})")
_BEARER = re.compile(r"[Bb]earer +(\S+)")


def verify(body: bytes, *, signature: str | None, authorization: str | None, path_token: str | None) -> None:
    """Check the token in `Authorization: Bearer` or the path, or the older service's `X-Signature` of the body.

    Raises NotAllowed.
    """
    expected = webhook_token()
    if signature is not None:
        match = _SIGNATURE.fullmatch(signature.strip())
        secret = get_settings().webhook_secret.get_secret_value()
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        if match is None or not hmac.compare_digest(digest, match[1].lower()):
            raise Unauthenticated("Invalid signature")
        return
    token = path_token
    if token is None and authorization is not None:
        bearer = _BEARER.fullmatch(authorization.strip())
        token = bearer[1] if bearer else authorization.strip()
    if token is None:
        raise Unauthenticated("Missing X-Signature header or token")
    if not hmac.compare_digest(expected.encode(), token.encode("utf-8", "replace")):
        raise Unauthenticated("Invalid token")


class ChangeDetectionWebhook:
    name = "changedetection"

    def read(self, body: bytes) -> PageChange:
        return parse(body)

    def apply(
        self, session: Session, tenant: str, payload: PageChange, delivery_id: int, request_id: str | None
    ) -> DeliveryResponse:
        if payload.is_test:
            return DeliveryResponse(200, {"status": "acknowledged", "event_type": payload.type})
        owner = changes.find_tenant(session, payload.watch_id) or tenant
        event = changes.record(session, owner, payload, origin="webhook")
        if event.state == "ignored":
            return DeliveryResponse(200, {"status": "acknowledged", "change_event_id": event.id, "url": payload.url})
        job = changes.start_rescrape(session, event, Rescrape(event_id=event.id), request_id)
        body = {"status": "queued", "job_id": job.id, "change_event_id": event.id, "url": payload.url}
        return DeliveryResponse(202, body, 1)
