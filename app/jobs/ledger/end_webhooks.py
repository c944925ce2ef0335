"""Webhooks at the end of jobs: the delivery is a job, written in the transaction of the end."""

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


class DeliverWebhook(
    Job,
    kind="deliveries.webhook",
    queue="fetch",
    time_limit_s=90,
    # Three days in all.
    retry_delays=(5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0),
):
    """Report to `url` that the job ended in `state`; `at` is RFC 3339."""

    job_id: str
    url: str
    state: str
    at: str


def enqueue_webhooks(session: Session, moved: Iterable[Moved]) -> None:
    """Enqueue a delivery for each ended job that has a webhook."""
    rows = [_row(move, move.webhook_url) for move in moved if move.webhook_url is not None and move.state in ENDED]
    if not rows:
        return
    # Not by `enqueue`, which is a layer above. A relay admits them in fair order.
    session.execute(sa.insert(JOB), rows)
    metrics.JOBS_ENQUEUED.labels(DeliverWebhook.kind, DeliverWebhook.queue).inc(len(rows))
    push.wake_relay_after_commit(session)


def _row(move: Moved, url: str) -> dict[str, Any]:
    now = clock.now()
    at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "id": uuid7(),
        "tenant": move.tenant,
        "kind": DeliverWebhook.kind,
        "payload": DeliverWebhook(job_id=move.id, url=url, state=move.state, at=at).model_dump(),
        "queue": DeliverWebhook.queue,
        "state": "queued",
        "max_tries": len(DeliverWebhook.retry_delays or ()) + 1,
        "due_at": now,
        "created_at": now,
    }
