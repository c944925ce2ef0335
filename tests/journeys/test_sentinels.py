"""Redis by its sentinels: the master dies under load, another takes over, and every job is done once."""

from __future__ import annotations

import pytest

from tests.journeys.conftest import Ledger
from tests.support.kinds import Sleep
from tests.support.redis_kinds import Watched
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # the subject is Redis
def test_a_failover_under_load_loses_nothing(stack: Stack, ledger: Ledger, watched: Watched) -> None:
    stack.env["MILLRACE_REDIS_URL"] = watched.url
    stack.start()
    jobs = [ledger.enqueue(Sleep(seconds=0.3, steps=2)) for _ in range(40)]
    ledger.wait(jobs[0], "running", "succeeded")
    before = watched.master()
    next(server for server in watched.servers if server.port == before).kill()
    accepted = [stack.post("/api/documents", {"markdown": f"# Page {n}\n\nA page."}).json()["id"] for n in range(10)]
    wait_until(lambda: watched.master() != before, timeout_s=30, what="another master")
    rows = ledger.wait_all([*jobs, *accepted], timeout_s=90)
    assert {row.state for row in rows} == {"succeeded"}
    assert all(row.tries <= 1 for row in rows)
