"""Dead letters: failures in groups by fault, until they are retried or discarded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.clock import moment
from app.core.errors import Conflict, NotFound
from app.core.ids import uuid7
from app.jobs.inspect import dead_letters
from app.jobs.ledger import commands
from app.jobs.ledger.views import JobFilter, list_jobs
from app.jobs.states import STATES
from tests.unit.jobs.conftest import Chore, Ledger

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def fail(ledger: Ledger, fingerprint: str | None, minutes: int, **values: Any) -> str:
    error = {"error_type": "E", "error_code": "e", "error_message": f"at {minutes}"} | values
    finished_at = NOON + timedelta(minutes=minutes)
    return ledger.put(state="failed", fingerprint=fingerprint, finished_at=finished_at, **error)


def groups(ledger: Ledger, **options: Any) -> list[dict[str, Any]]:
    return ledger.db.read(dead_letters.list_groups, "default", **{"limit": 10, **options})


def test_failures_of_one_fault_are_one_group(ledger_of: Ledger) -> None:
    for minutes in (3, 1, 2):
        fail(ledger_of, "aa", minutes)
    last = fail(ledger_of, "aa", 4, kind="tests.other")
    alone = fail(ledger_of, "bb", 9)
    fail(ledger_of, "cc", 5, tenant="other")
    ledger_of.put(state="succeeded", fingerprint="aa")
    newest, older = groups(ledger_of)
    assert (newest["fingerprint"], newest["count"], newest["latest_job_id"]) == ("bb", 1, alone)
    assert (older["count"], older["kinds"]) == (4, [Chore.kind, "tests.other"])
    times = [moment(NOON + timedelta(minutes=minutes)) for minutes in (1, 4)]
    assert [older["first_seen"], older["last_seen"]] == times
    assert (older["latest_job_id"], older["error"]) == (last, {"type": "E", "code": "e", "message": "at 4"})


def test_groups_are_filtered_and_walked_in_pages(ledger_of: Ledger) -> None:
    for number in range(5):
        fail(ledger_of, f"f{number}", number % 2, queue="bulk" if number == 4 else "default")
    fail(ledger_of, None, 7)
    seen: list[str] = []
    after = None
    while page := groups(ledger_of, limit=2, after=after):
        seen += [group["fingerprint"] for group in page]
        after = (datetime.fromisoformat(page[-1]["last_seen"]), page[-1]["fingerprint"])
    assert seen == ["none", "f1", "f3", "f0", "f2", "f4"]
    assert [group["fingerprint"] for group in groups(ledger_of, queue="bulk")] == ["f4"]
    assert groups(ledger_of, kind="tests.other") == []


@pytest.mark.parametrize("how", ["retry", "discard"])
def test_retried_or_discarded_job_is_no_dead_letter(ledger_of: Ledger, how: str) -> None:
    job_id = fail(ledger_of, "aa", 1)
    act = commands.retry if how == "retry" else commands.discard
    ledger_of.db.transaction(act, "default", job_id)
    assert groups(ledger_of) == []


def test_discarding_keeps_the_row_and_may_be_repeated_and_undone_by_a_retry(ledger_of: Ledger) -> None:
    job_id, other = fail(ledger_of, "aa", 1), fail(ledger_of, "aa", 2)
    first = ledger_of.db.transaction(commands.discard, "default", job_id).discarded_at
    assert ledger_of.db.transaction(commands.discard, "default", job_id).discarded_at == first
    for discarded, expected in ((True, job_id), (False, other)):
        options = JobFilter(fingerprint="aa", discarded=discarded)
        assert [row.id for row in ledger_of.db.read(list_jobs, "default", options, 9)] == [expected]
    ledger_of.db.transaction(commands.retry, "default", job_id)
    assert ledger_of.row(job_id).discarded_at is None


def test_only_a_failed_job_of_the_tenant_can_be_discarded(ledger_of: Ledger) -> None:
    for state in set(STATES) - {"failed"}:
        with pytest.raises(Conflict, match=state):
            ledger_of.db.transaction(commands.discard, "default", ledger_of.put(state=state))
    for job_id in (fail(ledger_of, "aa", 1, tenant="other"), uuid7()):
        with pytest.raises(NotFound):
            ledger_of.db.transaction(commands.discard, "default", job_id)
