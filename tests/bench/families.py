"""Cost of children: a parent with 10,000 no-op children, compared with as many jobs without a parent.

python -m tests.bench.families [sqlite | postgresql]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import database
from app.jobs.definition import Job
from app.jobs.ledger.enqueue import enqueue, enqueue_many
from app.jobs.models import JobRow
from app.jobs.states import ENDED
from tests.bench.family_kinds import BATCH, Crowd
from tests.bench.rig import DATABASES, rig
from tests.bench.table import Row, markdown
from tests.support.kinds import Noop
from tests.support.waiting import wait_until

CHILDREN = 10_000
MODULES = {"MILLRACE_MODULES": "tests.support.kinds,tests.bench.family_kinds", "MILLRACE_WORKER_THREADS": "8"}
# Workers that have just started also warm their sandboxes.
WARM_S = 5


def _open(session: Session) -> int:
    return int(session.scalar(sa.select(sa.func.count()).where(JobRow.state.not_in(ENDED))) or 0)


def _quiet() -> None:
    wait_until(lambda: database().read(_open) == 0, timeout_s=120, what="all jobs to end", poll_s=0.1)


def _alone(jobs: Sequence[Job]) -> float:
    """Seconds until these jobs have ended."""
    began = time.perf_counter()
    for first in range(0, len(jobs), BATCH):
        database().transaction(enqueue_many, jobs[first : first + BATCH], tenant="bench")
    _quiet()
    return time.perf_counter() - began


def _family() -> float:
    """Seconds until the parent has ended, with all results read."""
    began = time.perf_counter()
    job_id = database().transaction(lambda session: enqueue(session, Crowd(children=CHILDREN), tenant="bench").id)
    _quiet()
    seconds = time.perf_counter() - began
    row = database().read(lambda session: session.get(JobRow, job_id))
    assert row is not None
    assert row.result == {"read": CHILDREN}, row.result
    return seconds


def measure(kind: str) -> Row:
    with rig(kind, MODULES) as here:
        here.stack.start(workers=2, relay=True, api=False)
        time.sleep(WARM_S)
        alone_s = _alone([Noop(number=number) for number in range(CHILDREN)])
        family_s = _family()
    ours = (
        f"{family_s:.1f} s, {1000 * (family_s - alone_s) / CHILDREN:.2f} ms a child more ({family_s / alone_s:.2f} x)"
    )
    peer = f"{alone_s:.1f} s without a parent"
    return Row(
        "", f"a family of {CHILDREN:,} no-ops, results read, {kind}", ours, peer, "≤ 1.5 x", family_s <= 1.5 * alone_s
    )


def rows() -> list[Row]:
    return [measure(kind) for kind in DATABASES]


if __name__ == "__main__":
    print(markdown([measure(kind) for kind in sys.argv[1:] or DATABASES]))
