"""A layout in which workers cannot read the api's files is refused at the start and named by doctor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from app.core.db import database
from app.jobs.ledger import workers
from tests.journeys.conftest import Ledger
from tests.support.command import Ran, millrace
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(180),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),  # which database makes no difference here
]


def _doctor(stack: Stack) -> tuple[Ran, dict[str, Any]]:
    env = {**stack.env, "MILLRACE_API_SECRET": stack.secret}
    ran = millrace("doctor", "--json", env=env)
    return ran, {line["check"]: line for line in ran.json}


def test_a_worker_with_a_store_of_its_own_is_refused_at_its_start(stack: Stack, tmp_path: Path) -> None:
    stack.start(workers=0)
    shared = stack.env["MILLRACE_DATA_DIR"]
    stack.env["MILLRACE_DATA_DIR"] = str(tmp_path / "elsewhere")
    worker = stack.add_worker(wait=False)
    assert worker.wait(60) == 2, worker.tail()
    assert "MILLRACE_BLOB_URL" in worker.tail() and "Traceback" not in worker.tail()
    ran, findings = _doctor(stack)
    assert (ran.code, findings["originals"]["state"]) == (1, "fail")
    stack.env["MILLRACE_DATA_DIR"] = shared
    stack.add_worker()
    ran, findings = _doctor(stack)
    assert (findings["originals"]["state"], findings["uploads"]["state"]) == ("ok", "ok"), ran.out


def test_an_api_with_a_store_of_its_own_is_refused_at_its_start(stack: Stack, ledger: Ledger, tmp_path: Path) -> None:
    stack.start(workers=1, api=False)
    wait_until(lambda: database().read(workers.list_alive), timeout_s=60, what="the worker to register")
    stack.env["MILLRACE_DATA_DIR"] = str(tmp_path / "elsewhere")
    api = stack.start_api(wait=False)
    assert api.wait(60) == 2, api.tail()
    assert "MILLRACE_BLOB_URL" in api.tail() and "Traceback" not in api.tail()


def test_doctor_finds_a_worker_that_lost_the_store_while_it_ran(stack: Stack, tmp_path: Path) -> None:
    """The probe goes through the queue, so it finds what no look at this machine's settings finds."""
    store = tmp_path / "worker" / "blobs"
    stack.start(workers=0)
    shutil.copytree(Path(stack.env["MILLRACE_DATA_DIR"]) / "blobs", store)  # with the marker
    stack.env["MILLRACE_BLOB_URL"] = f"file:{store}"
    stack.add_worker()
    del stack.env["MILLRACE_BLOB_URL"]
    ran, findings = _doctor(stack)
    assert ran.code == 1
    assert (findings["originals"]["state"], findings["uploads"]["state"]) == ("ok", "fail"), ran.out
    assert "MILLRACE_BLOB_URL" in findings["uploads"]["fix"]


def test_a_lost_store_can_be_replaced(stack: Stack) -> None:
    stack.start(workers=1)
    assert stack.api is not None
    for process in (stack.api, stack.workers[0]):
        process.term()
        process.wait(30)
    shutil.rmtree(Path(stack.env["MILLRACE_DATA_DIR"]) / "blobs")
    worker = stack.add_worker(wait=False)
    assert worker.wait(60) == 2, worker.tail()
    assert millrace("config", "accept-store", env=stack.env).code == 0
    stack.add_worker()
    stack.start_api()
    _, findings = _doctor(stack)
    assert findings["uploads"]["state"] == "ok", findings
