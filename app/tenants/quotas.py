"""Quotas of a tenant. Callers count the current use: this package knows neither jobs nor documents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.errors import JobQuotaReached, QuotaReached
from app.tenants.models import Tenant

TENANT = cast(sa.Table, Tenant.__table__)
# Runs for each request that adds something: built once.
_QUOTA = sa.select(TENANT.c.max_open_jobs, TENANT.c.max_documents, TENANT.c.max_bytes).where(
    TENANT.c.id == sa.bindparam("of")
)
# Jobs end without the caller, so a retry soon makes sense.
JOBS_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Amounts:
    """Amounts of a quota, where None is no limit; or of a use, where None was not counted."""

    open_jobs: int | None = None
    documents: int | None = None
    bytes: int | None = None

    def view(self) -> dict[str, int | None]:
        return asdict(self)


def of(session: Session, tenant_id: str, *, lock: bool = False) -> Amounts | None:
    """Return the tenant's quotas, None if it has none; `lock` serialises its requests until the commit."""
    quota = _asked(session, tenant_id, _QUOTA)
    return _asked(session, tenant_id, _QUOTA.with_for_update()) if quota is not None and lock else quota


def _asked(session: Session, tenant_id: str, query: sa.Select[Any]) -> Amounts | None:
    row = session.connection().execute(query, {"of": tenant_id}).one_or_none()
    return None if row is None or tuple(row) == (None, None, None) else Amounts(*row)


def check(quota: Amounts, before: Amounts, after: Amounts) -> None:
    """Raises JobQuotaReached for jobs, which end by themselves, QuotaReached for documents and bytes, which do not.

    Only an increase is refused: a tenant above a lowered quota may still replace and delete.
    """
    if _over(quota.open_jobs, before.open_jobs, after.open_jobs):
        message = f"the tenant may have {quota.open_jobs} open jobs at once"
        raise JobQuotaReached(message, JOBS_RETRY_S)
    if _over(quota.documents, before.documents, after.documents):
        raise QuotaReached(
            f"the tenant may have {quota.documents} documents; delete some first", code="quota_documents"
        )
    if _over(quota.bytes, before.bytes, after.bytes):
        raise QuotaReached(f"the tenant may store {quota.bytes} bytes; delete documents first", code="quota_bytes")


def _over(quota: int | None, before: int | None, after: int | None) -> bool:
    return quota is not None and after is not None and after > quota and after > (before or 0)
