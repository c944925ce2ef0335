"""Tenants over HTTP; for operators."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.app_state import Keys
from app.api.http.audit import note
from app.api.http.auth import Identity, Operator
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.paging import ListQuery, Paging
from app.api.http.responses import answered
from app.api.models.base import documented
from app.api.models.tenants import TenantDetail, TenantPage, TenantSummary
from app.core.clock import moment
from app.core.db import in_transaction, read
from app.core.sql import storable
from app.documents.accept.quota import usage
from app.tenants import directory
from app.tenants.models import Tenant

router = APIRouter(prefix="/api", tags=["tenants"])

Title = Annotated[str, Field(max_length=200)]


class Quotas(BaseModel):
    """Limits of a tenant; null means no limit."""

    max_open_jobs: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    max_documents: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    max_bytes: Annotated[int, Field(ge=0, le=2**62)] | None = None


class TenantRequest(Quotas):
    """A new tenant."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "acme", "title": "Acme Ltd", "max_documents": 100000}]}
    )

    id: Annotated[str, Field(min_length=1, max_length=64)]
    title: Title = ""


class TenantChange(Quotas):
    """Changes to a tenant; absent fields stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "Acme Inc", "disabled": False}]})

    title: Title | None = None
    disabled: bool | None = None


def tenant_view(tenant: Tenant) -> dict[str, Any]:
    return {
        "id": tenant.id,
        "title": tenant.title,
        "quotas": {name: getattr(tenant, name) for name in directory.QUOTAS},
        "created_at": moment(tenant.created_at),
        "disabled_at": moment(tenant.disabled_at),
    }


@router.post("/tenants", summary="Create a tenant", status_code=201, responses={201: documented(TenantSummary)})
async def create_tenant(request: Request, caller: Operator, once: Idempotent, body: TenantRequest) -> Response:
    """409 if the tenant exists."""

    def work(session: Session) -> Answer:
        return Answer(201, tenant_view(_create(session, caller, body)))

    return await answered(request, caller.tenant, await once.run(caller, work))


def _create(session: Session, caller: Identity, body: TenantRequest) -> Tenant:
    quotas = {name: getattr(body, name) for name in directory.QUOTAS}
    tenant = directory.create(session, body.id, storable(body.title), quotas)
    note(session, caller, "tenant.create", tenant.id, tenant=tenant.id, **quotas)
    return tenant


@router.get("/tenants", summary="List tenants by name", responses={200: documented(TenantPage)})
async def list_tenants(caller: Operator, paging: Paging) -> dict[str, Any]:
    """All tenants, also disabled ones."""
    return await read(_page_of_tenants, paging)


def _page_of_tenants(session: Session, paging: ListQuery) -> dict[str, Any]:
    rows = directory.list_tenants(session, after_id=paging.after_name(), limit=paging.limit + 1)
    return paging.cut(rows, tenant_view, lambda row: [row.id])


@router.get("/tenants/{tenant_id}", summary="Get a tenant", responses={200: documented(TenantDetail)})
async def get_tenant(caller: Operator, tenant_id: str) -> dict[str, Any]:
    """With the number of its open jobs, documents and bytes."""
    return await read(_detail, tenant_id)


def _detail(session: Session, tenant_id: str) -> dict[str, Any]:
    return tenant_view(directory.get(session, tenant_id)) | {"used": usage(session, tenant_id)["used"]}


@router.patch(
    "/tenants/{tenant_id}",
    summary="Change title or quotas of a tenant, or disable it",
    responses={200: documented(TenantSummary)},
)
async def update_tenant(caller: Operator, keyring: Keys, tenant_id: str, body: TenantChange) -> dict[str, Any]:
    """The keys of a disabled tenant are refused, and their open streams are closed; its jobs stay."""
    answer = tenant_view(await in_transaction(_change, caller, tenant_id, body))
    await keyring.changed(None)
    return answer


def _change(session: Session, caller: Identity, tenant_id: str, body: TenantChange) -> Tenant:
    fields = body.model_dump(exclude_unset=True)
    changes = {name: value for name, value in fields.items() if name in directory.QUOTAS or value is not None}
    if "title" in changes:
        changes["title"] = storable(changes["title"])
    tenant = directory.change(session, tenant_id, dict(changes))
    note(session, caller, "tenant.change", tenant_id, tenant=tenant_id, **changes)
    return tenant
