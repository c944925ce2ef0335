"""Sessions of browsers: made at sign-in, checked at each request, ended with their key.

A session ends after MAX_IDLE without a request of a person, after MAX_AGE in any case, at sign-out, and when the key or
the secret that it came with is revoked, rotated or changed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.errors import NotFound
from app.tenants.models import BrowserSession

MAX_IDLE = timedelta(hours=12)
MAX_AGE = timedelta(days=7)
# The time of the last request is written this often.
SEEN_STEP = timedelta(minutes=1)
TOKEN_BYTES = 32


def create(
    session: Session, *, tenant: str, key_id: str | None, secret_hash: bytes, address: str, agent: str
) -> tuple[BrowserSession, str]:
    """Store a new session; return it with the token for the cookie, which is not stored."""
    token, now = secrets.token_urlsafe(TOKEN_BYTES), clock.now()
    row = BrowserSession(
        id=secrets.token_hex(8),
        token_hash=_hash(token),
        tenant=tenant,
        key_id=key_id,
        secret_hash=secret_hash,
        created_at=now,
        seen_at=now,
        ends_at=now + MAX_AGE,
        address=address[:64],
        agent=sql.storable(agent)[:300],
    )
    session.add(row)
    return row, token


def find(session: Session, token: str) -> BrowserSession | None:
    """Return the session of this cookie, None without one or if it has ended by time."""
    row = session.scalar(sa.select(BrowserSession).where(BrowserSession.token_hash == _hash(token)))
    now = clock.now()
    if row is None or now >= row.ends_at or now - row.seen_at >= MAX_IDLE:
        return None
    return row


def note_seen(session: Session, session_id: str) -> None:
    """Record a request of a person, which lengthens the session."""
    seen = sa.update(BrowserSession).where(BrowserSession.id == session_id)
    session.execute(seen.values(seen_at=clock.now()))


def end(session: Session, session_id: str, *, tenant: str, key_id: str | None) -> None:
    """End a session of this key. Raises NotFound for any other."""
    ended = sa.delete(BrowserSession).where(
        BrowserSession.id == session_id,
        BrowserSession.tenant == tenant,
        BrowserSession.key_id.is_not_distinct_from(key_id),
    )
    if sql.row_count(session, ended) != 1:
        raise NotFound(f"Session {session_id} not found", code="session_not_found")


def list_of_key(session: Session, *, tenant: str, key_id: str | None) -> Sequence[BrowserSession]:
    """Return the open sessions of a key, the latest used first."""
    now = clock.now()
    query = sa.select(BrowserSession).where(
        BrowserSession.tenant == tenant,
        BrowserSession.key_id.is_not_distinct_from(key_id),
        BrowserSession.ends_at > now,
        BrowserSession.seen_at > now - MAX_IDLE,
    )
    return session.scalars(query.order_by(BrowserSession.seen_at.desc()).limit(100)).all()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
