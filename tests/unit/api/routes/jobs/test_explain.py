"""Reasons over HTTP: explained, started now, changed, discarded, grouped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from app.core import clock, ids
from app.core.db import database
from app.jobs.ledger import workers
from app.jobs.models import JobRow
from app.jobs.sandbox import job_log
from tests.support.job_events import set_job
from tests.unit.api.conftest import Api

Make = Callable[..., JobRow]


def test_explain_gives_the_reason_of_a_waiting_job(api: Api, errand: Make) -> None:
    explanation = api.client.get(f"/api/jobs/{errand().id}/explain").json()
    assert (explanation["state"], explanation["reason"]) == ("queued", "no_worker")
    assert "default" in explanation["message"]
    assert "millrace worker" in explanation["fix"]
    assert explanation["since_s"] >= 0
    assert set(explanation) == {"job_id", "kind", "state", "reason", "message", "fix", "since", "since_s", "facts"}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "explain"), ("POST", "run-now"), ("POST", "discard"), ("PATCH", "")]
)
def test_job_of_another_tenant_is_not_found(lite_api: Api, errand: Make, method: str, path: str) -> None:
    for job_id in (errand(tenant="other").id, ids.uuid7(), "x"):
        body = {"expires_at": None} if method == "PATCH" else None
        answer = lite_api.client.request(method, f"/api/jobs/{job_id}/{path}".rstrip("/"), json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_run_now_starts_a_scheduled_job(api: Api, errand: Make) -> None:
    job = errand()
    set_job(job, state="running")
    set_job(job, state="retrying", due_at=clock.now() + timedelta(hours=1))
    answer = api.client.post(f"/api/jobs/{job.id}/run-now")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.headers["location"] == f"/api/jobs/{job.id}"
    set_job(job, state="running")
    refused = api.client.post(f"/api/jobs/{job.id}/run-now")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_state")


def test_a_job_is_changed_before_it_starts(api: Api, errand: Make) -> None:
    job = errand(note="old")
    changed = api.client.patch(
        f"/api/jobs/{job.id}", json={"payload": {"note": "new"}, "expires_at": "2099-01-01T00:00:00Z"}
    )
    assert changed.status_code == 200, changed.text
    assert (changed.json()["payload"], changed.json()["expires_at"]) == ({"note": "new"}, "2099-01-01T00:00:00Z")
    assert api.client.patch(f"/api/jobs/{job.id}", json={"expires_at": None}).json()["expires_at"] is None
    set_job(job, state="running")
    refused = api.client.patch(f"/api/jobs/{job.id}", json={"payload": {}})
    assert (refused.status_code, refused.json()["code"]) == (409, "job_state")


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"payload": None}, {"payload": []}, {"payload": {"note": 1}}, {"payload": {"other": ""}}, {"due_at": None},
        {"priority": None}, {"priority": 101}, {"priority": "high"},
        {"due_at": "soon"}, {"state": "failed"}, {"payload": {"note": "\0"}},
        {"expires_at": "0001-01-01T00:00:00+14:00"}, {"due_at": "2099-01-01T09:00:00"}, {"due_at": "2099-01-01"},
        {"payload": {"note": "x" * 300_000}}, [], "x", None,
    ],
)  # fmt: skip
def test_invalid_edit_is_refused_and_changes_nothing(lite_api: Api, errand: Make, wrong: Any) -> None:
    job = errand(note="old")
    answer = lite_api.client.patch(f"/api/jobs/{job.id}", json=wrong)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]
    assert lite_api.client.get(f"/api/jobs/{job.id}").json()["payload"] == {"note": "old"}


def test_dead_letters_are_grouped_listed_and_discarded(api: Api, errand: Make) -> None:
    jobs = [errand() for _ in range(3)]
    for number, job in enumerate(jobs):
        fault = {"error_type": "E", "error_code": "e", "error_message": "m", "fingerprint": "ab" if number else "cd"}
        set_job(job, state="failed", finished_at=clock.now(), tries=4, **fault)
    first = api.client.get("/api/dead-letters", params={"limit": 1}).json()
    rest = api.client.get("/api/dead-letters", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [group["count"] for group in (*first["data"], *rest["data"])] == [2, 1]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    of_group = {"state": "failed", "discarded": "false", "fingerprint": "ab"}
    assert {job["id"] for job in api.client.get("/api/jobs", params=of_group).json()["data"]} == {
        j.id for j in jobs[1:]
    }
    assert api.client.post(f"/api/jobs/{jobs[1].id}/discard").status_code == 200
    assert [job["id"] for job in api.client.get("/api/jobs", params=of_group).json()["data"]] == [jobs[2].id]
    assert api.client.get(f"/api/jobs/{jobs[1].id}").json()["discarded_at"] is not None


@pytest.mark.parametrize("wrong", ["x", "W10", "WyJ4IiwieSJd", "WzEsMl0", "WyIyMDI2LTAxLTAxIiwxXQ"])
def test_invalid_cursor_is_refused(lite_api: Api, wrong: str) -> None:
    answer = lite_api.client.get("/api/dead-letters", params={"cursor": wrong})
    assert (answer.status_code, answer.json()["code"]) == (422, "cursor")


def test_log_lines_are_read_in_pages_and_by_level(api: Api, errand: Make) -> None:
    job = errand()
    rows: list[dict[str, Any]] = [
        {
            "key_id": job.id,
            "fence": 1,
            "attempt": 1,
            "at": clock.now(),
            "level": level,
            "logger": "shop",
            "event": level,
        }
        | {"fields": {"number": 1}}
        for level in ("info", "warning", "error")
    ]
    database().transaction(job_log.write, rows)
    path = f"/api/jobs/{job.id}/logs"
    first = api.client.get(path, params={"limit": 2}).json()
    rest = api.client.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [line["event"] for line in (*first["data"], *rest["data"])] == ["info", "warning", "error"]
    assert set(first["data"][0]) == {"id", "at", "level", "attempt", "fence", "logger", "event", "fields"}
    assert [line["event"] for line in api.client.get(path, params={"level": "error"}).json()["data"]] == ["error"]
    assert api.client.get(path, params={"attempt": 2}).json()["data"] == []
    for wrong in ({"level": "loud"}, {"attempt": 0}, {"cursor": "W10"}, {"cursor": "WzEuNV0"}):
        assert api.client.get(path, params=wrong).status_code == 422
    assert api.client.get(f"/api/jobs/{errand(tenant='other').id}/logs").status_code == 404


def test_workers_are_listed_paused_and_drained(api: Api) -> None:
    worker_id = ids.uuid7()
    database().transaction(workers.register, worker_id, ["default"], 4, None)
    (shown,) = api.client.get("/api/workers").json()["data"]
    assert (shown["id"], shown["state"], shown["running"], shown["threads"]) == (worker_id, "running", 0, 4)
    for order, state in (("pause", "paused"), ("resume", "running"), ("drain", "draining")):
        answer = api.client.post(f"/api/workers/{worker_id}/{order}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    refused = api.client.post(f"/api/workers/{worker_id}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "worker_state")
    assert api.client.post(f"/api/workers/{ids.uuid7()}/pause").status_code == 404
    assert api.client.get("/api/workers", params={"state": "running"}).json()["data"] == []
    acts = [entry["action"] for entry in api.client.get("/api/audit-log").json()["data"]]
    assert acts[:3] == ["worker.drain", "worker.resume", "worker.pause"]


def test_bulk_retry_runs_as_a_job(api: Api, errand: Make) -> None:
    for _ in range(3):
        set_job(errand(), state="failed", finished_at=clock.now(), fingerprint="ab")
    body = {"action": "retry", "filter": {"fingerprint": "ab"}}
    preview = api.client.post("/api/jobs:bulk", json=body | {"dry_run": True})
    assert (preview.status_code, preview.json()["matched"], len(preview.json()["sample"])) == (200, 3, 3)
    first = api.client.post("/api/jobs:bulk", json=body, headers={"Idempotency-Key": "once"})
    again = api.client.post("/api/jobs:bulk", json=body, headers={"Idempotency-Key": "once"})
    assert (first.status_code, first.json()["kind"], again.json()["id"]) == (202, "jobs.bulk", first.json()["id"])
    acts = [entry["action"] for entry in api.client.get("/api/audit-log").json()["data"]]
    assert acts == ["jobs.bulk.retry"]


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"action": "retry"}, {"action": "retry", "filter": {}}, {"action": "burn", "filter": {"kind": "x"}},
        {"action": "cancel", "filter": {"states": ["failed"]}}, {"action": "retry", "filter": {"states": []}},
        {"action": "retry", "filter": {"colour": "red"}}, {"action": "retry", "filter": {"parent_id": "x"}},
        {"action": "retry", "filter": {"created_after": "0001-01-01T00:00:00+14:00"}},
    ],
)  # fmt: skip
def test_invalid_bulk_request_is_refused(lite_api: Api, wrong: dict[str, Any]) -> None:
    assert lite_api.client.post("/api/jobs:bulk", json=wrong).status_code == 422
