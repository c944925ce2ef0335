"""Tenants: create, look up, change, list."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import Conflict, InvalidInput, NotFound
from app.tenants.models import DEFAULT_TENANT, Tenant

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
QUOTAS = ("max_open_jobs", "max_documents", "max_bytes")


def create(session: Session, tenant_id: str, title: str, quotas: dict[str, int | None]) -> Tenant:
    """Create a tenant. Raises InvalidInput for an invalid id, Conflict for one that is taken."""
    if not _ID.fullmatch(tenant_id):
        raise InvalidInput("id: 1 to 64 of a-z, 0-9, dot, dash, underscore; first a letter or digit", code="tenant_id")
    tenant = Tenant(id=tenant_id, title=title, created_at=clock.now(), **quotas)
    try:
        with session.begin_nested():
            session.add(tenant)
    except IntegrityError:
        raise Conflict(f"Tenant {tenant_id} exists already", code="tenant_exists") from None
    return tenant


def get(session: Session, tenant_id: str, *, lock: bool = False) -> Tenant:
    """Raises NotFound."""
    tenant = session.get(Tenant, tenant_id, with_for_update=lock)
    if tenant is None:
        raise NotFound(f"Tenant {tenant_id} not found", code="tenant_not_found")
    return tenant


def change(session: Session, tenant_id: str, changes: dict[str, Any]) -> Tenant:
    """Change the tenant's title, quotas or `disabled`. Raises NotFound, or Conflict for the operator's own tenant."""
    tenant = get(session, tenant_id, lock=True)
    disabled = changes.pop("disabled", None)
    if disabled and tenant_id == DEFAULT_TENANT:
        raise Conflict("the operator's own tenant cannot be disabled", code="tenant_default")
    if disabled is not None:
        tenant.disabled_at = (tenant.disabled_at or clock.now()) if disabled else None
    for name, value in changes.items():
        setattr(tenant, name, value)
    return tenant


def list_tenants(session: Session, *, after_id: str | None, limit: int) -> list[Tenant]:
    """List tenants by id."""
    query = sa.select(Tenant).order_by(Tenant.id).limit(limit)
    return list(session.scalars(query if after_id is None else query.where(Tenant.id > after_id)))
