"""When the index outside of SQL is looked after by itself; the embedded one needs none of it."""

from __future__ import annotations

from app.core.settings import get_settings
from app.jobs.schedules.store import Schedule
from app.search.jobs import FollowIndex, VerifyIndex

# Each change asks for its own following; these find what no change tells of: an index that was lost, or restored.
if get_settings().search_engine != "embedded":
    Schedule("search index", FollowIndex(), every_s=60)
    Schedule("search index check", VerifyIndex(repair=True), cron="40 3 * * *")
