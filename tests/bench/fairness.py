"""Row 11: ten thousand jobs of one tenant wait, and one of another comes.

python -m tests.bench.fairness [sqlite | postgresql]
"""

from __future__ import annotations

import sys
import time
from functools import partial

import sqlalchemy as sa

from app.core.db import database
from app.jobs.ledger.enqueue import enqueue, enqueue_many
from app.jobs.models import JobRow
from tests.bench.rig import DATABASES, Rig, rig
from tests.bench.table import Row, markdown, quantile
from tests.support.kinds import Sleep
from tests.support.waiting import wait_until

NOISE = 10_000
LENGTH_S = 0.2
ARRIVALS = 20
SLOTS = 8


def arrivals(here: Rig) -> list[float]:
    """Job lengths from the commit of each of the second tenant's jobs to its start."""
    here.stack.env["MILLRACE_WORKER_THREADS"] = str(SLOTS)
    here.stack.start(workers=1, relay=True, api=False)
    noise = [Sleep(seconds=LENGTH_S, steps=1) for _ in range(NOISE)]
    database().transaction(enqueue_many, noise, tenant="noisy")
    wait_until(lambda: _ended() >= 5 * SLOTS, timeout_s=60, what="the first jobs to end")
    waits = []
    for _ in range(ARRIVALS):
        job_id = database().transaction(enqueue, Sleep(seconds=LENGTH_S, steps=1), tenant="quiet").id
        committed = time.time()
        waits.append(max(0.0, _start_of(job_id) - committed) / LENGTH_S)
        # The next one comes as the first did: to a tenant that has nothing there.
        wait_until(partial(_has_ended, job_id), timeout_s=60, what="the job to end")
    return waits


def _ended() -> int:
    query = sa.select(sa.func.count()).select_from(JobRow).where(JobRow.state == "succeeded")
    return int(database().read(lambda session: session.scalar(query)) or 0)


def _has_ended(job_id: str) -> bool:
    query = sa.select(JobRow.id).where(JobRow.id == job_id, JobRow.state == "succeeded")
    return database().read(lambda session: session.scalar(query)) is not None


def _start_of(job_id: str) -> float:
    """When the job started, once it has."""
    query = sa.select(JobRow.started_at).where(JobRow.id == job_id, JobRow.started_at.is_not(None))
    at = wait_until(lambda: database().read(lambda session: session.scalar(query)), timeout_s=60, what="the start")
    assert at is not None
    return at.timestamp()


def rows(kinds: tuple[str, ...] = DATABASES) -> list[Row]:
    results = []
    for kind in kinds:
        with rig(kind) as here:
            waits = arrivals(here)
        worst = max(waits)
        ours = f"p50 {quantile(waits, 0.5):.2f}, worst {worst:.2f} job lengths"
        results.append(Row("11", f"one of B behind {NOISE:,} of A, {kind}", ours, "–", "≤ 2 job lengths", worst <= 2))
    return results


if __name__ == "__main__":
    print(markdown(rows(tuple(sys.argv[1:]) or DATABASES)))
