"""Two versions side by side: with the new schema, workers of both run the jobs that the new api accepts."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from app.core import schema
from app.core.db import database
from app.jobs.definition import Job
from app.jobs.models import JobRow
from tests.journeys.conftest import Ledger
from tests.support import earlier
from tests.support.kinds import Sleep
from tests.support.stack import REPOSITORY, Stack

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


class Novelty(Job, kind="tests.upgrade.novelty"):
    """A kind that only the new version knows."""


@pytest.fixture
def older_tree(tmp_path: Path) -> Path:
    """A tree of the version before, and that it is one for an older schema or a release."""
    commit = earlier.commit()
    if commit is None:
        pytest.skip("this copy has no history from which an earlier version could be had")
    folder = tmp_path / "older"
    earlier.unpack(commit, folder)
    return folder


def test_the_version_before_works_on_todays_schema(stack: Stack, ledger: Ledger, older_tree: Path) -> None:
    """Its worker does today's jobs, lets alone what it does not know, and drains without burning an attempt."""
    assert schema.current(database()) == schema.head()
    stack.start(workers=0)
    stack.cwd = older_tree
    old = stack.add_worker()
    page = stack.post("/api/documents", {"markdown": "# Sluices\n\nA sluice stops the water."})
    assert page.status_code == 202
    jobs = [ledger.enqueue(Sleep(seconds=0.2, steps=2)) for _ in range(10)]
    rows = ledger.wait_all([page.json()["id"], *jobs], timeout_s=60)
    assert {row.state for row in rows} == {"succeeded"}
    assert stack.post("/api/search", {"query": "sluice"}).json()["total"] == 1

    unknown = ledger.enqueue(Novelty())
    late = [ledger.enqueue(Sleep(seconds=60)) for _ in range(3)]
    for job_id in late:
        ledger.wait(job_id, "running")
    old.term()
    assert old.wait(30) == 0
    left = [ledger.row(job_id) for job_id in late]
    assert {(row.tries, row.crashes) for row in left} == {(0, 0)}
    assert {row.state for row in left} <= {"queued", "running"}
    assert ledger.row(unknown).state == "queued", "what only the new version knows is kept for it"

    stack.cwd = REPOSITORY
    stack.add_worker()
    for job_id in late:
        stack.post(f"/api/jobs/{job_id}/cancel", None)
    assert {row.state for row in ledger.wait_all(late, timeout_s=60)} == {"cancelled"}


def test_a_newer_payload_is_left_to_a_newer_worker(stack: Stack, ledger: Ledger) -> None:
    """An older worker that meets it fails nothing and counts nothing; the job is offered again."""
    stack.start(workers=0)
    job_id = ledger.enqueue(Sleep(seconds=0.1))
    _set_version(job_id, 99)
    stack.add_worker()
    row = ledger.wait(job_id, "retrying")
    assert (row.tries, row.crashes) == (0, 0)
    assert ledger.outcomes(job_id) == ["snoozed"]
    _set_version(job_id, 1)
    assert ledger.wait(job_id, timeout_s=40).state == "succeeded"


def _set_version(job_id: str, version: int) -> None:
    database().transaction(
        lambda session: session.execute(sa.update(JobRow).where(JobRow.id == job_id).values(payload_version=version))
    )
