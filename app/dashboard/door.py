"""Sign in with an API key or the API secret, and sign out."""

from __future__ import annotations

import hmac
from functools import partial
from typing import Annotated

from fastapi import Form, Request, Response
from sqlalchemy.orm import Session

from app.core.db import in_transaction
from app.core.errors import LimitReached
from app.core.settings import get_settings
from app.dashboard.frame import page
from app.dashboard.routing import router as make_router
from app.dashboard.routing import see_other
from app.dashboard.security import check_host, next_page
from app.dashboard.visitor import (
    SignInNeeded,
    SomeVisitor,
    Visitor,
    cookie_name,
    hash_secret,
    keyring_of,
    request_id_of,
    visitor_of,
)
from app.tenants import audit, keys, scopes, sessions
from app.tenants.limits import Counter, RateLimit
from app.tenants.models import DEFAULT_TENANT

router = make_router()

SIGN_IN_RATE = RateLimit(10, 60)
MAX_KEY_CHARS = 500
UNKNOWN = "This is not a valid key. Keys are made with `millrace keys create`; the API secret is in data/.env."


@router.get("/sign-in")
async def show_sign_in(request: Request, next: str = "") -> Response:
    check_host(request)
    try:
        await visitor_of(request)
    except SignInNeeded:
        return page(request, "sign_in.html", target=next, fault="")
    return see_other(next_page(next))


@router.post("/sign-in")
async def sign_in(
    request: Request, key: Annotated[str, Form(max_length=MAX_KEY_CHARS)] = "", next: Annotated[str, Form()] = ""
) -> Response:
    check_host(request)
    await _count(request)
    accepted = await _accept(request, key.strip())
    if accepted is None:
        await in_transaction(_note_refusal, request_id_of(request), _address(request))
        return page(request, "sign_in.html", status=401, target=next, fault=UNKNOWN)
    tenant, key_id, digest, granted = accepted
    if not scopes.allows(granted, scopes.READ):
        fault = "This key may not look at anything: the dashboard needs a key with the scope `read`."
        return page(request, "sign_in.html", status=403, target=next, fault=fault)
    token = await in_transaction(partial(_create, request), tenant, key_id, digest)
    answer = see_other(next_page(next))
    answer.set_cookie(
        cookie_name(request),
        token,
        max_age=int(sessions.MAX_AGE.total_seconds()),
        path="/ui",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post("/sign-out")
async def sign_out(request: Request, visitor: SomeVisitor) -> Response:
    if visitor.session_id is not None:
        await in_transaction(_end, visitor, visitor.session_id)
    answer = see_other("/ui/sign-in")
    answer.delete_cookie(cookie_name(request), path="/ui", secure=request.url.scheme == "https", httponly=True)
    return answer


@router.post("/me/sessions/{session_id}/end")
async def end_session(visitor: SomeVisitor, session_id: str) -> Response:
    await in_transaction(_end, visitor, session_id)
    return see_other("/ui/me", "The session has ended.")


async def _count(request: Request) -> None:
    """Count a try of this address. Raises LimitReached beyond SIGN_IN_RATE."""
    counter: Counter = request.app.state.counter
    counted = await counter.hit(f"sign-in:{_address(request)}", SIGN_IN_RATE)
    if counted.left < 0:
        raise LimitReached("Too many tries to sign in from this address", counted.reset_s, code="rate_limited")


async def _accept(request: Request, key: str) -> tuple[str, str | None, bytes, frozenset[str]] | None:
    """Return tenant, key id, SHA-256 of the secret and scopes of a valid key or the API secret, else None."""
    secret = get_settings().api_secret.get_secret_value()
    if secret and hmac.compare_digest(key.encode(), secret.encode()):
        return DEFAULT_TENANT, None, hash_secret(), scopes.ALL
    token = key.encode("utf-8", "replace")
    valid_key = await keyring_of(request).find(token)
    if valid_key is None:
        return None
    return valid_key.tenant, valid_key.id, keys.digest(token), valid_key.scopes


def _create(request: Request, session: Session, tenant: str, key_id: str | None, digest: bytes) -> str:
    row, token = sessions.create(
        session,
        tenant=tenant,
        key_id=key_id,
        secret_hash=digest,
        address=_address(request),
        agent=request.headers.get("user-agent", ""),
    )
    actor = key_id or audit.SECRET
    audit.record(
        session, tenant=tenant, actor=actor, action="session.create", subject=row.id, request_id=request_id_of(request),
        address=row.address,
    )  # fmt: skip
    return token


def _note_refusal(session: Session, request_id: str | None, address: str) -> None:
    audit.record(
        session, tenant=DEFAULT_TENANT, actor="unknown", action="session.refused", subject=address,
        request_id=request_id,
    )  # fmt: skip


def _end(session: Session, visitor: Visitor, session_id: str) -> None:
    sessions.end(session, session_id, tenant=visitor.tenant, key_id=visitor.identity.key_id)
    visitor.note(session, "session.end", session_id)


def _address(request: Request) -> str:
    return request.client.host if request.client else "?"
