"""`millrace workers`: list and pause workers."""

from __future__ import annotations

import pytest

from app.core.db import database
from app.core.ids import uuid7
from app.jobs.ledger import workers
from tests.unit.cli.terminals import Terminal

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]


def test_a_worker_is_listed_and_paused(terminal: Terminal) -> None:
    worker_id = uuid7()
    database().transaction(workers.register, worker_id, ["default"], 4, None)
    assert worker_id in terminal("workers", "list").out
    assert terminal("workers", "pause", worker_id, "--json").json["state"] == "paused"
    assert terminal("workers", "list", "--all", "--json").json["data"][0]["state"] == "paused"
