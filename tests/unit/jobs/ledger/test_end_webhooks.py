"""Every end of a job enqueues one webhook delivery, in the transaction of the end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import clock
from app.jobs.ledger import child_moves, claims, commands, ends, timers
from app.jobs.ledger.end_webhooks import DeliverWebhook
from app.jobs.models import JobRow
from tests.unit.jobs.conftest import WORKER, Ledger, end_of

URL = "https://shop.example/hook"


def deliveries(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the payloads of the deliveries, the oldest first."""
    query = sa.select(JobRow).where(JobRow.kind == DeliverWebhook.kind).order_by(JobRow.id)
    rows = ledger.db.read(lambda session: list(session.scalars(query)))
    assert all((row.state, row.tenant, row.queue, row.max_tries) == ("queued", "default", "fetch", 10) for row in rows)
    return [row.payload for row in rows]


def states(ledger: Ledger) -> list[tuple[str, str]]:
    return [(payload["job_id"], payload["state"]) for payload in deliveries(ledger)]


def claim_job(ledger: Ledger, **values: Any) -> str:
    job_id = ledger.put(**{"webhook_url": URL, **values})
    assert ledger.db.transaction(claims.claim, [job_id], WORKER)
    return job_id


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_end_of_a_run_enqueues_one_delivery(ledger_of: Ledger, state: Any) -> None:
    job_id, silent = claim_job(ledger_of), claim_job(ledger_of, webhook_url=None)
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, state), end_of(silent, 1, state)])
    (payload,) = deliveries(ledger_of)
    assert (payload["job_id"], payload["url"], payload["state"]) == (job_id, URL, state)
    assert payload["at"].endswith("Z")
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, state)])
    assert len(deliveries(ledger_of)) == 1


@pytest.mark.parametrize("state", ["retrying", "queued"])
def test_run_that_does_not_end_the_job_enqueues_no_delivery(ledger_of: Ledger, state: Any) -> None:
    job_id = claim_job(ledger_of)
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, state, due_at=clock.now())])
    assert deliveries(ledger_of) == []


def test_end_without_on_end_enqueues_a_delivery(ledger_of: Ledger) -> None:
    job_id = claim_job(ledger_of)
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, "failed")], call_on_end=False)
    assert states(ledger_of) == [(job_id, "failed")]


def test_cancel_expiry_and_worker_death_enqueue_deliveries(ledger_of: Ledger) -> None:
    cancelled = ledger_of.put(webhook_url=URL)
    ledger_of.db.transaction(commands.cancel, "default", cancelled)
    expired = ledger_of.put(webhook_url=URL, expires_at=clock.now() - timedelta(seconds=1))
    ledger_of.db.transaction(timers.expire, 10)
    values = {"state": "running", "fence": 3, "worker_id": WORKER, "started_at": clock.now(), "webhook_url": URL}
    poison, alive = ledger_of.put(crashes=2, **values), ledger_of.put(crashes=0, **values)
    ledger_of.db.transaction(ends.free, WORKER, "killed")
    assert states(ledger_of) == [(cancelled, "cancelled"), (expired, "failed"), (poison, "failed")]
    assert ledger_of.row(alive).state == "queued"


def test_child_cancelled_with_its_parent_enqueues_a_delivery(ledger_of: Ledger) -> None:
    parent = ledger_of.put(state="waiting", children=1, open_children=1, family_rule="all", webhook_url=URL)
    child = ledger_of.put(parent_id=parent, child_index=0, webhook_url=URL)
    ledger_of.db.transaction(commands.cancel, "default", parent)
    ledger_of.db.transaction(child_moves.cancel_children)
    assert states(ledger_of) == [(parent, "cancelled"), (child, "cancelled")]


def test_rolled_back_end_enqueues_no_delivery(ledger_of: Ledger) -> None:
    job_id = claim_job(ledger_of)

    def finish_and_fail(session: Any) -> None:
        ends.finish(session, [end_of(job_id, 1, "succeeded")])
        raise RuntimeError("the end is not written")

    with pytest.raises(RuntimeError):
        ledger_of.db.transaction(finish_and_fail)
    assert (deliveries(ledger_of), ledger_of.row(job_id).state) == ([], "running")
