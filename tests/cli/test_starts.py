"""Kinds and starts from a terminal."""

from __future__ import annotations

import pytest

from app.jobs.definition import Job
from tests.api.conftest import Api, lite_api
from tests.cli.test_keys import Terminal

__all__ = ["lite_api"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Parcel(Job, kind="tests.cli.parcel", open_to="write", queue="bulk"):
    """Something to be sent."""

    number: int
    note: str = ""


def test_a_kind_is_listed_and_started(lite_api: Api) -> None:
    terminal = Terminal(lite_api)
    shown = terminal("kinds").out
    assert "tests.cli.parcel" in shown and "number: integer, note?: string" in shown and "to be sent" in shown
    listed = {kind["kind"] for kind in terminal("kinds", "--json").json["data"]}
    assert "tests.cli.parcel" in listed
    options = ("--priority", "7", "--unique-key", "k", "--due-at", "2090-01-31T12:00:00Z", "--json")
    job = terminal("jobs", "start", "tests.cli.parcel", '{"number": 1}', *options).json
    assert (job["state"], job["due_at"]) == ("scheduled", "2090-01-31T12:00:00Z")
    detail = lite_api.client.get(f"/api/jobs/{job['id']}").json()
    assert (detail["payload"], detail["priority"]) == ({"number": 1, "note": ""}, 7)
    assert job["id"] in terminal("jobs", "start", "tests.cli.parcel", '{"number": 2}', "--unique-key", "k").out


def test_what_cannot_be_started_ends_with_its_exit_code(lite_api: Api) -> None:
    terminal = Terminal(lite_api)
    assert terminal("jobs", "start", "tests.cli.nothing").code == 2
    assert terminal("jobs", "start", "tests.cli.parcel", "{number: 1}").code == 2
    refused = terminal("jobs", "start", "tests.cli.parcel", '{"number": "x"}')
    assert (refused.code, "integer" in refused.err) == (2, True)
    waited = terminal("jobs", "start", "tests.cli.parcel", '{"number": 1}', "--wait", "--timeout", "0.5", "--json")
    assert waited.code == 5
