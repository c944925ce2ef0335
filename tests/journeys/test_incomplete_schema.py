"""A table that is gone while the system runs: everything that a person asks names it, and no end is lost."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import database
from app.jobs.models import AttemptRow
from tests.journeys.conftest import MODULES, Ledger
from tests.support.command import millrace
from tests.support.kinds import Sleep
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(180),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),  # unit tests cover both databases
]


def test_a_missing_table_is_named_and_the_end_is_written_when_it_is_back(stack: Stack, ledger: Ledger) -> None:
    stack.env["MILLRACE_MODULES"] = MODULES
    stack.start(workers=1)
    job_id = ledger.enqueue(Sleep(seconds=1))
    ledger.wait(job_id, "running")
    database().transaction(lambda session: session.execute(sa.text("ALTER TABLE attempt RENAME TO attempt_away")))
    wait_until(lambda: "ends_wait_for_sql" in stack.workers[0].tail(), timeout_s=60, what="the end to be refused")

    ready = stack.client.get("/readyz")
    assert ready.status_code == 503 and "table attempt" in ready.text
    reason = stack.client.get(f"/api/jobs/{job_id}/explain").json()
    assert reason["reason"] == "schema_incomplete"
    assert (
        reason["message"].startswith("The end of this job cannot be written: ") and "table attempt" in reason["message"]
    )
    env = {**stack.env, "MILLRACE_API_SECRET": stack.secret}
    findings = {line["check"]: line for line in millrace("doctor", "--json", env=env).json}
    assert findings["sql"]["state"] == "fail" and "table attempt" in findings["sql"]["found"]

    database().transaction(lambda session: session.execute(sa.text("ALTER TABLE attempt_away RENAME TO attempt")))
    assert ledger.wait(job_id, "succeeded", timeout_s=60).state == "succeeded"
    assert database().read(_attempts, job_id) == ["succeeded"]


def _attempts(session: Session, job_id: str) -> list[str]:
    return list(session.scalars(sa.select(AttemptRow.outcome).where(AttemptRow.job_id == job_id)))
