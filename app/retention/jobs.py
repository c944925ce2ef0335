"""Kinds of job that delete old data and check the ledger, with their schedules."""

from __future__ import annotations

from app.jobs.definition import Job
from app.jobs.schedules.store import Schedule


class Sweep(Job, kind="retention.sweep", queue="bulk", time_limit_s=3600, retry_delays=(60.0, 600.0)):
    """Delete data older than the retention policy allows."""


class CheckLedger(Job, kind="ledger.check", queue="bulk", time_limit_s=600, retry_delays=(60.0, 600.0)):
    """Find inconsistent rows of the ledger, and repair them."""


Schedule("retention", Sweep(), cron="23 * * * *")
Schedule("ledger check", CheckLedger(), cron="*/30 * * * *")
