"""Audit log of administrators: one entry per action, written in the action's transaction."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.tenants.models import AuditEntry

SECRET = "secret"  # the actor that authenticated with MILLRACE_API_SECRET


def record(
    session: Session,
    *,
    tenant: str,
    actor: str,
    action: str,
    subject: str,
    request_id: str | None = None,
    **details: Any,
) -> None:
    """Record that `actor` (a key's id, or `secret`) did `action` to `subject`; `tenant` is the tenant concerned."""
    session.add(
        AuditEntry(
            at=clock.now(),
            tenant=tenant,
            actor=actor,
            action=action,
            subject=sql.storable(subject)[:300],
            details=sql.storable(details),
            request_id=request_id,
        )
    )


def entries(
    session: Session,
    *,
    tenant: str | None,
    action: str | None = None,
    actor: str | None = None,
    before_id: int | None = None,
    limit: int,
) -> list[AuditEntry]:
    """List entries, newest first; tenant None means all tenants."""
    conditions = [
        getattr(AuditEntry, name) == value
        for name, value in (("tenant", tenant), ("action", action), ("actor", actor))
        if value is not None
    ]
    if before_id is not None:
        conditions.append(AuditEntry.id < before_id)
    return list(session.scalars(sa.select(AuditEntry).where(*conditions).order_by(AuditEntry.id.desc()).limit(limit)))
