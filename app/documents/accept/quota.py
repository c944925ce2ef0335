"""Enforce a tenant's quotas in the transaction that adds something, so that they hold exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.orm import Session

from app.documents import catalog
from app.jobs.admission import quota as counts
from app.tenants import quotas
from app.tenants.quotas import Amounts

P = ParamSpec("P")
T = TypeVar("T")
# More than one transaction adds; above the quota the exact number does not matter.
MARGIN = 2000


def within(
    session: Session, owner: str, f: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return the result of f. Raises LimitReached (429) or Conflict (409) if f exceeds a quota; its writes are rolled
    back."""
    quota = quotas.of(session, owner, lock=True)
    if quota is None:
        return f(session, *args, **kwargs)
    before = used(session, owner, quota)
    with session.begin_nested():
        result = f(session, *args, **kwargs)
        session.flush()
        quotas.check(quota, before, used(session, owner, quota))
    return result


def used(session: Session, tenant: str, quota: Amounts) -> Amounts:
    """Return the tenant's use of each thing that has a quota."""
    most = None if quota.open_jobs is None else quota.open_jobs + MARGIN
    return Amounts(
        open_jobs=None if most is None else counts.open_jobs(session, tenant, up_to=most),
        documents=None if quota.documents is None else catalog.count(session, tenant),
        bytes=None if quota.bytes is None else catalog.stored_bytes(session, tenant),
    )


def usage(session: Session, tenant: str) -> dict[str, dict[str, int | None]]:
    """Return quotas and use as the API shows them."""
    quota = quotas.of(session, tenant) or Amounts()
    everything = Amounts(
        counts.open_jobs(session, tenant), catalog.count(session, tenant), catalog.stored_bytes(session, tenant)
    )
    return {"quotas": quota.view(), "used": everything.view()}
