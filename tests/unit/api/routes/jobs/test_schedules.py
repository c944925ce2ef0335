"""Schedules over HTTP: made, shown with their next times, changed, paused, run, deleted; each to its tenant alone."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.exit_codes import CliExit
from app.cli.main import app
from app.core import clock
from app.core.db import database
from app.jobs.definition import Job
from app.jobs.schedules import firing, store
from app.jobs.schedules.store import Schedule
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.problems import assert_problem
from tests.unit.api.conftest import Api, Errand


class Report(Job, kind="tests.unit.api.report", open_to="write"):
    """A kind that callers may start."""

    days: int = 1


class Purge(Job, kind="tests.unit.api.purge", open_to="admin"):
    """A kind that administrators may start."""


def _make(api: Api, name: str = "nightly", **more: Any) -> dict[str, Any]:
    answer = api.client.post("/api/schedules", json={"name": name, "kind": Report.kind, "cron": "0 3 * * *"} | more)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/api/schedules/{made['id']}"
    return made


def test_a_schedule_is_made_shown_listed_and_deleted(api: Api) -> None:
    made = _make(api, payload={"days": 7}, timezone="Europe/Berlin")
    assert (made["payload"], made["source"], made["catch_up"], made["overlap"]) == ({"days": 7}, "api", "once", "skip")
    assert (made["next_at"], len(made["next"]), made["ticks"], made["open_jobs"]) == (made["next"][0], 5, [], [])
    times = [datetime.fromisoformat(time) for time in made["next"]]
    assert times == sorted(set(times))
    path = f"/api/schedules/{made['id']}"
    assert api.client.get(path).json() == made
    other = _make(api, "other", cron=None, every_s=3600)
    first = api.client.get("/api/schedules?limit=1").json()
    assert ([row["id"] for row in first["data"]], first["has_more"]) == ([made["id"]], True)
    rest = api.client.get("/api/schedules", params={"cursor": first["next_cursor"]}).json()
    assert ([row["id"] for row in rest["data"]], rest["has_more"]) == ([other["id"]], False)
    assert api.client.get("/api/schedules?kind=none").json()["data"] == []
    assert api.client.delete(path).status_code == 204
    assert_problem(api.client.get(path), 404, "schedule_not_found")


def test_ticks_show_their_outcome(api: Api) -> None:
    made = _make(api, cron="* * * * *", overlap="queue")
    for minutes in (1, 2):
        database().transaction(firing.fire, clock.now() + timedelta(minutes=minutes))
    shown = api.client.get(f"/api/schedules/{made['id']}").json()
    assert [tick["outcome"] for tick in shown["ticks"]] == ["waiting", "started"]
    assert shown["open_jobs"] == [shown["ticks"][1]["job_id"]]
    assert api.client.get(f"/api/jobs/{shown['open_jobs'][0]}").json()["kind"] == Report.kind


def test_patch_changes_the_given_fields_only(api: Api) -> None:
    made = _make(api)
    path = f"/api/schedules/{made['id']}"
    changed = api.client.patch(path, json={"every_s": 600, "overlap": "queue", "name": "often"}).json()
    assert (changed["cron"], changed["every_s"], changed["overlap"]) == (None, 600, "queue")
    assert (changed["name"], changed["payload"]) == ("often", made["payload"])
    assert api.client.patch(path, json={"payload": {"days": 9}}).json()["next"] == changed["next"]
    _make(api, "taken")
    assert_problem(api.client.patch(path, json={"name": "taken"}), 409, "schedule_exists")
    assert_problem(api.client.patch(path, json={"colour": "red"}), 422, "invalid_input")


def test_paused_schedule_has_no_next_time_and_can_be_run(api: Api) -> None:
    made = _make(api, paused=True)
    path = f"/api/schedules/{made['id']}"
    assert (made["next_at"], made["paused_at"] is not None) == (None, True)
    ran = api.client.post(f"{path}/run")
    assert (ran.status_code, ran.headers["location"]) == (202, f"/api/jobs/{ran.json()['id']}")
    assert_problem(api.client.post(f"{path}/run"), 409, "schedule_overlap")
    resumed = api.client.post(f"{path}/resume").json()
    assert (resumed["next_at"], resumed["paused_at"]) == (made["next"][0], None)
    assert api.client.post(f"{path}/pause").json()["next_at"] is None


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"cron": "0 3 * *"}, "schedule_timing"), ({"cron": None}, "schedule_timing"),
        ({"every_s": 60}, "schedule_timing"),
        ({"every_s": 5}, "invalid_input"), ({"timezone": "Nowhere"}, "timezone"), ({"timezone": "a\x00"}, "timezone"),
        ({"kind": "no.such"}, "kind_unknown"),
        ({"payload": {"x": 1}}, "payload"),
        ({"payload": {"days": "a"}}, "payload"), ({"catch_up": "all"}, "schedule_policy"),
        ({"catch_up": "maybe"}, "invalid_input"), ({"name": ""}, "invalid_input"),
        ({"name": "a\x00b"}, "invalid_input"),
        ({"more": 1}, "invalid_input"),
    ],
)  # fmt: skip
def test_invalid_schedule_is_refused_with_its_code(lite_api: Api, wrong: dict[str, Any], code: str) -> None:
    body = {"name": "n", "kind": Report.kind, "cron": "0 3 * * *"} | wrong
    assert_problem(lite_api.client.post("/api/schedules", json=body), 422, code)


@pytest.mark.parametrize("odd", ["0", "x", "9" * 30, "-1", "1e3", "é"])
def test_malformed_id_is_not_found(lite_api: Api, odd: str) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/run")):
        body: dict[str, Any] | None = {} if method == "PATCH" else None
        answer = lite_api.client.request(method, f"/api/schedules/{odd}{path}", json=body)
        assert_problem(answer, 404, "schedule_not_found")


def test_schedule_of_another_tenant_is_not_found(api: Api) -> None:
    made = _make(api)
    with holder(api, "read", "write", tenant="acme") as acme:
        assert acme.get("/api/schedules").json()["data"] == []
        for method, path in (
            ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/run"),
        ):  # fmt: skip
            body: dict[str, Any] | None = {} if method == "PATCH" else None
            answer = acme.request(method, f"/api/schedules/{made['id']}{path}", json=body)
            assert_problem(answer, 404, "schedule_not_found")


def test_key_schedules_kinds_of_its_scopes_only(api: Api) -> None:
    body = {"name": "n", "kind": Purge.kind, "cron": "0 3 * * *"}
    with holder(api, "read", "write") as writer, holder(api, "read") as reader, holder(api, "admin") as admin:
        assert_problem(reader.post("/api/schedules", json=body), 403, "scope_missing")
        assert_problem(writer.post("/api/schedules", json=body), 403, "scope_missing")
        closed = admin.post("/api/schedules", json=body | {"kind": Errand.kind})
        assert_problem(closed, 403, "kind_closed")
        made = admin.post("/api/schedules", json=body)
        assert made.status_code == 201
        assert reader.get(f"/api/schedules/{made.json()['id']}").status_code == 200


def test_schedule_declared_in_code_cannot_be_changed(api: Api) -> None:
    schedule = Schedule("tests api", Errand(note="x"), cron="0 4 * * *")
    database().transaction(store.declare, [schedule])
    (listed,) = api.client.get("/api/schedules").json()["data"]
    path = f"/api/schedules/{listed['id']}"
    assert (listed["source"], listed["kind"]) == ("code", Errand.kind)
    for answer in (api.client.patch(path, json={"overlap": "queue"}), api.client.delete(path)):
        assert_problem(answer, 409, "schedule_in_code")
    with holder(api, "read", "write") as writer:
        for what in ("pause", "resume", "run"):
            assert_problem(writer.post(f"{path}/{what}"), 403, "scope_missing")
    assert api.client.post(f"{path}/pause").json()["paused_at"]
    assert api.client.post(f"{path}/run").status_code == 202


def test_command_line_manages_schedules(lite_api: Api, settings_env: SettingsEnv) -> None:
    settings_env(url=lite_api.url)

    def millrace(*words: str) -> Any:
        ran = CliRunner().invoke(app, ["schedules", *words, "--json"])
        assert ran.exception is None, ran.exception
        return json.loads(ran.stdout.splitlines()[-1])  # before it, the log of the api in this process

    made = millrace("create", "weekly", Report.kind, '{"days": 7}', "--cron", "0 6 * * 1", "--overlap", "queue")
    assert (made["payload"], made["overlap"], len(made["next"])) == ({"days": 7}, "queue", 5)
    assert millrace("create", "hourly", Report.kind, "--every", "3600")["every_s"] == 3600
    assert [row["name"] for row in millrace("list")["data"]] == ["weekly", "hourly"]
    assert millrace("pause", made["id"])["paused_at"]
    assert millrace("resume", made["id"])["paused_at"] is None
    job = millrace("run", made["id"])
    assert millrace("show", made["id"])["open_jobs"] == [job["id"]]
    assert millrace("delete", made["id"]) == {"deleted": made["id"]}
    shown = CliRunner().invoke(app, ["schedules", "list"])
    assert "every 3600 s" in shown.stdout
    with pytest.raises(CliExit, match="not JSON"):
        CliRunner().invoke(app, ["schedules", "create", "x", Report.kind, "{"], catch_exceptions=False)


def test_repeated_request_creates_no_second_schedule(api: Api) -> None:
    body = {"name": "once", "kind": Report.kind, "cron": "0 3 * * *"}
    headers = {"Idempotency-Key": "k1"}
    first, again = (api.client.post("/api/schedules", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again.headers["location"] == first.headers["location"]
    path = f"/api/schedules/{first.json()['id']}/run"
    ran = [api.client.post(path, headers={"Idempotency-Key": "k2"}).json()["id"] for _ in range(2)]
    assert ran[0] == ran[1]
