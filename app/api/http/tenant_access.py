"""Tenants whose data a caller may read: its own, and for operators any."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from app.api.http.auth import Identity
from app.core.errors import NotFound
from app.tenants import scopes

OtherTenant = Annotated[str | None, Query(max_length=64, description="Another tenant, or `*` for all; operators only.")]


def reachable_tenant(caller: Identity, tenant: str | None) -> str | None:
    """Return the tenant to read, None for all. Raises NotFound for another tenant unless the caller is an operator."""
    if tenant in (None, caller.tenant):
        return caller.tenant
    if not caller.may(scopes.OPERATOR):
        raise NotFound(f"Tenant {tenant} not found", code="tenant_not_found")
    return None if tenant == "*" else tenant
