"""Tables of sources: deliveries, crawls, changes of pages and their watches, scraped pages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base, BigId, JsonColumn, UtcDateTime
from app.jobs.models import JobId


class Delivery(Base):
    """One event as its source delivered it, and the response; the same bytes again are the same delivery.

    outcome: accepted (jobs were enqueued), acknowledged (nothing to do), refused (not an event of ours).
    """

    __tablename__ = "intake_delivery"
    __table_args__ = (
        sa.Index("uq_intake_delivery", "tenant", "source", "digest", unique=True),
        sa.Index("ix_intake_delivery_received", "received_at"),
        sa.Index("ix_intake_delivery_blob", "blob_key"),
        sa.Index("ix_intake_delivery_crawl", "tenant", "crawl_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    source: Mapped[str] = mapped_column(sa.String(32))
    event_type: Mapped[str] = mapped_column(sa.String(64))
    digest: Mapped[str] = mapped_column(sa.String(64))
    # The body as text; a body too large for a row is a blob.
    body: Mapped[str | None] = mapped_column(sa.Text)
    blob_key: Mapped[str | None] = mapped_column(sa.String(64))
    size_bytes: Mapped[int]
    crawl_id: Mapped[str | None] = mapped_column(sa.String(255))
    outcome: Mapped[str] = mapped_column(sa.String(16))
    answer: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    jobs: Mapped[int]
    # {url, error} of each page that was refused or had failed, or None.
    failures: Mapped[list[dict[str, Any]] | None] = mapped_column(JsonColumn)
    repeats: Mapped[int] = mapped_column(default=0, server_default="0")
    request_id: Mapped[str | None] = mapped_column(sa.String(128))
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    replayed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class CrawlSession(Base):
    """A crawl or another run of a source, as its events report it. Page counts are not stored but counted."""

    __tablename__ = "crawl_session"
    __table_args__ = (
        sa.Index("uq_crawl_session", "tenant", "crawl_id", unique=True),
        sa.Index("ix_crawl_session_remote", "remote_id"),
        sa.Index("ix_crawl_session_crawl", "crawl_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    crawl_id: Mapped[str] = mapped_column(sa.String(255))
    # Firecrawl's id of a crawl that we started there; for a forwarded request the same as crawl_id.
    remote_id: Mapped[str | None] = mapped_column(sa.String(255))
    operation: Mapped[str] = mapped_column(sa.String(32))
    state: Mapped[str] = mapped_column(sa.String(16))
    base_url: Mapped[str | None] = mapped_column(sa.Text)
    success: Mapped[bool | None]
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    extra: Mapped[dict[str, Any]] = mapped_column(JsonColumn, default=dict)
    initiated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # For a crawl that we did not start: the time of the last status request to Firecrawl.
    checked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # The job of a crawl that we started.
    job_id: Mapped[str | None] = mapped_column(sa.String(36))


class ChangeEvent(Base):
    """A change of a page, from a notification, a watch's history or another system, and its result.

    state: queued, in_progress, then indexed, unchanged, superseded (a newer change was processed), failed or
    cancelled; ignored if the page is no longer watched. origin: webhook, reconcile, or import. An imported change has
    no job; its state, reason and end are those of the other system.
    """

    __tablename__ = "change_event"
    __table_args__ = (
        # The same snapshot of the same watch is the same change; without a key repeats cannot be detected.
        sa.Index("uq_change_event", "tenant", "watch_id", "history_key", unique=True),
        sa.Index("uq_change_event_import", "tenant", "import_key", unique=True),
        sa.Index("ix_change_event_tenant", "tenant", "id"),
        sa.Index("ix_change_event_document", "document_id", "id"),
        sa.Index("ix_change_event_received", "received_at"),
        sa.Index("ix_change_event_watch", "watch_id", "history_key"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    origin: Mapped[str] = mapped_column(sa.String(16))
    # Identifies the row in the system it was imported from: a hash of its id, watch, page and time there.
    import_key: Mapped[str | None] = mapped_column(sa.String(64))
    watch_id: Mapped[str | None] = mapped_column(sa.String(255))
    history_key: Mapped[int | None] = mapped_column(BigId)
    url: Mapped[str] = mapped_column(sa.Text)
    document_id: Mapped[int | None] = mapped_column(BigId)
    title: Mapped[str | None] = mapped_column(sa.Text)
    summary: Mapped[str | None] = mapped_column(sa.Text)
    diff_url: Mapped[str | None] = mapped_column(sa.Text)
    state: Mapped[str] = mapped_column(sa.String(16))
    job_id: Mapped[str | None] = mapped_column(sa.String(36))
    version_id: Mapped[int | None] = mapped_column(BigId)
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    extra: Mapped[dict[str, Any]] = mapped_column(JsonColumn, default=dict)
    detected_at: Mapped[datetime] = mapped_column(UtcDateTime)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PageWatch(Base):
    """The existing or requested watch of a page at changedetection.io; outlives its page until it is deleted there.

    state: wanted, present, unwanted (to be deleted there), removed (and not created again automatically), failed.
    """

    __tablename__ = "page_watch"
    __table_args__ = (
        sa.Index("uq_page_watch_document", "document_id", unique=True),
        sa.Index("ix_page_watch_tenant", "tenant", "id"),
        sa.Index("ix_page_watch_watch", "watch_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    document_id: Mapped[int] = mapped_column(BigId)
    url: Mapped[str] = mapped_column(sa.Text)
    watch_id: Mapped[str | None] = mapped_column(sa.String(64))
    state: Mapped[str] = mapped_column(sa.String(16))
    # True if we created the watch; others are not deleted with the page. True without an id: possibly created.
    is_ours: Mapped[bool] = mapped_column(default=False)
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ScrapedPage(Base):
    """A scraped page, cached for requests with the same options; swept when it expires."""

    __tablename__ = "scrape_cache"
    __table_args__ = (
        sa.Index("uq_scrape_cache", "tenant", "cache_key", unique=True),
        sa.Index("ix_scrape_cache_expires", "expires_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    cache_key: Mapped[str] = mapped_column(sa.String(64))
    url: Mapped[str] = mapped_column(sa.Text)
    source: Mapped[str] = mapped_column(sa.String(32))
    raw: Mapped[str | None] = mapped_column(sa.Text)
    cleaned: Mapped[str | None] = mapped_column(sa.Text)
    content_type: Mapped[str | None] = mapped_column(sa.String(64))
    screenshot: Mapped[str | None] = mapped_column(sa.Text)
    screenshot_format: Mapped[str | None] = mapped_column(sa.String(64))
    scraped_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    access_count: Mapped[int] = mapped_column(default=0, server_default="0")
    last_accessed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class CrawlPage(Base):
    """A page found by a crawl of ours, and its state.

    state: found, taken (a child of the crawl indexes its document), failed, skipped (forbidden, or not text), or
    redirected (the page at the address in `error_message` has its text; by the page's own word, if `error_code` is
    canonical).
    """

    __tablename__ = "crawl_page"
    __table_args__ = (
        sa.Index("uq_crawl_page", "crawl_id", "url_key", unique=True),
        sa.Index("ix_crawl_page_next", "crawl_id", "state", "tries", "id"),
        sa.Index("ix_crawl_page_pattern", "crawl_id", "pattern"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    crawl_id: Mapped[str] = mapped_column(JobId, sa.ForeignKey("job.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(sa.Text)
    # Hash of the canonical URL, which may be too long for an index.
    url_key: Mapped[str] = mapped_column(sa.String(64))
    # Hash of its pattern, if its site may have endless pages of it.
    pattern: Mapped[str | None] = mapped_column(sa.String(64))
    depth: Mapped[int]
    state: Mapped[str] = mapped_column(sa.String(16))
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    # Its number among the crawl's children, once taken.
    number: Mapped[int | None]
    document_id: Mapped[int | None] = mapped_column(BigId)
    version_id: Mapped[int | None] = mapped_column(BigId)
    error_code: Mapped[str | None] = mapped_column(sa.String(64))
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
