"""Schedules that maintain the index: terms of another analyzer, and an index outside of SQL."""

from __future__ import annotations

from app.core.settings import get_settings
from app.jobs.schedules.store import Schedule
from app.search.jobs import FollowIndex, ReanalyzeDocuments, VerifyIndex

# A worker asks for it when it starts; this also finds what a worker of an earlier version wrote since.
Schedule("search analysis", ReanalyzeDocuments(), cron="47 * * * *")

# Each change queues a follow job; these schedules detect a lost or restored index, which no change reports.
if get_settings().search_engine != "embedded":
    Schedule("search index", FollowIndex(), every_s=60)
    Schedule("search index check", VerifyIndex(repair=True), cron="40 3 * * *")
