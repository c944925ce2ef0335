"""The event stream of a job: parsed as it arrives, continued after a cut."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.cli.client.event_stream import KEEP_ALIVE, ServerEvent, parse
from tests.support.command import millrace
from tests.support.processes import Process
from tests.support.stack import REPOSITORY, Stack
from tests.support.waiting import wait_until


def test_events_are_parsed_by_the_standard() -> None:
    lines = [
        ": hello",
        "",
        "id: 4",
        "event: progress",
        'data: {"percent":',
        "data:  50}",
        "",
        "data: {}",
        "",
        "id:5",
        "",
    ]
    assert list(parse(lines)) == [
        ServerEvent("4", "progress", {"percent": 50}),
        ServerEvent("4", "message", {}),
        ServerEvent("5", KEEP_ALIVE, {}),
    ]


def test_an_incomplete_event_is_dropped() -> None:
    assert list(parse(["id: 1", "event: end", 'data: {"state": "succeeded"}'])) == []


@pytest.mark.journey
@pytest.mark.timeout(180)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_follower_survives_a_restart_of_the_api(stack: Stack, tmp_path: Path) -> None:
    """A job waits, the api is killed and restarts, a worker starts: both followers show the end."""
    stack.start(workers=0)
    (tmp_path / "tea.md").write_text("# Tea\n\nGreen tea.\n")
    job_id = millrace("index", "tea.md", "--json", env=stack.env).lines[0]["job"]["id"]
    command = [sys.executable, "-m", "app", "jobs", "follow", "--json"]
    env = stack.env | {"PYTHONPATH": str(REPOSITORY)}
    follower = Process("follower", [*command, job_id], log=tmp_path / "follower.log", env=env, is_warm=True)
    everything = Process("everything", [*command, "--all"], log=tmp_path / "everything.log", env=env, is_warm=True)
    follower.start()
    everything.start()
    try:
        wait_until(lambda: "queued" in follower.log.read_text(), timeout_s=40, what="the snapshot")
        wait_until(lambda: '"open"' in everything.log.read_text(), timeout_s=40, what="the opening")
        assert stack.api is not None
        stack.api.kill()
        stack.api.start()
        stack.wait_for_api()
        stack.add_worker()
        assert follower.wait(60) == 0, follower.tail() + stack.logs()
        wait_until(lambda: '"end"' in everything.log.read_text(), timeout_s=40, what="the end among everything")
    finally:
        follower.stop()
        everything.stop()
    text = follower.log.read_text()
    assert '"succeeded"' in text
    assert '"index"' in text
