"""Error of an invalid webhook body."""

from __future__ import annotations

from app.core.errors import InvalidInput


class InvalidPayload(InvalidInput):
    code = "webhook_payload"
