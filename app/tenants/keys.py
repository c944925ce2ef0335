"""API keys: `mr_<id>_<secret>`, shown once, kept as SHA-256."""

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

LONGEST_OVERLAP = timedelta(days=7)
_TOKEN = re.compile(rb"mr_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Key:
    """A key as those who check it need it."""

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
        """Neither revoked nor expired, its tenant not disabled."""
        return not self.closed and (self.expires_at is None or now < self.expires_at)

    def opens(self, secret: bytes, now: datetime) -> bool:
        """Whether this is its secret (or the one before, while that still counts); takes the same time for any."""
        return self.takes(hashlib.sha256(secret).digest(), now)

    def takes(self, given: bytes, now: datetime) -> bool:
        """The same of a secret's SHA-256."""
        fits = hmac.compare_digest(given, self.secret_hash)
        if self.previous_hash is not None and self.previous_until is not None and now < self.previous_until:
            fits |= hmac.compare_digest(given, self.previous_hash)
        return fits and self.usable(now)


def split(token: bytes) -> tuple[str, bytes] | None:
    """(id, secret) of what looks like a key."""
    found = _TOKEN.fullmatch(token)
    return (found[1].decode("ascii"), found[2]) if found else None


def digest(token: bytes) -> bytes:
    """The SHA-256 of a token's secret; of nothing where it is no token."""
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
    """A new key and its token, which nobody can read again. Raises NotFound for an unknown tenant."""
    now = clock.now()
    if session.get(Tenant, tenant) is None:
        raise NotFound(f"Tenant {tenant} not found", code="tenant_not_found")
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("expires_at: must lie in the future", code="expires_at")
    # Ids rise, so that a list has the newest first.
    key_id = f"{int(now.timestamp()) & 0xFFFFFFFF:08x}{secrets.token_hex(4)}"
    secret = secrets.token_urlsafe(32)
    key = ApiKey(
        id=key_id,
        tenant=tenant,
        name=name,
        scopes=grants.checked(scopes),
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
    """The key with a new secret; the one before works on for `overlap`. Raises NotFound, Conflict when revoked."""
    key = get(session, tenant, key_id, lock=True)
    if key.revoked_at is not None:
        raise Conflict(f"Key {key_id} is revoked", code="key_revoked")
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise InvalidInput(f"overlap_s: 0 to {LONGEST_OVERLAP.total_seconds():g}", code="overlap")
    secret = secrets.token_urlsafe(32)
    key.previous_hash, key.previous_until = (key.secret_hash, clock.now() + overlap) if overlap else (None, None)
    key.secret_hash = _hash(secret)
    return key, f"mr_{key_id}_{secret}"


def revoke(session: Session, tenant: str | None, key_id: str) -> ApiKey:
    """The key, which opens nothing from the commit on; revoked twice is revoked once. Raises NotFound."""
    key = get(session, tenant, key_id, lock=True)
    key.revoked_at = key.revoked_at or clock.now()
    return key


def get(session: Session, tenant: str | None, key_id: str, *, lock: bool = False) -> ApiKey:
    """Raises NotFound, also for another tenant's; tenant None may have any."""
    key = session.get(ApiKey, key_id, with_for_update=lock) if len(key_id) <= 16 else None
    if key is None or tenant not in (None, key.tenant):
        raise NotFound(f"Key {key_id} not found", code="key_not_found")
    return key


def list_keys(session: Session, tenant: str | None, *, before_id: str | None, limit: int) -> list[ApiKey]:
    """The newest first, also revoked ones; tenant None means those of all."""
    query = sa.select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(ApiKey.tenant == tenant)
    return list(session.scalars(query if before_id is None else query.where(ApiKey.id < before_id)))


def look_up(session: Session, ids: Collection[str]) -> dict[str, Key]:
    """Those of the keys that exist."""
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
    """Keep when each key was last used; several processes say it, the latest counts."""
    for key_id, at in sorted(used.items()):
        older = sa.or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at)
        session.execute(sa.update(ApiKey).where(ApiKey.id == key_id, older).values(last_used_at=at))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
