"""The person at the browser: the session of their cookie, with the tenant and scopes of the key they signed in with."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import NotAllowed, Unauthenticated
from app.core.settings import get_settings
from app.dashboard.security import check_host
from app.tenants import audit, sessions
from app.tenants.identity import Identity
from app.tenants.keyring import Keyring
from app.tenants.models import DEFAULT_TENANT, BrowserSession

COOKIE, SECURE_COOKIE = "millrace", "__Secure-millrace"


class SignInNeeded(Unauthenticated):
    """No session, or one that has ended."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Identity and session; no session in demo mode, where no secret is set."""

    identity: Identity
    session_id: str | None = None

    @property
    def tenant(self) -> str:
        return self.identity.tenant

    def may(self, scope: str) -> bool:
        return self.identity.may(scope)

    def note(self, session: Session, action: str, subject: str, **details: object) -> None:
        """Add a line to the audit log, in the transaction of the act."""
        audit.record(
            session,
            tenant=self.tenant,
            actor=self.identity.actor,
            action=action,
            subject=subject,
            request_id=self.identity.request_id,
            **details | {"via": "dashboard", "session_id": self.session_id},
        )


def cookie_name(request: Request) -> str:
    return SECURE_COOKIE if request.url.scheme == "https" else COOKIE


def keyring_of(request: Request) -> Keyring:
    keyring: Keyring = request.app.state.keyring
    return keyring


def request_id_of(request: Request) -> str | None:
    request_id: str | None = request.scope.get("state", {}).get("request_id")
    return request_id


def hash_secret() -> bytes:
    """Return the SHA-256 of the API secret."""
    return hashlib.sha256(get_settings().api_secret.get_secret_value().encode()).digest()


async def visitor_of(request: Request) -> Visitor:
    """Return the visitor. Raises SignInNeeded without a valid session, NotAllowed for a forged host."""
    check_host(request)
    if not get_settings().api_secret.get_secret_value():
        return Visitor(Identity(DEFAULT_TENANT, request_id_of(request)))
    token = request.cookies.get(cookie_name(request))
    row = await read(sessions.find, token) if token else None
    if row is None:
        raise SignInNeeded("Sign in first")
    identity = await _identity(request, row)
    if row.seen_at < clock.now() - sessions.SEEN_STEP and "background" not in request.query_params:
        await in_transaction(sessions.note_seen, row.id)
    return Visitor(identity, row.id)


async def _identity(request: Request, row: BrowserSession) -> Identity:
    """Return what the session's key may do now. Raises SignInNeeded if its key or secret is no longer valid."""
    if row.key_id is None:
        if not hmac.compare_digest(row.secret_hash, hash_secret()):
            raise SignInNeeded("MILLRACE_API_SECRET has changed; sign in again")
        return Identity(DEFAULT_TENANT, request_id_of(request))
    key = await keyring_of(request).check(row.key_id, row.secret_hash)
    if key is None:
        raise SignInNeeded("The key of this session is no longer valid; sign in with another one")
    return Identity(key.tenant, request_id_of(request), key.scopes, key.id, key.rate_limits)


SomeVisitor = Annotated[Visitor, Depends(visitor_of)]


def _with_scope(scope: str) -> Callable[[Visitor], Awaitable[Visitor]]:
    async def check(visitor: SomeVisitor) -> Visitor:
        if not visitor.may(scope):
            raise NotAllowed(f"this page needs the scope '{scope}'; an administrator can give it", code="scope_missing")
        return visitor

    return check


Reader = Annotated[Visitor, Depends(_with_scope("read"))]
Writer = Annotated[Visitor, Depends(_with_scope("write"))]
Admin = Annotated[Visitor, Depends(_with_scope("admin"))]
Operator = Annotated[Visitor, Depends(_with_scope("operator"))]
