"""Every way in which a job can end tells its webhook, in the transaction of the end, once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import clock
from app.jobs.ledger import child_moves, commands, ends, timers
from app.jobs.ledger import claims as book
from app.jobs.ledger.end_webhooks import DeliverWebhook
from app.jobs.models import JobRow
from tests.unit.jobs.conftest import WORKER, Ledger, end_of

URL = "https://shop.example/hook"


def told(ledger: Ledger) -> list[dict[str, Any]]:
    """The payloads of the deliveries, in the order of their making."""
    query = sa.select(JobRow).where(JobRow.kind == DeliverWebhook.kind).order_by(JobRow.id)
    rows = ledger.db.read(lambda session: list(session.scalars(query)))
    assert all((row.state, row.tenant, row.queue, row.max_tries) == ("queued", "default", "fetch", 10) for row in rows)
    return [row.payload for row in rows]


def states(ledger: Ledger) -> list[tuple[str, str]]:
    return [(payload["job_id"], payload["state"]) for payload in told(ledger)]


def claimed(ledger: Ledger, **values: Any) -> str:
    job_id = ledger.put(**{"webhook_url": URL, **values})
    assert ledger.db.transaction(book.claim, [job_id], WORKER)
    return job_id


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_run_that_ends_tells_of_it(ledger_of: Ledger, state: Any) -> None:
    job_id, silent = claimed(ledger_of), claimed(ledger_of, webhook_url=None)
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, state), end_of(silent, 1, state)])
    (payload,) = told(ledger_of)
    assert (payload["job_id"], payload["url"], payload["state"]) == (job_id, URL, state)
    assert payload["at"].endswith("Z")
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, state)])
    assert len(told(ledger_of)) == 1


@pytest.mark.parametrize("state", ["retrying", "queued"])
def test_a_run_that_does_not_end_the_job_tells_nothing(ledger_of: Ledger, state: Any) -> None:
    job_id = claimed(ledger_of)
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, state, due_at=clock.now())])
    assert told(ledger_of) == []


def test_an_end_that_is_written_without_on_end_is_told_as_well(ledger_of: Ledger) -> None:
    job_id = claimed(ledger_of)
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, "failed")], call_on_end=False)
    assert states(ledger_of) == [(job_id, "failed")]


def test_a_cancel_an_expiry_and_a_death_are_told(ledger_of: Ledger) -> None:
    cancelled = ledger_of.put(webhook_url=URL)
    ledger_of.db.transaction(commands.cancel, "default", cancelled)
    expired = ledger_of.put(webhook_url=URL, expires_at=clock.now() - timedelta(seconds=1))
    ledger_of.db.transaction(timers.expire, 10)
    values = {"state": "running", "fence": 3, "worker_id": WORKER, "started_at": clock.now(), "webhook_url": URL}
    poison, alive = ledger_of.put(crashes=2, **values), ledger_of.put(crashes=0, **values)
    ledger_of.db.transaction(ends.free, WORKER, "killed")
    assert states(ledger_of) == [(cancelled, "cancelled"), (expired, "failed"), (poison, "failed")]
    assert ledger_of.row(alive).state == "queued"


def test_a_child_that_follows_its_parent_is_told(ledger_of: Ledger) -> None:
    parent = ledger_of.put(state="waiting", children=1, open_children=1, family_rule="all", webhook_url=URL)
    child = ledger_of.put(parent_id=parent, child_index=0, webhook_url=URL)
    ledger_of.db.transaction(commands.cancel, "default", parent)
    ledger_of.db.transaction(child_moves.cancel_children)
    assert states(ledger_of) == [(parent, "cancelled"), (child, "cancelled")]


def test_an_end_that_is_rolled_back_tells_nothing(ledger_of: Ledger) -> None:
    job_id = claimed(ledger_of)

    def finish_and_fail(session: Any) -> None:
        ends.finish(session, [end_of(job_id, 1, "succeeded")])
        raise RuntimeError("the end is not written")

    with pytest.raises(RuntimeError):
        ledger_of.db.transaction(finish_and_fail)
    assert (told(ledger_of), ledger_of.row(job_id).state) == ([], "running")
