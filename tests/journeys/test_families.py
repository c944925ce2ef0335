"""A family of more than a thousand: a worker is killed in it, a child fails in it, and one like it is cancelled."""

from __future__ import annotations

from collections import Counter

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import database
from app.jobs.children import children as families
from app.jobs.children.pipeline import Pipeline
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from tests.journeys.conftest import TENANT, Ledger
from tests.support.chaos_kinds import EFFECT, Chain, Family
from tests.support.kinds import Fail
from tests.support.stack import Stack
from tests.support.waiting import wait_until
from tests.unit.api.streams.following import follow

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]

# Several pages of results, and more than is cut in one go.
MANY, CANCELLED = 1200, 600


def _states(parent_id: str) -> Counter[str]:
    query = sa.select(JobRow.state, sa.func.count()).where(JobRow.parent_id == parent_id).group_by(JobRow.state)
    return Counter(database().read(lambda session: dict(session.execute(query).all())))


def _effects(parent_id: str) -> tuple[int, int]:
    """Count the effects of the children, and the children that wrote one."""
    children = sa.select(sa.cast(JobRow.id, EFFECT.c.job_id.type)).where(JobRow.parent_id == parent_id)
    query = sa.select(sa.func.count(), sa.func.count(sa.distinct(EFFECT.c.job_id))).where(EFFECT.c.job_id.in_(children))

    def count(session: Session) -> tuple[int, int]:
        rows, jobs = session.execute(query).one()
        return rows, jobs

    return database().read(count)


def test_parent_with_more_than_a_thousand_children(stack: Stack, ledger: Ledger) -> None:
    """Every child is there once and did its work once; the parent goes on with their results, or is cancelled with
    them. Then a pipeline hands its results on, and one of whose steps fails goes no further."""
    stack.start(workers=2)
    parent = ledger.enqueue(Family(children=MANY, failing=1, allowed=1, pause_s=0.005))
    wait_until(lambda: _states(parent)["succeeded"] > 200, timeout_s=60, what="the family to be on its way")
    stack.workers[0].kill()
    with follow(stack.client, parent) as events:
        bars = [event.data["percent"] for event in events if event.data["attempt"] == 1 and event.data["percent"]]
    row = ledger.wait(parent, timeout_s=120)
    assert (row.state, row.result) == ("succeeded", {"succeeded": MANY - 1, "failed": 1})
    assert (row.children, row.open_children, row.failed_children, row.tries) == (MANY, 0, 1, 0)
    assert _effects(parent) == (MANY, MANY)
    assert ledger.outcomes(parent)[-2:] == ["waiting", "succeeded"]
    assert bars == sorted(bars)
    assert len(bars) > 3

    stack.workers[0].start()
    cancelled = ledger.enqueue(Family(children=CANCELLED, endless=True))
    wait_until(lambda: _states(cancelled)["running"] > 0, timeout_s=60, what="children that run")
    ledger.wait(cancelled, "waiting", timeout_s=60)
    assert stack.post(f"/api/jobs/{cancelled}/cancel", None).json()["state"] == "cancelled"
    wait_until(lambda: _states(cancelled) == {"cancelled": CANCELLED}, timeout_s=60, what="all children to follow")
    written = _effects(cancelled)
    assert written[0] == written[1] < CANCELLED
    assert stack.job(cancelled)["children"] == {
        "total": CANCELLED, "succeeded": 0, "failed": CANCELLED, "open": 0, "rule": "at_most:0",
    }  # fmt: skip

    first_id, second_id = database().transaction(_pipelines)
    assert ledger.wait(first_id).result == {"count": 3}
    assert (ledger.wait(second_id).state, ledger.row(second_id).error_code) == ("failed", "children_failed")
    assert [child.state for child in database().read(families.results_page, second_id)] == ["succeeded", "failed"]


def _pipelines(session: Session) -> tuple[str, str]:
    good = Pipeline.of(Chain(), Chain(), Chain())
    bad = Pipeline.of(Chain(), Fail(error="permanent"), Chain())
    return enqueue(session, good, tenant=TENANT).id, enqueue(session, bad, tenant=TENANT).id
