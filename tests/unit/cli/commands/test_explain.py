"""Reasons, dead letters and workers from a terminal."""

from __future__ import annotations

import pytest

from app.core import clock
from app.core.db import database
from app.core.ids import uuid7
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger import workers
from app.jobs.ledger.enqueue import enqueue
from app.jobs.sandbox import job_log
from tests.support.job_events import set_job
from tests.unit.api.conftest import Api, Errand, lite_api
from tests.unit.cli.commands.test_keys import Terminal

__all__ = ["lite_api"]

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]


def errand() -> EnqueuedJob:
    return database().transaction(lambda session: enqueue(session, Errand(note="x"), tenant="default"))


def test_why_it_waits_and_what_its_code_has_said(lite_api: Api) -> None:
    terminal, job = Terminal(lite_api), errand()
    said = terminal("jobs", "explain", job.id)
    assert (said.code, "no_worker" in said.out, "millrace worker" in said.out) == (0, True, True)
    line = {"key_id": job.id, "fence": 1, "attempt": 1, "at": clock.now(), "level": "warning", "logger": "shop"}
    database().transaction(job_log.write, [line | {"event": "odd [price]", "fields": {"price": 7}}])
    assert "odd [price] price=7" in terminal("jobs", "logs", job.id, "--level", "warning").out
    assert terminal("jobs", "explain", uuid7()).code == 4


def test_dead_letters_are_shown_and_tried_again_together(lite_api: Api) -> None:
    terminal = Terminal(lite_api)
    for _ in range(2):
        fault = {"error_type": "E", "error_message": "the [same] fault", "fingerprint": "ab", "tries": 4}
        set_job(errand(), state="failed", finished_at=clock.now(), **fault)
    shown = terminal("dead", "list").out
    assert "the [same] fault" in shown and "2" in shown
    assert terminal("dead", "retry", "--fingerprint", "ab", "--dry-run").out.startswith("2 jobs")
    assert terminal("dead", "retry", "--fingerprint", "ab", "--json").json["kind"] == "jobs.bulk"
    assert terminal("dead", "discard").code == 2


def test_a_worker_is_paused_from_here(lite_api: Api) -> None:
    terminal, worker_id = Terminal(lite_api), uuid7()
    database().transaction(workers.register, worker_id, ["default"], 4, None)
    assert worker_id in terminal("workers", "list").out
    assert terminal("workers", "pause", worker_id, "--json").json["state"] == "paused"
    assert terminal("workers", "list", "--all", "--json").json["data"][0]["state"] == "paused"
