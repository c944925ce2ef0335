"""`millrace index`, then follow and search: the whole path, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import made_documents
from tests.support.command import Ran, millrace
from tests.support.processes import free_port
from tests.support.stack import Stack

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

TEA = "# Tea\n\nGreen tea is steeped at eighty degrees for two minutes.\n"
COFFEE = "<title>Coffee</title><main><p>Espresso needs nine bars of pressure.</p></main>"


# The output does not depend on the database; one test of this file runs on both.
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class StackTerminal:
    """Run commands against a stack, with its environment."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def __call__(self, *words: str) -> Ran:
        return millrace(*words, env=self.stack.env)


@pytest.fixture
def terminal(stack: Stack) -> StackTerminal:
    return StackTerminal(stack)


def test_an_indexed_file_is_found(stack: Stack, terminal: StackTerminal, tmp_path: Path) -> None:
    stack.start()
    (tmp_path / "tea.md").write_text(TEA)
    indexed = terminal("index", "tea.md", "--wait", "--json")
    assert indexed.code == 0, indexed.err + stack.logs()
    (line,) = indexed.lines
    assert line["target"] == "tea.md"
    assert line["job"]["state"] == "succeeded"

    for mode in ("hybrid", "semantic", "keyword"):
        result = terminal("search", "how hot is green tea steeped", "--mode", mode, "--json")
        assert result.code == 0, result.err
        assert result.json["results"][0]["title"] == "Tea", mode

    for option, is_read in (("--operators", True), ("--no-operators", False)):
        answer = terminal("search", '"green tea" -kettle', option, "--json").json
        assert answer["operators"] is is_read and answer["results"][0]["title"] == "Tea"

    shown = terminal("search", "green tea")
    assert "Tea" in shown.out
    assert "eighty degrees" in shown.out

    job_id = line["job"]["id"]
    assert terminal("jobs", "show", job_id, "--json").json["attempts"][0]["outcome"] == "succeeded"
    assert job_id in terminal("jobs", "show", job_id).out
    assert [job["id"] for job in terminal("jobs", "list", "--json").json["data"]] == [job_id]
    assert "succeeded" in terminal("jobs", "list").out
    followed = terminal("jobs", "follow", job_id, "--json")
    assert followed.code == 0
    assert followed.lines[-1]["state"] == "succeeded"
    assert terminal("jobs", "retry", job_id).code == 1
    assert terminal("doctor", "--json").code == 0, terminal("doctor").out


@SQLITE
def test_a_folder_is_one_job_a_file(stack: Stack, terminal: StackTerminal, tmp_path: Path) -> None:
    stack.start()
    notes = tmp_path / "notes"
    (notes / "deep").mkdir(parents=True)
    (notes / "tea.md").write_text(TEA)
    (notes / "deep" / "coffee.html").write_text(COFFEE)
    (notes / "program.exe").write_bytes(b"MZ" + bytes(100))
    made_documents.make(notes, "docx", "kettle")
    (notes / "broken.pdf").write_bytes(bytes(100))
    indexed = terminal("index", "notes", "--wait", "--json", "--tag", "drinks")
    assert indexed.code == 1, indexed.err + stack.logs()
    ended = {Path(line["target"]).name: line["job"]["state"] for line in indexed.lines}
    assert ended == {
        "coffee.html": "succeeded",
        "tea.md": "succeeded",
        "kettle.docx": "succeeded",
        "broken.pdf": "refused",
    }
    assert terminal("search", "kettle", "--json").json["results"][0]["title"] == "A report"
    response = terminal("search", "pressure of an espresso", "--mode", "keyword", "--json").json
    assert "nine bars" in json.dumps(response["results"])


@SQLITE
def test_a_waiting_job_is_cancelled_and_retried(stack: Stack, terminal: StackTerminal, tmp_path: Path) -> None:
    stack.start(workers=0)
    (tmp_path / "tea.md").write_text(TEA)
    sent = terminal("index", "tea.md", "--json")
    job_id = sent.lines[0]["job"]["id"]
    assert sent.code == 0
    assert sent.lines[0]["job"]["state"] == "queued"
    late = terminal("jobs", "follow", job_id, "--timeout", "0.5", "--json")
    assert late.code == 5, late
    assert json.loads(late.err)["error"]

    assert terminal("jobs", "cancel", job_id, "--json").json["state"] == "cancelled"
    assert terminal("jobs", "follow", job_id).code == 1
    assert terminal("jobs", "retry", job_id, "--json").json["state"] == "queued"
    stack.add_worker()
    assert terminal("jobs", "follow", job_id).code == 0, stack.logs()


@SQLITE
def test_exit_codes(stack: Stack, terminal: StackTerminal, tmp_path: Path) -> None:
    stack.start(workers=0, relay=False)
    unknown = "0198c0de-0000-7000-8000-000000000000"
    assert terminal("jobs", "show", unknown).code == 4
    assert terminal("jobs", "follow", unknown).code == 4
    assert terminal("index", "nowhere.md").code == 2
    (tmp_path / "x.bin").write_bytes(b"\0")
    assert terminal("index", "x.bin").code == 2
    assert terminal("search").code == 2
    assert terminal("nonsense").code == 2
    assert millrace("jobs", "list", env=stack.env | {"MILLRACE_API_SECRET": "x" * 40}).code == 6
    gone = millrace("jobs", "list", env=stack.env | {"MILLRACE_PORT": str(free_port())})
    assert gone.code == 3
    assert len(gone.err.splitlines()) == 1
    assert terminal("--help").code == 0
