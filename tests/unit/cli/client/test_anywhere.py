"""Commands reach a server over HTTP alone: by a profile, by the environment; patient, and never with another's key."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.cli import exit_codes
from app.cli.client.http import Server
from app.cli.client.profiles import Place
from app.cli.exit_codes import Quit
from app.jobs.definition import Job
from app.jobs.models import JobRow
from tests.support.command import Ran, millrace
from tests.support.job_events import publish_event, set_job
from tests.support.processes import Process, free_port
from tests.support.stack import API_SECRET, REPOSITORY
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api

Make = Callable[..., JobRow]


HANG_UP = 0
Answer = tuple[int, dict[str, str], dict[str, Any]]


def _said(process: Process, word: str) -> bool:
    return word in process.log.read_text()


class Elsewhere:
    """A machine with nothing but a home and the command."""

    def __init__(self, home: Path) -> None:
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "MILLRACE_PROFILES": "~/.config/millrace/config.toml",
        }
        self.file = home / ".config" / "millrace" / "config.toml"
        self.file.parent.mkdir(parents=True)

    def __call__(self, *words: str, **env: str) -> Ran:
        return millrace(*words, env=self.env | env)

    def begin(self, log: Path, *words: str, **env: str) -> Process:
        command = [sys.executable, "-m", "app", *words]
        process = Process(
            "follower", command, log=log, env=self.env | env | {"PYTHONPATH": str(REPOSITORY)}, is_warm=True
        )
        process.start()
        return process


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path / "home")


def test_a_profile_names_server_and_key(lite_api: Api, elsewhere: Elsewhere) -> None:
    (elsewhere.file.parent / "key").write_text(f"{API_SECRET}\n")
    elsewhere.file.write_text(
        f'profile = "usual"\n[profiles.usual]\nurl = "http://127.0.0.1:{free_port()}"\n'
        f'[profiles.work]\nurl = "{lite_api.url}"\napi_key_file = "key"\n'
        f'[profiles.bare]\nurl = "{lite_api.url}"\n'
        '[profiles.odd]\nurl = "ftp://x"\n'
    )
    assert elsewhere("--profile", "work", "jobs", "list", "--json").json["data"] == []
    assert elsewhere("jobs", "list", MILLRACE_PROFILE="work").code == exit_codes.OK
    assert elsewhere("jobs", "list").code == exit_codes.UNREACHABLE
    assert elsewhere("jobs", "list", MILLRACE_URL=lite_api.url, MILLRACE_API_KEY=API_SECRET).code == exit_codes.OK
    # A profile without a key does not get the one that belongs to this machine.
    assert elsewhere("--profile", "bare", "jobs", "list", MILLRACE_API_SECRET=API_SECRET).code == exit_codes.NOT_ALLOWED
    for wrong, said in (("nobody", "bare, odd, usual, work"), ("odd", "http://")):
        ran = elsewhere("--profile", wrong, "jobs", "list")
        assert (ran.code, said in ran.err, len(ran.err.splitlines())) == (exit_codes.BAD_USE, True, 1)
    elsewhere.file.write_text("profile = ")
    assert elsewhere("--profile", "work", "jobs", "list").code == exit_codes.BAD_USE


class Moody(ThreadingHTTPServer):
    """A server that gives these answers, the last one for ever, and keeps what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.keys: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, headers, body = answers[min(len(server.keys), len(answers) - 1)]
                server.keys.append(self.headers["idempotency-key"])
                self.rfile.read(int(self.headers.get("content-length", 0)))
                if status == HANG_UP:
                    self.close_connection = True
                    return
                self.send_response(status)
                text = json.dumps(body).encode()
                for name, value in (headers | {"content-length": str(len(text))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                return

        super().__init__(("127.0.0.1", 0), Handler)


@contextmanager
def moody(*answers: Answer) -> Iterator[tuple[Moody, Server]]:
    server = Moody(*answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        with Server(there=Place(f"http://127.0.0.1:{server.server_port}", "key", "a test")) as client:
            yield server, client
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_a_post_without_an_answer_is_sent_again_under_its_key() -> None:
    busy: Answer = (503, {"Retry-After": "0"}, {})
    hung_up: Answer = (HANG_UP, {}, {})
    under_way: Answer = (409, {}, {"code": "idempotency_key_in_use"})
    with moody(busy, hung_up, under_way, (200, {}, {"id": 1})) as (server, client):
        assert client.post("/x", {}) == {"id": 1}
        assert (len(server.keys), len(set(server.keys))) == (4, 1)
        client.post("/x", {})
        assert len(set(server.keys)) == 2


@pytest.mark.parametrize(
    ("answer", "code", "times"),
    [
        ((429, {"Retry-After": "3600"}, {}), exit_codes.FAILED, 1),
        ((409, {}, {"code": "job_state"}), exit_codes.FAILED, 1),
        ((500, {}, {}), exit_codes.FAILED, 1),
        ((401, {}, {}), exit_codes.NOT_ALLOWED, 1),
        ((503, {"Retry-After": "0"}, {}), exit_codes.FAILED, 5),
        ((HANG_UP, {}, {}), exit_codes.UNREACHABLE, 5),
    ],
)
def test_an_answer_that_stands_is_not_asked_for_again(answer: Answer, code: int, times: int) -> None:
    with moody(answer) as (server, client), pytest.raises(Quit) as refused:
        client.post("/x")
    assert (refused.value.code, len(server.keys)) == (code, times)


def test_many_jobs_are_followed_at_once(lite_api: Api, errand: Make, elsewhere: Elsewhere, tmp_path: Path) -> None:
    there = {"MILLRACE_URL": lite_api.url, "MILLRACE_API_KEY": API_SECRET}
    ids = [errand().id for _ in range(3)]
    jobs = [errand() for _ in range(40)]
    process = elsewhere.begin(tmp_path / "log", "jobs", "follow", *(job.id for job in jobs), "--json", **there)
    try:
        wait_until(lambda: lite_api.hub.subscriber_count >= 30, timeout_s=40, what="the jobs to be followed")
        for number, job in enumerate(jobs):
            set_job(job, state="failed" if number == 7 else "succeeded", error_type="X" if number == 7 else None)
            publish_event(job, 100, "end", "failed" if number == 7 else "succeeded")
        assert process.wait(60) == exit_codes.FAILED, process.tail()
    finally:
        process.stop()
    said = process.log.read_text()
    assert all(job.id in said for job in jobs)
    late = elsewhere("jobs", "follow", *ids, "--timeout", "1", **there)
    assert (late.code, "3 of 3 jobs" in late.err) == (exit_codes.TIMEOUT, True)
    lite_api.client.post(f"/api/jobs/{ids[0]}/cancel")
    mixed = elsewhere("jobs", "follow", ids[0], "0198c0de-0000-7000-8000-000000000000", **there)
    assert (mixed.code, "cancelled" in mixed.out, "not found" in mixed.err) == (exit_codes.NOT_FOUND, True, True)


def test_everything_can_be_followed_until_one_has_seen_enough(
    lite_api: Api, errand: Make, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    there = {"MILLRACE_URL": lite_api.url, "MILLRACE_API_KEY": API_SECRET}
    job, other = errand(), errand()
    words = ("jobs", "follow", "--all", "--state", "succeeded,failed")
    plain = elsewhere.begin(tmp_path / "plain", *words, **there)
    read = elsewhere.begin(tmp_path / "json", *words, "--json", "--kind", "tests.*", **there)
    try:
        wait_until(lambda: lite_api.hub.subscriber_count == 2, timeout_s=40, what="both to follow")
        wait_until(lambda: '"open"' in read.log.read_text(), what="the stream to be open")
        publish_event(job, 50)
        publish_event(other, 100, "end", "succeeded")
        for process in (plain, read):
            wait_until(partial(_said, process, other.id), what="the end to be told")
        for process in (plain, read):
            process.signal(signal.SIGINT)
            assert process.wait(20) == exit_codes.INTERRUPTED, process.tail()
            assert job.id not in process.log.read_text()
    finally:
        plain.stop()
        read.stop()
    assert elsewhere("jobs", "follow", "--all", "--timeout", "0.5", **there).code == exit_codes.OK
    assert elsewhere("jobs", "follow", **there).code == exit_codes.BAD_USE
    assert elsewhere("jobs", "follow", "--all", "x", **there).code == exit_codes.BAD_USE
    assert elsewhere("jobs", "follow", "--all", "--state", "odd", **there).code == exit_codes.BAD_USE


class Parcel(Job, kind="tests.unit.cli.parcel", open_to="write"):
    """Send a parcel."""

    to: str
    weight_g: int = 100


def test_any_open_kind_can_be_started(lite_api: Api, elsewhere: Elsewhere, tmp_path: Path) -> None:
    there = {"MILLRACE_URL": lite_api.url, "MILLRACE_API_KEY": API_SECRET}
    listed = elsewhere("kinds", **there)
    assert "tests.unit.cli.parcel" in listed.out and "to: string, weight_g?: integer" in listed.out
    assert elsewhere("kinds", "tests.unit.cli.parcel", "--json", **there).json["schema"]["required"] == ["to"]
    assert elsewhere("kinds", "nothing", **there).code == exit_codes.NOT_FOUND
    one = (
        "jobs",
        "start",
        "tests.unit.cli.parcel",
        '{"to": "Oslo"}',
        "--due",
        "2199-01-01T00:00:00Z",
        "--priority",
        "5",
    )
    started = elsewhere(*one, "--key", "k", "--json", **there).json
    assert (started["kind"], started["state"]) == ("tests.unit.cli.parcel", "scheduled")
    assert elsewhere(*one, "--key", "k", "--json", **there).json["id"] == started["id"]
    (tmp_path / "home" / "many.json").write_text('[{"to": "Rome"}, {"to": "Bern", "weight_g": 7}]')
    several = elsewhere(
        "jobs", "start", "tests.unit.cli.parcel", f"@{tmp_path / 'home' / 'many.json'}", "--json", **there
    )
    shown = [lite_api.client.get(f"/api/jobs/{job['id']}").json()["payload"] for job in several.lines]
    assert shown == [{"to": "Rome", "weight_g": 100}, {"to": "Bern", "weight_g": 7}]
    for wrong in ("{", "@nowhere", '{"to": 7}', "7"):
        refused = elsewhere("jobs", "start", "tests.unit.cli.parcel", wrong, **there)
        assert (refused.code, len(refused.err.splitlines())) == (exit_codes.BAD_USE, 1), refused
    assert elsewhere("jobs", "start", "nothing", **there).code == exit_codes.BAD_USE
    late = elsewhere("jobs", "start", "tests.unit.cli.parcel", '{"to": "Oslo"}', "--wait", "--timeout", "0.5", **there)
    assert late.code == exit_codes.TIMEOUT
