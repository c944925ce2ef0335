"""A key is revoked while a client follows a job with it."""

from __future__ import annotations

import pytest

from app.core.http import client
from tests.journeys.conftest import Ledger
from tests.support.command import millrace
from tests.support.kinds import Sleep
from tests.support.stack import Stack

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the subject is the stream
def test_a_stream_ends_with_its_key_and_the_job_goes_on(stack: Stack, ledger: Ledger) -> None:
    """Made and revoked from a terminal; the stream ends, coming back is refused, and the job does not notice."""
    stack.start()
    env = {**stack.env, "MILLRACE_URL": stack.url}
    key = millrace("keys", "create", "partner", "--scope", "kind:tests.sleep", "--json", env=env).json
    job_id = ledger.enqueue(Sleep(seconds=90))
    ledger.wait(job_id, "running")
    path = f"/api/jobs/{job_id}/events"
    with client(60, base_url=stack.url, headers={"Authorization": key["key"]}) as partner:
        with partner.stream("GET", path) as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event")) == "event: state"
            assert millrace("keys", "revoke", key["id"], env=env).code == 0
            assert "event: end" not in list(lines)
        assert partner.get(path).status_code == 401
    assert (ledger.state(job_id), ledger.outcomes(job_id)) == ("running", [])
    assert stack.post(f"/api/jobs/{job_id}/cancel", None).status_code == 202
    assert ledger.wait(job_id).state == "cancelled"
