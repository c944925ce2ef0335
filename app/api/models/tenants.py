"""Answers about API keys, tenants and the audit log."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.api.models.base import JsonObject, ListPage, Number, ResponseModel, Timestamp


class HeldAmounts(ResponseModel):
    """Amounts of what a tenant holds; as quotas, null means no limit."""

    open_jobs: int | None
    documents: int | None
    bytes: int | None


class CallerDetail(ResponseModel):
    """The tenant and scopes of the key of this request; quotas and use only with the scope `read`."""

    tenant: str
    key_id: str | None = Field(..., description="Null for the API secret.")
    scopes: list[str]
    quotas: HeldAmounts | None = None
    used: HeldAmounts | None = None


class KeyDetail(ResponseModel):
    """An API key, without its secret."""

    id: str
    tenant: str
    name: str
    state: Literal["active", "revoked", "expired"]
    scopes: list[str]
    rate_limits: dict[str, str] = Field(..., description="Route or `*` to rate, such as `600/minute`.")
    created_by: str
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None
    revoked_at: Timestamp | None


class KeyPage(ListPage):
    """A page of keys, the newest first."""

    data: list[KeyDetail]


class IssuedKey(KeyDetail):
    """An API key with its secret."""

    key: str | None = Field(..., description="The secret, shown once; null in the answer to a repeated request.")


class TenantQuotas(ResponseModel):
    """Limits of a tenant; null means no limit."""

    max_open_jobs: int | None
    max_documents: int | None
    max_bytes: int | None


class TenantSummary(ResponseModel):
    """A tenant, as lists show it."""

    id: str
    title: str
    quotas: TenantQuotas
    created_at: Timestamp
    disabled_at: Timestamp | None


class TenantPage(ListPage):
    """A page of tenants by name."""

    data: list[TenantSummary]


class TenantDetail(TenantSummary):
    """A tenant and the amounts it holds."""

    used: HeldAmounts


class AuditLogEntry(ResponseModel):
    """One action of an administrator."""

    id: Number
    at: Timestamp
    tenant: str
    actor: str = Field(..., description="The id of a key, or `secret` for the API secret.")
    action: str
    subject: str
    details: JsonObject
    request_id: str | None


class AuditLogPage(ListPage):
    """A page of audit entries, the newest first."""

    data: list[AuditLogEntry]


class WebhookSecret(ResponseModel):
    """The secrets that verify webhooks; while a change is under way the former ones sign as well."""

    secret: str
    former: list[str]
