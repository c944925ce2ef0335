"""Scraped pages kept for a while: one for each tenant and set of wishes, the newest in place of the one before."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.sources.models import ScrapedPage

MAX_AGE = timedelta(days=365)
# What a page's life so far says of it stays when it is scraped again.
_KEPT = {"id", "tenant", "cache_key", "access_count", "last_accessed_at"}


def age(max_age_ms: int) -> timedelta:
    """A caller's greatest age, as long as there can be one."""
    return min(timedelta(milliseconds=min(max_age_ms, 2**40)), MAX_AGE)


def find(session: Session, tenant: str, cache_key: str, max_age_ms: int) -> ScrapedPage | None:
    """The page, where it is younger than its reader allows; how long its writer meant it to live does not count."""
    return session.scalars(
        sa.select(ScrapedPage).where(
            ScrapedPage.tenant == tenant,
            ScrapedPage.cache_key == cache_key,
            ScrapedPage.scraped_at > clock.now() - age(max_age_ms),
        )
    ).one_or_none()


def count_access(session: Session, page_id: int) -> None:
    counted = {"access_count": ScrapedPage.access_count + 1, "last_accessed_at": clock.now()}
    session.execute(sa.update(ScrapedPage).where(ScrapedPage.id == page_id).values(counted))


def store(session: Session, page: ScrapedPage) -> None:
    """Keep the page; of two that were scraped at once the one that was written last."""
    columns = [column.name for column in sa.inspect(ScrapedPage).columns if column.name != "id"]
    values = {name: getattr(page, name) for name in columns} | {"access_count": 0}
    statement = sql.insert(sql.dialect_of(session), ScrapedPage).values(values)
    fresh = {name: statement.excluded[name] for name in columns if name not in _KEPT}
    session.execute(statement.on_conflict_do_update(index_elements=["tenant", "cache_key"], set_=fresh))
