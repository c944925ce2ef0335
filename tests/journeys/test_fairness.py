"""A noisy tenant does not hold up a quiet one, and a paused queue starts nothing, however much waits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import clock
from app.core.db import database
from app.jobs.ledger.enqueue import enqueue, enqueue_many
from app.jobs.models import JobRow
from tests.journeys.conftest import Ledger
from tests.support.kinds import Sleep
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

SLOTS = 8  # of the stack's worker


def _count(*conditions: Any) -> int:
    query = sa.select(sa.func.count()).select_from(JobRow).where(*conditions)
    return int(database().read(lambda session: session.scalar(query)) or 0)


def _started(tenant: str, after: datetime, before: datetime) -> int:
    return _count(JobRow.tenant == tenant, JobRow.claimed_at > after, JobRow.claimed_at < before)


def _until_succeeded(more: int, what: str) -> None:
    goal = _count(JobRow.state == "succeeded") + more
    wait_until(lambda: _count(JobRow.state == "succeeded") >= goal, timeout_s=60, what=what)


def test_a_noisy_tenant_and_a_paused_queue(stack: Stack, ledger: Ledger) -> None:
    stack.start(workers=1)
    noise = [Sleep(seconds=0.2, steps=1) for _ in range(3000)]
    database().transaction(enqueue_many, noise, tenant="noisy")
    _until_succeeded(2 * SLOTS, "the noisy tenant's jobs to run")

    for _ in range(3):
        asked_at = clock.now()
        quiet = database().transaction(enqueue, Sleep(seconds=0.2, steps=1), tenant="quiet").id
        row = ledger.wait(quiet, "succeeded", timeout_s=60)
        assert row.claimed_at is not None
        # Two job lengths at most, counted in the starts of others, which no slow machine makes more.
        assert _started("noisy", asked_at, row.claimed_at) <= 2 * SLOTS

    assert stack.post("/api/queues/default/pause", {"reason": "a test"}).status_code == 200
    wait_until(lambda: _count(JobRow.state == "running") == 0, timeout_s=60, what="what runs to end")
    still_at = clock.now()
    late = database().transaction(enqueue, Sleep(seconds=0.01, steps=1), tenant="quiet").id
    stack.client.post("/api/queues/default/pause")
    (shown,) = [queue for queue in stack.client.get("/api/queues").json()["data"] if queue["name"] == "default"]
    assert shown["paused"] is not None
    assert (shown["running"], shown["workers"], shown["slots"]) == (0, 1, SLOTS)
    assert shown["queued"] > 1000
    assert ledger.state(late) == "queued"
    resumed_at = clock.now()
    assert stack.post("/api/queues/default/resume", None).json()["paused"] is None
    _until_succeeded(4 * SLOTS, "jobs to run again")
    ledger.wait(late, "succeeded", timeout_s=60)
    assert _count(JobRow.claimed_at > still_at, JobRow.claimed_at < resumed_at) == 0
