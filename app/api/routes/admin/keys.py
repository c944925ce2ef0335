"""Keys over HTTP: make, list, rotate, revoke; and what administrators did."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.api.http.auth import Admin, Anyone, Identity, Keys, Page, Paging
from app.api.http.idempotency import OnceOnly
from app.api.http.responses import answered
from app.api.http.times import utc
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput, NotAllowed, NotFound
from app.core.sql import storable
from app.documents.accept.quota import usage
from app.jobs.idempotency import Answer
from app.jobs.ledger.views import moment
from app.tenants import audit, keys, limits, scopes
from app.tenants.models import ApiKey, AuditEntry

router = APIRouter(prefix="/api", tags=["keys"])

LARGEST_ID = 2**63 - 1
Name = Annotated[str, Field(min_length=1, max_length=200)]
Scopes = Annotated[list[Annotated[str, Field(max_length=120)]], Field(max_length=scopes.MAX_SCOPES)]
RateLimits = Annotated[
    dict[str, str],
    Field(max_length=limits.MAX_ENTRIES, description='Route or `*` → rate: `{"POST /api/search": "600/minute"}`.'),
]
OfTenant = Annotated[
    str | None, Query(max_length=64, description="Another tenant, or `*` for all: for operators only.")
]


class KeyRequest(BaseModel):
    """`scopes`: read, write, admin, operator, kind:NAME, collection:NAME."""

    name: Name
    scopes: Scopes
    tenant: Annotated[str, Field(max_length=64)] | None = Field(None, description="Another tenant: for operators only.")
    rate_limits: RateLimits = {}
    expires_at: datetime | None = None


class KeyChange(BaseModel):
    """Only what is given changes."""

    name: Name | None = None
    scopes: Scopes | None = None
    rate_limits: RateLimits | None = None


class RotateRequest(BaseModel):
    overlap_s: float = Field(0, ge=0, le=keys.MAX_OVERLAP.total_seconds(), description="How long the old one works")


def key_view(key: ApiKey) -> dict[str, Any]:
    """A key as people see it; nothing of its secret."""
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


def reach(caller: Identity, tenant: str | None) -> str | None:
    """The tenant that is meant, None for all. Raises NotFound where it is another's and the caller no operator."""
    if tenant in (None, caller.tenant):
        return caller.tenant
    if not caller.may(scopes.OPERATOR):
        raise NotFound(f"Tenant {tenant} not found", code="tenant_not_found")
    return None if tenant == "*" else tenant


def note(session: Session, caller: Identity, action: str, subject: str, *, tenant: str, **details: Any) -> None:
    """A line in the audit log, in the transaction of the act."""
    audit.record(
        session,
        tenant=tenant,
        actor=caller.actor,
        action=action,
        subject=subject,
        request_id=caller.request_id,
        **details,
    )


@router.get("/me", summary="Whose key this is, and what it may do")
async def me(caller: Anyone) -> dict[str, Any]:
    """With `read`, also what the tenant may hold and holds."""
    here = await read(usage, caller.tenant) if caller.may(scopes.READ) else {}
    return {"tenant": caller.tenant, "key_id": caller.key_id, "scopes": sorted(caller.scopes), **here}


@router.post("/keys", summary="Make a key", status_code=201)
async def create_key(request: Request, caller: Admin, once: OnceOnly, body: KeyRequest) -> Response:
    """`key` is shown this once; a repeated request (`Idempotency-Key`) is answered with null there."""
    token = None

    def work(session: Session) -> Answer:
        nonlocal token
        key, token = _create(session, caller, body)
        return Answer(201, key_view(key) | {"key": None})

    answer = await once.run(caller.tenant, work)
    if not answer.replayed:
        answer = replace(answer, body=answer.body | {"key": token})
    return await answered(request, caller.tenant, answer)


def _create(session: Session, caller: Identity, body: KeyRequest) -> tuple[ApiKey, str]:
    tenant = reach(caller, body.tenant)
    if tenant is None:
        raise InvalidInput("tenant: a key belongs to one", code="tenant")
    wanted = scopes.check_scopes(body.scopes)
    if not scopes.may_grant(caller.scopes, wanted):
        raise NotAllowed("only an operator may grant 'operator'", code="scope_missing")
    key, token = keys.issue(
        session,
        tenant,
        name=storable(body.name),
        scopes=wanted,
        created_by=caller.actor,
        rate_limits=limits.check_limits(body.rate_limits),
        expires_at=utc(body.expires_at, "expires_at"),
    )
    note(session, caller, "key.create", key.id, tenant=tenant, name=key.name, scopes=wanted)
    return key, token


@router.get("/keys", summary="List keys, the newest first")
async def list_keys(caller: Admin, paging: Paging, tenant: OfTenant = None) -> dict[str, Any]:
    return await read(_page_of_keys, reach(caller, tenant), paging)


