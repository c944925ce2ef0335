"""Kinds of job that keep the house, and when they run."""

from __future__ import annotations

from app.jobs.definition import Job
from app.jobs.schedules.store import Schedule


class Sweep(Job, kind="retention.sweep", queue="bulk", time_limit_s=3600, retry_delays=(60.0, 600.0)):
    """Delete what has aged out."""


class CheckLedger(Job, kind="ledger.check", queue="bulk", time_limit_s=600, retry_delays=(60.0, 600.0)):
    """Find what should not be in the ledger, and mend it."""


Schedule("retention", Sweep(), cron="23 * * * *")
Schedule("ledger check", CheckLedger(), cron="*/30 * * * *")
