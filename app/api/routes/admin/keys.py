"""API keys over HTTP: create, list, update, rotate, revoke; and the audit log."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.app_state import Keys
from app.api.http.audit import note
from app.api.http.auth import Admin, Anyone, Identity
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.paging import ListQuery, Paging, invalid_cursor
from app.api.http.responses import answered
from app.api.http.tenant_access import OtherTenant, reachable_tenant
from app.api.http.times import zoned
from app.api.models.base import documented
from app.api.models.tenants import AuditLogPage, CallerDetail, IssuedKey, KeyDetail, KeyPage
from app.core import clock
from app.core.clock import moment
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput, NotAllowed
from app.core.sql import storable
from app.documents.accept.quota import usage
from app.tenants import audit, keys, limits, scopes
from app.tenants.models import ApiKey, AuditEntry

router = APIRouter(prefix="/api", tags=["keys"])

KEY: dict[int | str, dict[str, Any]] = {200: documented(KeyDetail)}
Name = Annotated[str, Field(min_length=1, max_length=200)]
Scopes = Annotated[list[Annotated[str, Field(max_length=120)]], Field(max_length=scopes.MAX_SCOPES)]
RateLimits = Annotated[
    dict[str, str],
    Field(max_length=limits.MAX_ENTRIES, description='Route or `*` to rate: `{"POST /api/search": "600/minute"}`.'),
]


class KeyRequest(BaseModel):
    """A new key. `scopes`: read, write, admin, operator, kind:NAME, collection:NAME."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "crawler", "scopes": ["read", "write"], "rate_limits": {"POST /api/search": "600/minute"}}
            ]
        }
    )

    name: Name
    scopes: Scopes
    tenant: Annotated[str, Field(max_length=64)] | None = Field(None, description="Another tenant; operators only.")
    rate_limits: RateLimits = {}
    expires_at: datetime | None = None


class KeyChange(BaseModel):
    """Changes to a key; absent fields stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"scopes": ["read"]}]})

    name: Name | None = None
    scopes: Scopes | None = None
    rate_limits: RateLimits | None = None


class RotateRequest(BaseModel):
    """The time for which the old secret stays valid."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_s": 3600}]})

    overlap_s: float = Field(
        0, ge=0, le=keys.MAX_OVERLAP.total_seconds(), description="Seconds for which the old secret stays valid."
    )


def key_view(key: ApiKey) -> dict[str, Any]:
    """Return the key without its secret."""
    state = "active"
    if key.revoked_at is not None:
        state = "revoked"
    elif key.expires_at is not None and key.expires_at <= clock.now():
        state = "expired"
    times = ("created_at", "expires_at", "last_used_at", "revoked_at")
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "state": state,
        "scopes": key.scopes,
        "rate_limits": key.rate_limits,
        "created_by": key.created_by,
        **{name: moment(getattr(key, name)) for name in times},
    }


@router.get(
    "/me", summary="Get the tenant and scopes of the key of this request", responses={200: documented(CallerDetail)}
)
async def get_me(caller: Anyone) -> dict[str, Any]:
    """With the scope `read`, also quotas and use of the tenant."""
    amounts = await read(usage, caller.tenant) if caller.may(scopes.READ) else {}
    return {"tenant": caller.tenant, "key_id": caller.key_id, "scopes": sorted(caller.scopes), **amounts}


@router.post("/keys", summary="Create a key", status_code=201, responses={201: documented(IssuedKey)})
async def create_key(request: Request, caller: Admin, once: Idempotent, body: KeyRequest) -> Response:
    """`key` is shown only in this answer; it is null in the answer to a repeated request (`Idempotency-Key`)."""
    token = None

    def work(session: Session) -> Answer:
        nonlocal token
        key, token = _create(session, caller, body)
        return Answer(201, key_view(key) | {"key": None})

    answer = await once.run(caller, work)
    if not answer.replayed:
        answer = replace(answer, body=answer.body | {"key": token})
    return await answered(request, caller.tenant, answer)


def _create(session: Session, caller: Identity, body: KeyRequest) -> tuple[ApiKey, str]:
    tenant = reachable_tenant(caller, body.tenant)
    if tenant is None:
        raise InvalidInput("tenant must name one tenant, not '*'", code="tenant")
    key_scopes = scopes.check_scopes(body.scopes)
    if not scopes.may_grant(caller.scopes, key_scopes):
        raise NotAllowed("only an operator may grant 'operator'", code="scope_missing")
    key, token = keys.issue(
        session,
        tenant,
        name=storable(body.name),
        scopes=key_scopes,
        created_by=caller.actor,
        rate_limits=limits.check_limits(body.rate_limits),
        expires_at=zoned(body.expires_at, "expires_at"),
    )
    note(session, caller, "key.create", key.id, tenant=tenant, name=key.name, scopes=key_scopes)
    return key, token


@router.get("/keys", summary="List keys, the newest first", responses={200: documented(KeyPage)})
async def list_keys(caller: Admin, paging: Paging, tenant: OtherTenant = None) -> dict[str, Any]:
    """Keys of the caller's tenant; operators can name another one."""
    return await read(_page_of_keys, reachable_tenant(caller, tenant), paging)


