"""Tables of tenants, their keys, and the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base, BigId, JsonColumn, UtcDateTime

DEFAULT_TENANT = "default"  # created with the schema; MILLRACE_API_SECRET acts as its operator


class Tenant(Base):
    """An owner of jobs and documents. A quota of None is no limit; a disabled tenant's keys are invalid."""

    __tablename__ = "tenant"

    id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    title: Mapped[str] = mapped_column(sa.String(200), default="")
    max_open_jobs: Mapped[int | None]
    max_documents: Mapped[int | None]
    max_bytes: Mapped[int | None] = mapped_column(BigId)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ApiKey(Base):
    """A key with the SHA-256 of its secret. After a rotation the previous secret may stay valid for a while."""

    __tablename__ = "api_key"
    __table_args__ = (sa.Index("ix_api_key_tenant", "tenant", "id"),)

    id: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64), sa.ForeignKey("tenant.id"))
    name: Mapped[str] = mapped_column(sa.String(200))
    scopes: Mapped[list[str]] = mapped_column(JsonColumn)
    # "POST /api/search" or "*" → "600/minute"
    rate_limits: Mapped[dict[str, str]] = mapped_column(JsonColumn, default=dict)
    secret_hash: Mapped[bytes] = mapped_column(sa.LargeBinary)
    previous_hash: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    previous_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class BrowserSession(Base):
    """A browser that signed in with a key, or with the API secret. Only the SHA-256 of its cookie is stored."""

    __tablename__ = "browser_session"
    __table_args__ = (sa.Index("ix_browser_session_ends_at", "ends_at"),)

    id: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(sa.LargeBinary, unique=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    # None: the API secret.
    key_id: Mapped[str | None] = mapped_column(sa.String(16))
    # Of the secret that it signed in with; the session ends when that secret does.
    secret_hash: Mapped[bytes] = mapped_column(sa.LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ends_at: Mapped[datetime] = mapped_column(UtcDateTime)
    address: Mapped[str] = mapped_column(sa.String(64))
    agent: Mapped[str] = mapped_column(sa.String(300))


class AuditEntry(Base):
    """One action of an administrator, written in its transaction."""

    __tablename__ = "audit_log"
    __table_args__ = (
        sa.Index("ix_audit_log_tenant", "tenant", "id"),
        sa.Index("ix_audit_log_at", "at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    actor: Mapped[str] = mapped_column(sa.String(64))
    action: Mapped[str] = mapped_column(sa.String(64))
    subject: Mapped[str] = mapped_column(sa.String(300))
    details: Mapped[dict[str, Any]] = mapped_column(JsonColumn, default=dict)
    request_id: Mapped[str | None] = mapped_column(sa.String(128))
