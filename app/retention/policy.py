"""Retention policy: the age at which each kind of data is deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.core.settings import get_settings

# An engine that has not followed for longer is rebuilt from the documents.
KEEP_CHANGES = timedelta(days=7)
# As long as a repeated request gets the answer of the first one.
KEEP_ANSWERS = timedelta(days=1)
# Refused requests of unknown callers.
KEEP_STRANGERS = timedelta(days=7)
# Rows that callers without a key, crawled sites and senders of webhooks cause; the oldest beyond are deleted.
MAX_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Policy:
    """The time before which each kind of data is deleted; None keeps it for ever. Names as in the sweep's result."""

    jobs: datetime | None
    failed_jobs: datetime | None
    log_lines: datetime | None
    schedule_ticks: datetime | None
    audit_entries: datetime | None
    idempotency_keys: datetime | None
    throttles: datetime | None
    changes: datetime | None
    deliveries: datetime | None
    request_metrics: datetime | None
    operation_metrics: datetime | None
    scraped_pages: datetime | None
    change_events: datetime | None
    stranger_metrics: datetime | None = None
    crawls: datetime | None = None

    @classmethod
    def at(cls, now: datetime) -> Policy:
        """Return the policy of the settings at this time."""
        settings = get_settings()
        return cls(
            jobs=_before(now, settings.job_days),
            failed_jobs=_before(now, settings.failed_job_days),
            log_lines=_before(now, settings.log_days),
            schedule_ticks=_before(now, settings.tick_days),
            audit_entries=_before(now, settings.audit_days),
            idempotency_keys=now - KEEP_ANSWERS,
            throttles=now,
            changes=now - KEEP_CHANGES,
            deliveries=_before(now, settings.intake_days),
            request_metrics=_before(now, settings.metrics_days),
            operation_metrics=_before(now, settings.metrics_days),
            scraped_pages=now,
            change_events=_before(now, settings.change_days),
            stranger_metrics=now - KEEP_STRANGERS,
            crawls=_before(now, settings.intake_days),
        )


def _before(now: datetime, days: int) -> datetime | None:
    return now - timedelta(days=days) if days else None
