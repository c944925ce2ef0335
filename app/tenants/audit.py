"""What administrators did: a line for each act, in the transaction of the act, so neither is without the other."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.tenants.models import AuditEntry

SECRET = "secret"  # the actor that came with MILLRACE_API_SECRET


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
    """Note that `actor` (a key's id, or `secret`) did `action` to `subject`; `tenant` is whom it concerns."""
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
    """The newest first; tenant None means those of all."""
    conditions = [
        getattr(AuditEntry, name) == value
        for name, value in (("tenant", tenant), ("action", action), ("actor", actor))
        if value is not None
    ]
    if before_id is not None:
        conditions.append(AuditEntry.id < before_id)
    return list(session.scalars(sa.select(AuditEntry).where(*conditions).order_by(AuditEntry.id.desc()).limit(limit)))