def _page_of_keys(session: Session, tenant: str | None, paging: Page) -> dict[str, Any]:
    match paging.after:
        case None:
            before = None
        case [str(before)] if len(before) <= 16 and before.isalnum():
            pass
        case _:
            raise InvalidInput("the cursor is not one of ours", code="cursor")
    rows = keys.list_keys(session, tenant, before_id=before, limit=paging.limit + 1)
    return paging.cut(rows, key_view, lambda row: [row.id])


@router.get("/keys/{key_id}", summary="One key")
async def show_key(caller: Admin, key_id: str) -> dict[str, Any]:
    return key_view(await read(keys.get, _range(caller), key_id))


@router.patch("/keys/{key_id}", summary="Change a key's name, scopes or rate limits")
async def change_key(caller: Admin, keyring: Keys, key_id: str, body: KeyChange) -> dict[str, Any]:
    answer = key_view(await in_transaction(_change, caller, key_id, body))
    await keyring.changed(key_id)
    return answer


def _change(session: Session, caller: Identity, key_id: str, body: KeyChange) -> ApiKey:
    key = keys.get(session, _range(caller), key_id, lock=True)
    wanted = key.scopes if body.scopes is None else scopes.check_scopes(body.scopes)
    if not scopes.may_grant(caller.scopes, {*wanted, *key.scopes}):
        raise NotAllowed("only an operator may grant 'operator', or change such a key", code="scope_missing")
    key.scopes = wanted
    if body.name is not None:
        key.name = storable(body.name)
    if body.rate_limits is not None:
        key.rate_limits = limits.check_limits(body.rate_limits)
    changes = storable(body.model_dump(exclude_none=True))
    note(session, caller, "key.change", key.id, tenant=key.tenant, **changes)
    return key


@router.post("/keys/{key_id}/rotate", summary="Give a key a new secret")
async def rotate_key(caller: Admin, keyring: Keys, key_id: str, body: RotateRequest | None = None) -> dict[str, Any]:
    """`key` is the only time that anybody sees it; the one before works on for `overlap_s`."""
    answer = await in_transaction(_rotate, caller, key_id, (body or RotateRequest(overlap_s=0)).overlap_s)
    await keyring.changed(key_id)
    return answer


def _rotate(session: Session, caller: Identity, key_id: str, overlap_s: float) -> dict[str, Any]:
    if not scopes.may_grant(caller.scopes, keys.get(session, _range(caller), key_id).scopes):
        raise NotAllowed("only an operator may have the key of one", code="scope_missing")
    key, token = keys.rotate(session, _range(caller), key_id, timedelta(seconds=overlap_s))
    note(session, caller, "key.rotate", key.id, tenant=key.tenant, overlap_s=overlap_s)
    return key_view(key) | {"key": token}


@router.delete("/keys/{key_id}", summary="Revoke a key")
async def revoke_key(caller: Admin, keyring: Keys, key_id: str) -> dict[str, Any]:
    """It opens nothing any more, and the streams it opened are closed."""
    answer = key_view(await in_transaction(_revoke, caller, key_id))
    await keyring.changed(key_id)
    return answer


def _revoke(session: Session, caller: Identity, key_id: str) -> ApiKey:
    key = keys.revoke(session, _range(caller), key_id)
    note(session, caller, "key.revoke", key.id, tenant=key.tenant, name=key.name)
    return key


def _range(caller: Identity) -> str | None:
    """Whose keys the caller may touch: None means everybody's."""
    return None if caller.may(scopes.OPERATOR) else caller.tenant


@router.get("/audit-log", summary="What administrators did, the newest first")
async def audit_log(
    caller: Admin,
    paging: Paging,
    tenant: OfTenant = None,
    action: Annotated[str | None, Query(max_length=64)] = None,
    actor: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    return await read(_page_of_entries, reach(caller, tenant), action, actor, paging)


def _page_of_entries(
    session: Session, tenant: str | None, action: str | None, actor: str | None, paging: Page
) -> dict[str, Any]:
    match paging.after:
        case None:
            before = None
        case [int(before)] if 0 < before <= LARGEST_ID:
            pass
        case _:
            raise InvalidInput("the cursor is not one of ours", code="cursor")
    rows = audit.entries(session, tenant=tenant, action=action, actor=actor, before_id=before, limit=paging.limit + 1)
    return paging.cut(rows, _entry_view, lambda row: [row.id])


def _entry_view(entry: AuditEntry) -> dict[str, Any]:
    names = ("tenant", "actor", "action", "subject", "details", "request_id")
    return {"id": str(entry.id), "at": moment(entry.at), **{name: getattr(entry, name) for name in names}}
