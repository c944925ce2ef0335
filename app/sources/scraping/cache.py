"""Cache of scraped pages: the newest page for each tenant and set of options."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.sources.models import ScrapedPage

MAX_AGE = timedelta(days=365)
# Columns that keep their value when the page is scraped again.
_UNCHANGED = {"id", "tenant", "cache_key", "access_count", "last_accessed_at"}


def age(max_age_ms: int) -> timedelta:
    """Return the maximum age that a caller asks for, at most MAX_AGE."""
    return min(timedelta(milliseconds=min(max_age_ms, 2**40)), MAX_AGE)


def find(session: Session, tenant: str, cache_key: str, max_age_ms: int) -> ScrapedPage | None:
    """Return the page if it is younger than the reader's maximum age; its expiry time does not count."""
    return session.scalars(
        sa.select(ScrapedPage).where(
            ScrapedPage.tenant == tenant,
            ScrapedPage.cache_key == cache_key,
            ScrapedPage.scraped_at > clock.now() - age(max_age_ms),
        )
    ).one_or_none()


def count_access(session: Session, page_id: int) -> None:
    values = {"access_count": ScrapedPage.access_count + 1, "last_accessed_at": clock.now()}
    session.execute(sa.update(ScrapedPage).where(ScrapedPage.id == page_id).values(values))


def store(session: Session, page: ScrapedPage) -> None:
    """Store the page; of two scraped at once the last write wins."""
    columns = [column.name for column in sa.inspect(ScrapedPage).columns if column.name != "id"]
    values = {name: getattr(page, name) for name in columns} | {"access_count": 0}
    statement = sql.insert(sql.dialect_of(session), ScrapedPage).values(values)
    updates = {name: statement.excluded[name] for name in columns if name not in _UNCHANGED}
    session.execute(statement.on_conflict_do_update(index_elements=["tenant", "cache_key"], set_=updates))
