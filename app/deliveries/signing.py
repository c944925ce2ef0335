"""Signatures of outgoing webhooks, after Standard Webhooks 1.0.0: any of its libraries verifies them."""

from __future__ import annotations

import base64
import hashlib
import hmac

from app.core.errors import Rejected
from app.core.settings import get_settings

PREFIX = "whsec_"


def secrets_of(tenant: str) -> list[bytes]:
    """Return the tenant's secrets, newest first, derived from the settings' secrets: no tenant can sign as another.

    Raises Rejected if the settings have no secret.
    """
    settings = get_settings()
    masters = settings.webhook_secrets.get_secret_value().split() or [settings.api_secret.get_secret_value()]
    secrets = [hmac.digest(master.encode(), f"webhook:{tenant}".encode(), "sha256") for master in masters if master]
    if not secrets:
        raise Rejected("no secret is set to sign webhooks with: set MILLRACE_WEBHOOK_SECRETS", code="webhook_secret")
    return secrets


def encode_secret(secret: bytes) -> str:
    """Return the secret in the form that receivers use."""
    return PREFIX + base64.b64encode(secret).decode("ascii")


def signature(secrets: list[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature header: one signature per secret, so that receivers may still use the previous one."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.new(secret, content, hashlib.sha256).digest() for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)