def _page_of_keys(session: Session, tenant: str | None, paging: ListQuery) -> dict[str, Any]:
    match paging.after:
        case None:
            before = None
        case [str(before)] if len(before) <= 16 and before.isalnum():
            pass
        case _:
            raise invalid_cursor()
    rows = keys.list_keys(session, tenant, before_id=before, limit=paging.limit + 1)
    return paging.cut(rows, key_view, lambda row: [row.id])


@router.get("/keys/{key_id}", summary="Get a key", responses=KEY)
async def get_key(caller: Admin, key_id: str) -> dict[str, Any]:
    return key_view(await read(keys.get, _range(caller), key_id))


@router.patch("/keys/{key_id}", summary="Change name, scopes or rate limits of a key", responses=KEY)
async def update_key(caller: Admin, keyring: Keys, key_id: str, body: KeyChange) -> dict[str, Any]:
    answer = key_view(await in_transaction(_change, caller, key_id, body))
    await keyring.changed(key_id)
    return answer


def _change(session: Session, caller: Identity, key_id: str, body: KeyChange) -> ApiKey:
    key = keys.get(session, _range(caller), key_id, lock=True)
    key_scopes = key.scopes if body.scopes is None else scopes.check_scopes(body.scopes)
    if not scopes.may_grant(caller.scopes, {*key_scopes, *key.scopes}):
        raise NotAllowed("only an operator may grant 'operator', or change such a key", code="scope_missing")
    key.scopes = key_scopes
    if body.name is not None:
        key.name = storable(body.name)
    if body.rate_limits is not None:
        key.rate_limits = limits.check_limits(body.rate_limits)
    changes = storable(body.model_dump(exclude_none=True))
    note(session, caller, "key.change", key.id, tenant=key.tenant, **changes)
    return key


@router.post("/keys/{key_id}/rotate", summary="Replace the secret of a key", responses={200: documented(IssuedKey)})
async def rotate_key(caller: Admin, keyring: Keys, key_id: str, body: RotateRequest | None = None) -> dict[str, Any]:
    """`key` is shown only in this answer; the old secret stays valid for `overlap_s`."""
    answer = await in_transaction(_rotate, caller, key_id, (body or RotateRequest(overlap_s=0)).overlap_s)
    await keyring.changed(key_id)
    return answer


def _rotate(session: Session, caller: Identity, key_id: str, overlap_s: float) -> dict[str, Any]:
    if not scopes.may_grant(caller.scopes, keys.get(session, _range(caller), key_id).scopes):
        raise NotAllowed("only an operator may rotate the key of an operator", code="scope_missing")
    key, token = keys.rotate(session, _range(caller), key_id, timedelta(seconds=overlap_s))
    note(session, caller, "key.rotate", key.id, tenant=key.tenant, overlap_s=overlap_s)
    return key_view(key) | {"key": token}


@router.delete("/keys/{key_id}", summary="Revoke a key", responses=KEY)
async def revoke_key(caller: Admin, keyring: Keys, key_id: str) -> dict[str, Any]:
    """The key is refused from now on, and its open streams are closed."""
    answer = key_view(await in_transaction(_revoke, caller, key_id))
    await keyring.changed(key_id)
    return answer


def _revoke(session: Session, caller: Identity, key_id: str) -> ApiKey:
    if not scopes.may_grant(caller.scopes, keys.get(session, _range(caller), key_id).scopes):
        raise NotAllowed("only an operator may revoke the key of an operator", code="scope_missing")
    key = keys.revoke(session, _range(caller), key_id)
    note(session, caller, "key.revoke", key.id, tenant=key.tenant, name=key.name)
    return key


def _range(caller: Identity) -> str | None:
    """Return the tenant whose keys the caller may change; None means all tenants."""
    return None if caller.may(scopes.OPERATOR) else caller.tenant


@router.get(
    "/audit-log",
    summary="List the actions of administrators, the newest first",
    responses={200: documented(AuditLogPage)},
)
async def list_audit_log(
    caller: Admin,
    paging: Paging,
    tenant: OtherTenant = None,
    action: Annotated[str | None, Query(max_length=64)] = None,
    actor: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    """Actions in the caller's tenant; operators can name another one."""
    return await read(_page_of_entries, reachable_tenant(caller, tenant), action, actor, paging)


def _page_of_entries(
    session: Session, tenant: str | None, action: str | None, actor: str | None, paging: ListQuery
) -> dict[str, Any]:
    before_id, limit = paging.after_number(), paging.limit + 1
    rows = audit.entries(session, tenant=tenant, action=action, actor=actor, before_id=before_id, limit=limit)
    return paging.cut(rows, _entry_view, lambda row: [row.id])


def _entry_view(entry: AuditEntry) -> dict[str, Any]:
    names = ("tenant", "actor", "action", "subject", "details", "request_id")
    return {"id": str(entry.id), "at": moment(entry.at), **{name: getattr(entry, name) for name in names}}
