"""`millrace jobs`: explanations and log lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.core import clock
from app.core.db import database
from app.core.ids import uuid7
from app.jobs.enqueued import EnqueuedJob
from app.jobs.sandbox import job_log
from tests.unit.cli.terminals import Terminal

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

Make = Callable[..., EnqueuedJob]


def test_a_job_is_explained_and_its_log_shown(terminal: Terminal, errand: Make) -> None:
    job = errand()
    ran = terminal("jobs", "explain", job.id)
    assert (ran.code, "no_worker" in ran.out, "millrace worker" in ran.out) == (0, True, True)
    line = {"key_id": job.id, "fence": 1, "attempt": 1, "at": clock.now(), "level": "warning", "logger": "shop"}
    database().transaction(job_log.write, [line | {"event": "odd [price]", "fields": {"price": 7}}])
    assert "odd [price] price=7" in terminal("jobs", "logs", job.id, "--level", "warning").out
    assert terminal("jobs", "explain", uuid7()).code == 4
