"""Signatures of outgoing webhooks, after Standard Webhooks 1.0.0: any of its libraries verifies them."""

from __future__ import annotations

import base64
import hashlib
import hmac

from app.core.errors import Rejected
from app.core.settings import get_settings

PREFIX = "whsec_"


def secrets_of(tenant: str) -> list[bytes]:
    """The tenant's secrets, the newest first: made of the settings' own, so that no tenant can sign as another.

    Raises Rejected where there is nothing to make them of.
    """
    settings = get_settings()
    masters = settings.webhook_secrets.get_secret_value().split() or [settings.api_secret.get_secret_value()]
    made = [hmac.digest(master.encode(), f"webhook:{tenant}".encode(), "sha256") for master in masters if master]
    if not made:
        raise Rejected("there is no secret to sign webhooks with: set MILLRACE_WEBHOOK_SECRETS", code="webhook_secret")
    return made


def shown(secret: bytes) -> str:
    """The secret as receivers are given it."""
    return PREFIX + base64.b64encode(secret).decode("ascii")


def signature(secrets: list[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The header: one signature a secret, so that receivers may still hold the former one."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.new(secret, content, hashlib.sha256).digest() for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)
