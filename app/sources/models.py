"""Tables of sources: deliveries as they came, crawls, changes of pages and the watches that tell of them,
scraped pages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base, BigId, JsonColumn, UtcDateTime
from app.jobs.models import JobId


class Delivery(Base):
    """One event as its sender delivered it, and what it was answered; the same bytes again are the same delivery.

    outcome: accepted (jobs were made), acknowledged (there was nothing to do), refused (it is no event of ours).
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
    # The bytes as text, or where they are too many for a row, as a blob.
    body: Mapped[str | None] = mapped_column(sa.Text)
    blob_key: Mapped[str | None] = mapped_column(sa.String(64))
    size_bytes: Mapped[int]
    crawl_id: Mapped[str | None] = mapped_column(sa.String(255))
    outcome: Mapped[str] = mapped_column(sa.String(16))
    answer: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    jobs: Mapped[int]
    # {url, error} of each page that could not be taken, or had failed already; None where there is none.
    failures: Mapped[list[dict[str, Any]] | None] = mapped_column(JsonColumn)
    repeats: Mapped[int] = mapped_column(default=0, server_default="0")
    request_id: Mapped[str | None] = mapped_column(sa.String(128))
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    replayed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class CrawlSession(Base):
    """A crawl or another run of a sender, as its events tell it. Counts are read where they are true, not kept."""

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
    # Of a crawl of ours that Firecrawl does: its id there; of one that was passed on: the same as ours.
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
    # Of another's crawl: when Firecrawl was last asked after it.
    checked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    # Of a crawl of ours: its job.
    job_id: Mapped[str | None] = mapped_column(sa.String(36))


class ChangeEvent(Base):
    """A change of a page, as somebody told of it, a look at the history found it or another system had kept it, and
    what came of it.

    state: queued, in_progress, then indexed, unchanged, superseded (a newer change was processed), failed or
    cancelled; ignored where nobody wants to hear of the page any more. origin: webhook, reconcile, or
    import, which has no job: what came of it elsewhere is its state, its reason, and its end where that is known.
    """

    __tablename__ = "change_event"
    __table_args__ = (
        # The same snapshot of the same watch is the same change; without a key nobody can tell.
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
    # Of what is the same row in the system that it was moved from, told by its id, watch, page and time there.
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
    """The watch that a page has, or is to have, at changedetection.io; it outlives its page until it is removed.

    state: wanted, present, unwanted (to be removed there), removed (and not to be made again by itself), failed.
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
    # Whether the watch was made here; another's is not removed with the page. Without an id: it may have been made.
    is_ours: Mapped[bool] = mapped_column(default=False)
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ScrapedPage(Base):
    """A page as it was scraped, for whoever asks for it with the same wishes; swept when it expires."""

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
    """A page that a crawl of ours has found, and how far it came.

    state: found, taken (its document is indexed by a child of the crawl), failed, skipped (it may not be read, or is
    no text).
    """

    __tablename__ = "crawl_page"
    __table_args__ = (
        sa.Index("uq_crawl_page", "crawl_id", "url_key", unique=True),
        sa.Index("ix_crawl_page_next", "crawl_id", "state", "tries", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    crawl_id: Mapped[str] = mapped_column(JobId, sa.ForeignKey("job.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(sa.Text)
    # Of the canonical address, which may be too long for an index.
    url_key: Mapped[str] = mapped_column(sa.String(64))
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
