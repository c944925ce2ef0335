"""Audit entries for actions of API callers."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.api.http.auth import Identity
from app.tenants import audit


def note(session: Session, caller: Identity, action: str, subject: str, *, tenant: str, **details: Any) -> None:
    """Add an entry to the audit log, in the transaction of the action."""
    audit.record(
        session,
        tenant=tenant,
        actor=caller.actor,
        action=action,
        subject=subject,
        request_id=caller.request_id,
        **details,
    )
