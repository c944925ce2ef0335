"""`millrace jobs follow`: many jobs at once, or all of them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from app.cli import exit_codes
from app.jobs.enqueued import EnqueuedJob
from tests.support.job_events import publish_event, set_job
from tests.support.processes import Process
from tests.support.stack import API_SECRET
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api
from tests.unit.cli.terminals import RemoteTerminal

Make = Callable[..., EnqueuedJob]


def _has_logged(process: Process, word: str) -> bool:
    return word in process.log.read_text()


def test_many_jobs_are_followed_at_once(
    lite_api: Api, errand: Make, remote_terminal: RemoteTerminal, tmp_path: Path
) -> None:
    environment = {"MILLRACE_URL": lite_api.url, "MILLRACE_API_KEY": API_SECRET}
    ids = [errand().id for _ in range(3)]
    jobs = [errand() for _ in range(40)]
    process = remote_terminal.start(
        tmp_path / "log", "jobs", "follow", *(job.id for job in jobs), "--json", **environment
    )
    try:
        wait_until(lambda: lite_api.hub.subscriber_count >= 30, timeout_s=40, what="the jobs to be followed")
        for number, job in enumerate(jobs):
            set_job(job, state="failed" if number == 7 else "succeeded", error_type="X" if number == 7 else None)
            publish_event(job, 100, "end", "failed" if number == 7 else "succeeded")
        assert process.wait(60) == exit_codes.FAILED, process.tail()
    finally:
        process.stop()
    text = process.log.read_text()
    assert all(job.id in text for job in jobs)
    late = remote_terminal("jobs", "follow", *ids, "--timeout", "1", **environment)
    assert (late.code, "3 of 3 jobs" in late.err) == (exit_codes.TIMEOUT, True)
    lite_api.client.post(f"/api/jobs/{ids[0]}/cancel")
    mixed = remote_terminal("jobs", "follow", ids[0], "0198c0de-0000-7000-8000-000000000000", **environment)
    assert (mixed.code, "cancelled" in mixed.out, "not found" in mixed.err) == (exit_codes.NOT_FOUND, True, True)


def test_all_jobs_are_followed_until_ctrl_c(
    lite_api: Api, errand: Make, remote_terminal: RemoteTerminal, tmp_path: Path
) -> None:
    environment = {"MILLRACE_URL": lite_api.url, "MILLRACE_API_KEY": API_SECRET}
    job, other = errand(), errand()
    words = ("jobs", "follow", "--all", "--state", "succeeded,failed")
    plain = remote_terminal.start(tmp_path / "plain", *words, **environment)
    read = remote_terminal.start(tmp_path / "json", *words, "--json", "--kind", "tests.*", **environment)
    try:
        wait_until(lambda: lite_api.hub.subscriber_count == 2, timeout_s=40, what="both to follow")
        wait_until(lambda: '"open"' in read.log.read_text(), what="the stream to be open")
        publish_event(job, 50)
        publish_event(other, 100, "end", "succeeded")
        for process in (plain, read):
            wait_until(partial(_has_logged, process, other.id), what="the end to be shown")
        for process in (plain, read):
            process.signal(signal.SIGINT)
            assert process.wait(20) == exit_codes.INTERRUPTED, process.tail()
            assert job.id not in process.log.read_text()
    finally:
        plain.stop()
        read.stop()
    assert remote_terminal("jobs", "follow", "--all", "--timeout", "0.5", **environment).code == exit_codes.OK
    assert remote_terminal("jobs", "follow", **environment).code == exit_codes.USAGE
    assert remote_terminal("jobs", "follow", "--all", "x", **environment).code == exit_codes.USAGE
    assert remote_terminal("jobs", "follow", "--all", "--state", "odd", **environment).code == exit_codes.USAGE
