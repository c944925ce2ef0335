"""`millrace dead-letters`: list, retry and discard failed jobs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.core import clock
from app.jobs.enqueued import EnqueuedJob
from tests.support.job_events import set_job
from tests.unit.cli.terminals import Terminal

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

Make = Callable[..., EnqueuedJob]


def test_dead_letters_are_listed_and_retried_by_fault(terminal: Terminal, errand: Make) -> None:
    for _ in range(2):
        fault = {"error_type": "E", "error_message": "the [same] fault", "fingerprint": "ab", "tries": 4}
        set_job(errand(), state="failed", finished_at=clock.now(), **fault)
    shown = terminal("dead-letters", "list").out
    assert "the [same] fault" in shown and "2" in shown
    assert terminal("dead-letters", "retry", "--fingerprint", "ab", "--dry-run").out.startswith("2 jobs")
    assert terminal("dead-letters", "retry", "--fingerprint", "ab", "--json").json["kind"] == "jobs.bulk"
    assert terminal("dead-letters", "discard").code == 2
