"""`millrace kinds` and `millrace jobs start`: list the kinds of job, and start any of them."""

from __future__ import annotations

from pathlib import Path

from app.cli import exit_codes
from app.jobs.definition import Job
from tests.support.stack import API_SECRET
from tests.unit.api.conftest import Api
from tests.unit.cli.terminals import RemoteTerminal


class Parcel(Job, kind="tests.unit.cli.parcel", open_to="write"):
    """Send a parcel."""

    to: str
    weight_g: int = 100


def test_any_open_kind_can_be_started(lite_api: Api, remote_terminal: RemoteTerminal, tmp_path: Path) -> None:
    environment = {"MILLRACE_URL": lite_api.url, "MILLRACE_API_KEY": API_SECRET}
    listed = remote_terminal("kinds", **environment)
    assert "tests.unit.cli.parcel" in listed.out and "to: string, weight_g?: integer" in listed.out
    assert remote_terminal("kinds", "tests.unit.cli.parcel", "--json", **environment).json["schema"]["required"] == [
        "to"
    ]
    assert remote_terminal("kinds", "nothing", **environment).code == exit_codes.NOT_FOUND
    start_words = (
        "jobs",
        "start",
        "tests.unit.cli.parcel",
        '{"to": "Oslo"}',
        "--due",
        "2199-01-01T00:00:00Z",
        "--priority",
        "5",
    )
    started = remote_terminal(*start_words, "--key", "k", "--json", **environment).json
    assert (started["kind"], started["state"]) == ("tests.unit.cli.parcel", "scheduled")
    assert remote_terminal(*start_words, "--key", "k", "--json", **environment).json["id"] == started["id"]
    (tmp_path / "home" / "many.json").write_text('[{"to": "Rome"}, {"to": "Bern", "weight_g": 7}]')
    several = remote_terminal(
        "jobs", "start", "tests.unit.cli.parcel", f"@{tmp_path / 'home' / 'many.json'}", "--json", **environment
    )
    shown = [lite_api.client.get(f"/api/jobs/{job['id']}").json()["payload"] for job in several.lines]
    assert shown == [{"to": "Rome", "weight_g": 100}, {"to": "Bern", "weight_g": 7}]
    for wrong in ("{", "@nowhere", '{"to": 7}', "7"):
        refused = remote_terminal("jobs", "start", "tests.unit.cli.parcel", wrong, **environment)
        assert (refused.code, len(refused.err.splitlines())) == (exit_codes.USAGE, 1), refused
    assert remote_terminal("jobs", "start", "nothing", **environment).code == exit_codes.USAGE
    late = remote_terminal(
        "jobs", "start", "tests.unit.cli.parcel", '{"to": "Oslo"}', "--wait", "--timeout", "0.5", **environment
    )
    assert late.code == exit_codes.TIMEOUT
