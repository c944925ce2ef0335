"""API keys: `mr_<id>_<secret>`, shown once, stored as SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import Conflict, InvalidInput, NotFound
from app.tenants import scopes as grants
from app.tenants.models import ApiKey, Tenant

MAX_OVERLAP = timedelta(days=7)
_TOKEN = re.compile(rb"mr_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Key:
    """A key with the fields needed to check it."""

    id: str
    tenant: str
    scopes: frozenset[str]
    rate_limits: Mapping[str, str]
    secret_hash: bytes
    previous_hash: bytes | None
    previous_until: datetime | None
    expires_at: datetime | None
    closed: bool

    def usable(self, now: datetime) -> bool:
        """Return True if the key is neither revoked nor expired and its tenant is not disabled."""
        return not self.closed and (self.expires_at is None or now < self.expires_at)

    def opens(self, secret: bytes, now: datetime) -> bool:
        """Return True for the current secret, or the previous one during its overlap. Takes constant time."""
        return self.takes(hashlib.sha256(secret).digest(), now)

    def takes(self, hashed: bytes, now: datetime) -> bool:
        """Like opens(), for a secret's SHA-256."""
        fits = hmac.compare_digest(hashed, self.secret_hash)
        if self.previous_hash is not None and self.previous_until is not None and now < self.previous_until:
            fits |= hmac.compare_digest(hashed, self.previous_hash)
        return fits and self.usable(now)


def split(token: bytes) -> tuple[str, bytes] | None:
    """Return (id, secret) of a well-formed token, else None."""
    match = _TOKEN.fullmatch(token)
    return (match[1].decode("ascii"), match[2]) if match else None


def digest(token: bytes) -> bytes:
    """Return the SHA-256 of a token's secret; of the empty string for a malformed token."""
    parts = split(token)
    return hashlib.sha256(parts[1] if parts else b"").digest()


def issue(
    session: Session,
    tenant: str,
    *,
    name: str,
    scopes: Iterable[str],
    created_by: str,
    rate_limits: Mapping[str, str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Return a new key and its token, which cannot be read again later. Raises NotFound for an unknown tenant."""
    now = clock.now()
    if session.get(Tenant, tenant) is None:
        raise NotFound(f"Tenant {tenant} not found", code="tenant_not_found")
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("expires_at is in the past", code="expires_at")
    # Ids ascend, so that a list starts with the newest.
    key_id = f"{int(now.timestamp()) & 0xFFFFFFFF:08x}{secrets.token_hex(4)}"
    secret = secrets.token_urlsafe(32)
    key = ApiKey(
        id=key_id,
        tenant=tenant,
        name=name,
        scopes=grants.check_scopes(scopes),
        rate_limits=dict(rate_limits or {}),
        secret_hash=_hash(secret),
        created_by=created_by,
        created_at=now,
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, f"mr_{key_id}_{secret}"


def rotate(session: Session, tenant: str | None, key_id: str, overlap: timedelta) -> tuple[ApiKey, str]:
    """Give the key a new secret; the previous one works during `overlap`. Raises NotFound, or Conflict if revoked."""
    key = get(session, tenant, key_id, lock=True)
    if key.revoked_at is not None:
        raise Conflict(f"Key {key_id} is revoked", code="key_revoked")
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise InvalidInput(f"overlap_s: 0 to {MAX_OVERLAP.total_seconds():g}", code="overlap")
    secret = secrets.token_urlsafe(32)
    key.previous_hash, key.previous_until = (key.secret_hash, clock.now() + overlap) if overlap else (None, None)
    key.secret_hash = _hash(secret)
    return key, f"mr_{key_id}_{secret}"


def revoke(session: Session, tenant: str | None, key_id: str) -> ApiKey:
    """Revoke the key from the commit on; repeatable. Raises NotFound."""
    key = get(session, tenant, key_id, lock=True)
    key.revoked_at = key.revoked_at or clock.now()
    return key


def get(session: Session, tenant: str | None, key_id: str, *, lock: bool = False) -> ApiKey:
    """Return the key. Raises NotFound, also for another tenant's key; tenant None allows any."""
    key = session.get(ApiKey, key_id, with_for_update=lock) if len(key_id) <= 16 else None
    if key is None or tenant not in (None, key.tenant):
        raise NotFound(f"Key {key_id} not found", code="key_not_found")
    return key


def list_keys(session: Session, tenant: str | None, *, before_id: str | None, limit: int) -> list[ApiKey]:
    """List keys, newest first, including revoked ones; tenant None means all tenants."""
    query = sa.select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(ApiKey.tenant == tenant)
    return list(session.scalars(query if before_id is None else query.where(ApiKey.id < before_id)))


def look_up(session: Session, ids: Collection[str]) -> dict[str, Key]:
    """Return the keys that exist, by id."""
    query = sa.select(ApiKey, Tenant.disabled_at).join(Tenant, Tenant.id == ApiKey.tenant).where(ApiKey.id.in_(ids))
    return {
        row.id: Key(
            id=row.id,
            tenant=row.tenant,
            scopes=frozenset(row.scopes),
            rate_limits=row.rate_limits,
            secret_hash=row.secret_hash,
            previous_hash=row.previous_hash,
            previous_until=row.previous_until,
            expires_at=row.expires_at,
            closed=row.revoked_at is not None or disabled_at is not None,
        )
        for row, disabled_at in session.execute(query)
    }


def note_use(session: Session, used: Mapping[str, datetime]) -> None:
    """Store the time of last use of each key; of several processes the latest time counts."""
    for key_id, at in sorted(used.items()):
        older = sa.or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at)
        session.execute(sa.update(ApiKey).where(ApiKey.id == key_id, older).values(last_used_at=at))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
