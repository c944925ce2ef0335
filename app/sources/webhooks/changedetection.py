"""What changedetection.io's notifications ask for: an event, and a job that reads the page again."""

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
    """That the sender knows the token, in `Authorization: Bearer` or the path, or signed the bytes as the older
    service's senders do (`X-Signature`). Raises NotAllowed."""
    expected = webhook_token()
    if signature is not None:
        match = _SIGNATURE.fullmatch(signature.strip())
        secret = get_settings().webhook_secret.get_secret_value()
        made = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        if match is None or not hmac.compare_digest(made, match[1].lower()):
            raise Unauthenticated("Invalid signature")
        return
    given = path_token
    if given is None and authorization is not None:
        bearer = _BEARER.fullmatch(authorization.strip())
        given = bearer[1] if bearer else authorization.strip()
    if given is None:
        raise Unauthenticated("Missing X-Signature header or token")
    if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
        raise Unauthenticated("Invalid token")


class ChangeDetectionWebhook:
    name = "changedetection"

    def read(self, body: bytes) -> PageChange:
        return parse(body)

    def apply(
        self, session: Session, tenant: str, told: PageChange, delivery_id: int, request_id: str | None
    ) -> DeliveryResponse:
        owner = changes.find_tenant(session, told.watch_id) or tenant
        event = changes.record(session, owner, told, origin="webhook")
        if event.state == "ignored":
            return DeliveryResponse(200, {"status": "acknowledged", "change_event_id": event.id, "url": told.url})
        job = changes.start_rescrape(session, event, Rescrape(event_id=event.id), request_id)
        said = {"status": "queued", "job_id": job.id, "change_event_id": event.id, "url": told.url}
        return DeliveryResponse(202, said, 1)
