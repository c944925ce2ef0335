"""A minute of 10,000 schedules: how long the scheduler takes to start them all, and to see that none is due.

python -m tests.bench.schedules [sqlite | postgresql]
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import database
from app.jobs.models import ScheduleRow
from app.jobs.schedules import firing
from tests.bench.rig import DATABASES, rig
from tests.bench.table import Row, markdown
from tests.support.kinds import Noop

SCHEDULES = 10_000
TENANTS = 10
# All of them come then.
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LINES = (
    ("0 * * * *", "UTC"),
    ("0 13 * * *", "Europe/Berlin"),
    ("0 12 * * *", "UTC"),
    ("0 7 * * 1-5", "America/New_York"),
    ("*/5 * * * *", "Asia/Tokyo"),
)


def _make(session: Session) -> None:
    now = NOON - timedelta(hours=1)
    rows = [
        {
            "tenant": f"t{number % TENANTS}",
            "name": f"s{number}",
            "in_code": False,
            "kind": Noop.kind,
            "payload_version": 1,
            "payload": {"number": number},
            "cron": LINES[number % len(LINES)][0],
            "timezone": LINES[number % len(LINES)][1],
            "anchor_at": now,
            "catch_up": "once",
            "catch_up_limit": 1,
            "overlap": "queue",
            "next_at": NOON,
            "planned_at": now,
            "created_at": now,
            "updated_at": now,
        }
        for number in range(SCHEDULES)
    ]
    session.execute(sa.insert(ScheduleRow), rows)


def _tick(now: datetime) -> tuple[int, float, float]:
    """Return the number of jobs that a tick started, its seconds, and the CPU seconds of the scheduler among them."""
    began, cpu, started = time.perf_counter(), time.process_time(), 0
    database().transaction(firing.replan, now)
    while True:
        fired = database().transaction(firing.fire, now)
        started += fired.ticks["started"]
        if fired.schedules < firing.BATCH:
            return started, time.perf_counter() - began, time.process_time() - cpu


def measure(kind: str) -> Row:
    with rig(kind):
        database().transaction(_make)
        started, due_s, cpu_s = _tick(NOON + timedelta(seconds=1))
        again, idle_s, _ = _tick(NOON + timedelta(seconds=2))
        assert (started, again) == (SCHEDULES, 0), (started, again)
    what = f"{SCHEDULES:,} schedules due in one minute, {kind}"
    rate = f"{SCHEDULES / due_s:,.0f}/s, {cpu_s:.1f} s of CPU time"
    ours = f"started in {due_s:.1f} s ({rate}); with none due a tick takes {1000 * idle_s:.0f} ms"
    return Row("", what, ours, "–", "within the minute", due_s < 60)


def rows() -> list[Row]:
    return [measure(kind) for kind in DATABASES]


if __name__ == "__main__":
    print(markdown([measure(kind) for kind in sys.argv[1:] or DATABASES]))
