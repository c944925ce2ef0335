"""A job's events in a terminal: parsed as they come, taken up again after a cut."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.cli.client.event_stream import SIGN_OF_LIFE, Event, parse
from app.cli.commands.index import requests
from app.cli.commands.search import passage
from app.cli.exit_codes import Quit
from tests.support.command import millrace
from tests.support.processes import Process
from tests.support.stack import REPOSITORY, Stack
from tests.support.waiting import wait_until


def test_events_are_read_as_the_standard_says() -> None:
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
        Event("4", "progress", {"percent": 50}),
        Event("4", "message", {}),
        Event("5", SIGN_OF_LIFE, {}),
    ]


def test_half_an_event_is_none() -> None:
    assert list(parse(["id: 1", "event: end", 'data: {"state": "succeeded"}'])) == []


def test_a_file_is_sent_with_the_title_of_its_first_heading(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("intro\n\n# The title\n")
    (tmp_path / "b.txt").write_text("plain")
    (tmp_path / "c.html").write_text("<title>Own</title>")
    sent = {Path(name).name: body for name, body in requests(str(tmp_path), ["x"])}
    assert sent["a.md"]["title"] == "The title"
    assert sent["b.txt"]["text"] == "plain"
    assert "title" not in sent["c.html"]
    assert all(body["tags"] == ["x"] and body["url"].startswith("file://") for body in sent.values())
    assert list(requests("https://example.org/x", [])) == [
        ("https://example.org/x", {"url": "https://example.org/x", "source": "cli"})
    ]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for target in ("nowhere", "."):
        path = tmp_path / "empty" if target == "." else tmp_path / target
        if target == ".":
            path.mkdir()
        with pytest.raises(Quit) as caught:
            list(requests(str(path), []))
        assert caught.value.code == 2
        assert str(path) in caught.value.message


def test_text_that_is_no_utf_8_goes_as_a_file(tmp_path: Path) -> None:
    """Which letters it has, the server finds out."""
    path = tmp_path / "latin.txt"
    path.write_bytes("café".encode("latin-1"))
    [(name, body)] = requests(str(path), ["a"])
    assert (name, body["file"], body["tags"]) == (str(path), path, ["a"])


def test_a_passage_keeps_its_highlights_in_place() -> None:
    shown = passage("[bold]green\ntea[/]", [[6, 11]])
    assert shown.plain == "   [bold]green tea[/]"
    assert [(span.start, span.end) for span in shown.spans if "bold" in str(span.style)] == [(9, 14)]


@pytest.mark.journey
@pytest.mark.timeout(180)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_follower_survives_a_restart_of_the_api(stack: Stack, tmp_path: Path) -> None:
    """The job waits, the api goes and comes back, a worker starts: who follows it, or everything, hears of the end."""
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
    said = follower.log.read_text()
    assert '"succeeded"' in said
    assert '"index"' in said
