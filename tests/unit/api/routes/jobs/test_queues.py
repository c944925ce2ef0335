"""Queues over HTTP: what waits, what is paused, how much may run."""

from __future__ import annotations

import pytest

from app.core import clock
from app.core.db import database
from app.jobs.admission import limits
from app.jobs.ledger import workers
from app.jobs.ledger.enqueue import enqueue
from tests.unit.api.conftest import Api, Errand

SUBJECTS = ["queues/default", f"kinds/{Errand.kind}", "tenants/default"]


def test_the_queues_are_listed_in_the_order_of_service(api: Api) -> None:
    worker_id = "00000000-0000-7000-8000-000000000001"
    database().transaction(workers.register, worker_id, ["default", "bulk"], 8, None)
    for _ in range(3):
        database().transaction(enqueue, Errand(), tenant="default")
    shown = {queue["name"]: queue for queue in api.client.get("/api/queues").json()["data"]}
    assert list(shown) == ["interactive", "default", "fetch", "bulk"]
    assert shown["default"] | {"oldest_s": 0} == {
        "name": "default", "queued": 3, "oldest_s": 0, "running": 0, "scheduled": 0, "retrying": 0,
        "workers": 1, "slots": 8, "paused": None, "running_cap": None,
    }  # fmt: skip
    assert shown["default"]["oldest_s"] >= 0
    assert (shown["fetch"]["queued"], shown["fetch"]["workers"]) == (0, 0)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_pause_and_resume(api: Api, subject: str) -> None:
    before = clock.now()
    paused = api.client.post(f"/api/{subject}/pause", json={"reason": "repairs"})
    assert paused.status_code == 200
    assert paused.json()["paused"]["reason"] == "repairs"
    assert paused.json()["paused"]["at"] >= before.isoformat().replace("+00:00", "Z")
    row = database().transaction(enqueue, Errand(), tenant="default")
    assert row.admitted_at is None
    resumed = api.client.post(f"/api/{subject}/resume")
    assert (resumed.status_code, resumed.json()["paused"]) == (200, None)
    assert api.client.post(f"/api/{subject}/pause").json()["paused"]["reason"] is None
    noted = [entry["action"].partition(".")[2] for entry in api.client.get("/api/audit-log").json()["data"]]
    assert noted == ["pause", "resume", "pause"]


@pytest.mark.parametrize("subject", SUBJECTS[1:])
def test_limits_are_set_shown_and_reset(api: Api, subject: str) -> None:
    path = f"/api/{subject}/limits"
    assert api.client.get(path).json()["running_cap"] is None
    assert api.client.put(path, json={"running_cap": 7}).json()["running_cap"] == 7
    assert api.client.get(path).json()["running_cap"] == 7
    assert api.client.put(path, json={}).json()["running_cap"] is None


def test_weight_of_a_tenant_is_set_and_shown(api: Api) -> None:
    path = "/api/tenants/acme/limits"
    assert api.client.get(path).status_code == 404
    api.client.post("/api/tenants", json={"id": "acme"})
    assert api.client.get(path).json() == {
        "name": "acme", "paused": None, "running_cap": None, "running": 0, "weight": 1,
    }  # fmt: skip
    assert api.client.put(path, json={"weight": 3}).json()["weight"] == 3
    assert database().read(limits.read).weight("acme") == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/api/queues/nowhere/pause", None, 404, "queue_not_found"),
        ("POST", "/api/kinds/no.such.kind/resume", None, 404, "kind_not_found"),
        ("PUT", "/api/kinds/no.such.kind/limits", {}, 404, "kind_not_found"),
        ("PUT", "/api/tenants/nobody/limits", {}, 404, "tenant_not_found"),
        ("PUT", "/api/tenants/acme/limits", {"running_cap": 0}, 422, "validation"),
        ("PUT", "/api/tenants/acme/limits", {"weight": 1001}, 422, "validation"),
        ("PUT", "/api/tenants/acme/limits", {"running_capp": 5}, 422, "validation"),
        ("POST", "/api/queues/default/pause", {"reason": "x" * 501}, 422, "validation"),
        ("POST", "/api/tenants/a%20b/pause", None, 422, "validation"),
    ],
)
def test_invalid_requests_are_refused(
    lite_api: Api, method: str, path: str, body: object, status: int, code: str
) -> None:
    answer = lite_api.client.request(method, path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert status == 422 or answer.json()["code"] == code
    assert database().read(limits.read).known == {}
