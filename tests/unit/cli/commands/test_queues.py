"""`millrace queues`: list, pause and resume queues and kinds."""

from __future__ import annotations

import pytest

from app.core.db import database
from app.jobs.ledger.enqueue import enqueue
from tests.unit.api.conftest import Errand
from tests.unit.cli.terminals import Terminal


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_queues_and_kinds_are_paused_and_resumed(terminal: Terminal) -> None:
    database().transaction(enqueue, Errand(), tenant="default")
    assert terminal("queues", "pause", "default", "--reason", "disk is full").code == 0
    listed = terminal("queues", "list")
    assert "disk is full" in listed.out
    shown = {queue["name"]: queue for queue in terminal("queues", "list", "--json").json["data"]}
    assert (shown["default"]["queued"], shown["default"]["paused"]["reason"]) == (1, "disk is full")
    assert terminal("queues", "resume", "default", "--json").json["paused"] is None
    assert terminal("queues", "pause", Errand.kind, "--kind", "--json").json["paused"]["by"] == "secret"
    assert terminal("queues", "pause", "nowhere").code == 4
    assert terminal("queues", "pause", "x", "--kind", "--tenant").code == 2
