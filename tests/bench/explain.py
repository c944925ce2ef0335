"""Duration of "why is this job where it is" with a hundred thousand queued jobs and concurrent writers."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import database
from app.core.ids import uuid7
from app.jobs.inspect.explain import explain
from app.jobs.inspect.reason import Services
from app.jobs.ledger import claims as ledger
from app.jobs.ledger import workers
from app.jobs.ledger.ends import End, finish
from app.jobs.ledger.enqueue import enqueue_many
from app.jobs.models import JOB
from tests.bench.rig import DATABASES, rig
from tests.bench.table import Row, quantile
from tests.support.kinds import Noop

QUEUED = 100_000
RUNNING = 2_000
ASKED = 400
FEW = 1_000
REACH_MS = (10.0, 50.0)


def rows() -> list[Row]:
    return [_row(kind) for kind in DATABASES]


def _row(kind: str) -> Row:
    with rig(kind):
        ids = _fill()
        stop = threading.Event()
        writer = threading.Thread(target=_write, args=(stop,), daemon=True)
        writer.start()
        took = [_ask(ids[number * len(ids) // ASKED]) for number in range(ASKED)]
        stop.set()
        writer.join(30)
    p50, p99 = (1000 * quantile(took, share) for share in (0.5, 0.99))
    what = f"explain, {QUEUED:,} jobs queued, beside writers, p50 / p99, {kind}"
    reach = f"{REACH_MS[0]:g} / {REACH_MS[1]:g} ms"
    return Row("", what, f"{p50:.1f} / {p99:.1f} ms", "–", reach, p50 <= REACH_MS[0] and p99 <= REACH_MS[1])


def _fill() -> list[str]:
    """Jobs in the states that cost most to explain; ids of some of them."""
    now, worker_id = clock.now(), uuid7()
    database().transaction(workers.register, worker_id, ["default"], RUNNING, None)
    common = {"tenant": "default", "kind": Noop.kind, "payload": {}, "queue": "default", "created_at": now}
    common |= {"due_at": now, "max_tries": 4}
    running = {"state": "running", "worker_id": worker_id, "fence": 1, "claimed_at": now, "started_at": now}
    retrying = {"state": "retrying", "due_at": now + timedelta(hours=1), "error_type": "E", "error_message": "m"}
    made: list[str] = []
    groups: list[tuple[dict[str, Any], int]] = [({"state": "queued"}, QUEUED), (running, RUNNING), (retrying, FEW)]
    for values, count in [*groups, ({"state": "failed"}, FEW)]:
        batch = [{**common, **values, "id": uuid7()} for _ in range(count)]
        for start in range(0, count, 5000):
            database().transaction(_insert, batch[start : start + 5000])
        made += [str(row["id"]) for row in batch[-FEW:]]
    if database().dialect == "postgresql":
        with database().engine.connect() as connection:
            connection.execute(sa.text("ANALYZE"))
            connection.commit()
    return made


def _insert(session: Session, part: list[dict[str, Any]]) -> None:
    session.execute(sa.insert(JOB), part)


def _ask(job_id: str) -> float:
    began = time.perf_counter()
    database().read(explain, "default", job_id, Services())
    return time.perf_counter() - began


def _write(stop: threading.Event) -> None:
    """Enqueue, claim and finish, as a busy worker does."""
    worker_id = uuid7()
    database().transaction(workers.register, worker_id, ["bulk"], 32, None)
    while not stop.is_set():
        made = database().transaction(enqueue_many, [Noop(number=number) for number in range(50)], tenant="default")
        claims = database().transaction(ledger.claim, [row.id for row in made], worker_id)
        ends = [End(c.id, c.fence, c.kind, "succeeded", "succeeded", c.tries, clock.now()) for c in claims]
        if ends:
            database().transaction(finish, ends)
