"""Ends of jobs that somebody wants to hear of: the delivery is a job itself, written with the end it tells of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, metrics
from app.core.ids import uuid7
from app.jobs.admission import push
from app.jobs.definition import Job
from app.jobs.models import JOB
from app.jobs.states import ENDED
from app.jobs.transition import Moved


class TellWebhook(
    Job,
    kind="deliveries.webhook",
    queue="fetch",
    time_limit_s=90,
    # After the first try; together with it three days.
    retry_delays=(5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0),
):
    """Tell `url` that the job has ended in `state`, at a moment in RFC 3339."""

    job_id: str
    url: str
    state: str
    at: str


def tell_ends(session: Session, moved: Iterable[Moved]) -> None:
    """Enqueue a delivery for each of these that has ended and has a webhook."""
    rows = [_row(move, move.webhook_url) for move in moved if move.webhook_url is not None and move.state in ENDED]
    if not rows:
        return
    # Not by `enqueue`, which stands on the ledger that calls this; a relay lets them into the window, in fair order.
    session.execute(sa.insert(JOB), rows)
    metrics.JOBS_ENQUEUED.labels(TellWebhook.kind, TellWebhook.queue).inc(len(rows))
    push.wake_relay_after_commit(session)


def _row(move: Moved, url: str) -> dict[str, Any]:
    now = clock.now()
    at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "id": uuid7(),
        "tenant": move.tenant,
        "kind": TellWebhook.kind,
        "payload": TellWebhook(job_id=move.id, url=url, state=move.state, at=at).model_dump(),
        "queue": TellWebhook.queue,
        "state": "queued",
        "max_tries": len(TellWebhook.retry_delays or ()) + 1,
        "due_at": now,
        "created_at": now,
    }
