"""The secret with which receivers verify webhooks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from app.api.http.auth import Admin
from app.api.models.base import documented
from app.api.models.tenants import WebhookSecret
from app.deliveries.signing import encode_secret, secrets_of

router = APIRouter(prefix="/api", tags=["webhooks"])


@router.get(
    "/webhook-secret", summary="Get the secret that verifies webhooks", responses={200: documented(WebhookSecret)}
)
async def get_webhook_secret(caller: Admin) -> dict[str, Any]:
    """`secret` is the newest. During a change of secrets each delivery is also signed with the `former` ones."""
    newest, *former = (encode_secret(secret) for secret in secrets_of(caller.tenant))
    return {"secret": newest, "former": former}
