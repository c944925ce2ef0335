"""`millrace documents`, `audit`, `search` with filters, ids and their first letters, and terminals of every kind."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path

import pytest

from app import __version__
from app.core.db import database
from app.documents.accept.accept import About, Content, accept
from app.jobs.enqueued import EnqueuedJob
from tests.support.stack import API_SECRET, REPOSITORY
from tests.unit.api.conftest import Api
from tests.unit.cli.terminals import Terminal

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

Make = Callable[..., EnqueuedJob]
TITLE = "Zürich – ein Führer ✓"


@pytest.fixture
def document(lite_api: Api) -> tuple[str, str]:
    """Return the ids of a stored document and its job."""
    about = About(title=TITLE, tags=("city",), language="de", url="https://example.org/zurich")
    accepted = database().transaction(accept, about, Content("markdown", "# Stadt\n\nAm See."), tenant="default")
    return str(accepted.job.document_id), accepted.job.id


def _run(
    url: str, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a new process: with stdin, or with an encoding."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "LC_", "LANG"))}
    variables |= {"MILLRACE_URL": url, "MILLRACE_API_SECRET": API_SECRET, "PYTHONPATH": str(REPOSITORY)}
    variables |= env or {}
    command = [sys.executable, "-m", "app", *words]
    return subprocess.run(command, env=variables, input=stdin, capture_output=True, timeout=60, check=False)


def _run_on_terminal(url: str, columns: int, *words: str) -> str:
    """Return what a terminal of this width receives."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "COLUMNS"))}
    variables["TERM"] = "xterm"
    variables |= {
        "MILLRACE_URL": url,
        "MILLRACE_API_SECRET": API_SECRET,
        "PYTHONPATH": str(REPOSITORY),
        "TERM": "xterm",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "app", *words], env=variables, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:  # Linux reports the end of a terminal as an error
        pass
    os.close(ours)
    assert process.wait(30) == 0, text
    return text.decode()


def test_documents_are_listed_shown_reprocessed_and_deleted(terminal: Terminal, document: tuple[str, str]) -> None:
    document_id, job_id = document
    for words in (("--tag", "city", "--lang", "de"), ("--not-indexed",), ("--url", "https://example.org/zurich")):
        assert [row["id"] for row in terminal("documents", "list", *words, "--json").json["data"]] == [document_id]
    for words in (("--tag", "village"), ("--lang", "en"), ("--indexed",)):
        assert terminal("documents", "list", *words, "--json").json["data"] == []
    assert terminal("documents", "list", "--collection", "nosuch").code == 4
    shown = terminal("documents", "show", document_id)
    assert (shown.code, TITLE in shown.out, job_id in shown.out) == (0, True, True), shown
    assert terminal("documents", "show", document_id, "--text").code == 1, "it is not indexed yet"
    assert terminal("documents", "reprocess", document_id).code == 0
    assert terminal("documents", "delete", document_id, "--json").json == {"deleted": document_id}
    assert terminal("documents", "show", document_id).code == 4


def test_a_list_of_jobs_names_their_documents(terminal: Terminal, document: tuple[str, str], errand: Make) -> None:
    errand()
    rows = terminal("jobs", "list", "--json").json["data"]
    assert [row["document_name"] for row in rows] == [None, TITLE]
    assert TITLE in terminal("jobs", "list").out


def test_search_passes_its_filters_on(terminal: Terminal, document: tuple[str, str]) -> None:
    assert terminal("search", "see", "--tag", "city", "--lang", "de", "--json").json["total"] == 0
    assert terminal("search", "see", "--collection", "nosuch").code == 4


def test_the_audit_log_is_listed(terminal: Terminal) -> None:
    assert terminal("keys", "create", "deploys").code == 0
    for words in (("audit",), ("audit", "log"), ("audit", "--action", "key.create")):
        assert "key.create" in terminal(*words).out, words
    assert terminal("audit", "--action", "nosuch", "--json").json["data"] == []


def test_ids_are_never_cut(lite_api: Api, document: tuple[str, str]) -> None:
    _, job_id = document
    piped = _run(lite_api.url, "jobs", "list").stdout.decode()
    [line] = [line for line in piped.splitlines() if job_id in line]
    assert TITLE in line, "a pipe gets one whole line a row"
    for columns in (80, 40):
        assert job_id in _run_on_terminal(lite_api.url, columns, "jobs", "list").replace("\r\n", "\n")


