"""What receivers of webhooks need: the secret they verify them with."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from app.api.http.auth import Admin
from app.deliveries.signing import encode_secret, secrets_of

router = APIRouter(prefix="/api", tags=["webhooks"])


@router.get("/webhook-secret", summary="What your receivers verify webhooks with")
async def webhook_secret(caller: Admin) -> dict[str, Any]:
    """`secret` is the newest; while a change is under way each delivery is signed with the `former` ones as well."""
    newest, *former = (encode_secret(secret) for secret in secrets_of(caller.tenant))
    return {"secret": newest, "former": former}