def test_a_unique_beginning_of_an_id_is_enough(terminal: Terminal, errand: Make) -> None:
    first, second = errand(), errand()
    common = "".join(a for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(first.id, second.id, strict=True)))
    unique = second.id[: len(common) + 1]
    shown = terminal("jobs", "show", unique, "--json")
    assert (shown.code, shown.json["id"]) == (0, second.id)
    for words in (("explain",), ("logs",), ("cancel",)):
        assert terminal("jobs", *words, unique).code == 0, words
    ambiguous = terminal("jobs", "show", common)
    assert (ambiguous.code, first.id in ambiguous.err, second.id in ambiguous.err) == (2, True, True)
    assert terminal("jobs", "show", "ffffffff").code == 4
    assert terminal("jobs", "show", "nosuch").code == 4
    key = terminal("keys", "create", "deploys", "--json").json
    assert terminal("keys", "revoke", key["id"][:8], "--json").json["id"] == key["id"]


def test_a_terminal_without_utf_8_shows_escapes(lite_api: Api, document: tuple[str, str]) -> None:
    without_utf8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for env in ({"LANG": "C", "PYTHONIOENCODING": "ascii"}, without_utf8):
        ran = _run(lite_api.url, "jobs", "list", env=env)
        assert (ran.returncode, b"Traceback" in ran.stderr) == (0, False), ran
        as_json = _run(lite_api.url, "jobs", "list", "--json", env=env)
        assert json.loads(as_json.stdout)["data"][0]["document_name"] == TITLE
        missing = _run(lite_api.url, "search", "é", "--collection", "größe", env=env)
        assert (missing.returncode, b"Traceback" in missing.stderr) == (4, False), missing


def test_a_bar_is_shown_while_files_are_sent(lite_api: Api, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.md").write_text(f"# Page {number}")
    assert "sending" in _run_on_terminal(lite_api.url, 100, "index", str(tmp_path))
    assert b"sending" not in _run(lite_api.url, "index", str(tmp_path)).stderr, "a pipe gets no bar"


def test_stdin_is_indexed_under_a_name(lite_api: Api, terminal: Terminal) -> None:
    for name, words in (("stdin", ()), ("notes", ("--name", "notes.txt"))):
        ran = _run(lite_api.url, "index", "-", *words, "--json", stdin=b"The wombat digs.")
        assert ran.returncode == 0, ran.stderr
        job = json.loads(ran.stdout)["job"]
        assert terminal("documents", "show", str(job["document_id"]), "--json").json["title"] == name
    again = _run(lite_api.url, "index", "-", "--json", stdin=b"Another.")
    assert json.loads(again.stdout)["job"]["document_id"] not in (None, job["document_id"])
    assert _run(lite_api.url, "index", "-").returncode == 2, "nothing was piped in"


def test_an_error_names_the_server_and_where_it_comes_from(terminal: Terminal, lite_api: Api, tmp_path: Path) -> None:
    refused = terminal("jobs", "show", "nosuch")
    assert lite_api.url in refused.err and "the environment" in refused.err
    as_json = json.loads(terminal("jobs", "show", "nosuch", "--json").err)
    assert (as_json["server"], as_json["installation"]) == (lite_api.url, "the environment")
    here = _run("", "jobs", "list", env={"MILLRACE_PORT": "9", "MILLRACE_DATA_DIR": str(tmp_path / "data")})
    assert here.returncode == 3
    assert str(tmp_path / "data") in here.stderr.decode() and "http://127.0.0.1:9" in here.stderr.decode()


def test_a_payload_error_names_its_field(terminal: Terminal) -> None:
    kinds = {kind["kind"]: kind for kind in terminal("kinds", "--json").json["data"]}
    ran = terminal("jobs", "start", next(iter(kinds)), '{"nosuch": 1}')
    assert (ran.code, "nosuch: " in ran.err) == (2, True), ran.err
    as_json = json.loads(terminal("jobs", "start", next(iter(kinds)), '{"nosuch": 1}', "--json").err)
    assert "nosuch: " in as_json["error"]


def test_the_version_and_the_processes_are_in_the_help(terminal: Terminal) -> None:
    assert terminal("--version").out == f"millrace {__version__}\n"
    text = terminal("--help").out
    assert all(f"\n  {role} " in text for role in ("api", "worker", "scheduler", "relay"))
    assert "Dramatiq" in terminal("worker", "--help").out
