"""A walk over every route there is: with another tenant's key nothing is found, without the scope nothing is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app.core.db import database
from app.jobs.definition import Job
from app.jobs.models import JobRow
from app.tenants import scopes
from tests.support.api_keys import holder
from tests.support.desk import Desk
from tests.unit.api.conftest import Api

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
Make = Callable[..., JobRow]

OURS, THEIRS = "acme", "rival"
# Stands in whatever `OURS` keeps; no answer to anybody else may hold it.
MARK = "zugspitze"
NOT_WALKED = {
    "/api/test-index": "waits for half a minute; /api/index is the same without",
    "/api/metrics/requests": "shows the walk's own addresses; test_metrics.py parts tenants",
    "/api/events": "has no end; test_tenant_events.py looks at it",
}
# What the walk does to what is its own: these name a thing of ours, so for others they are not there.
OWNED = ("job_id", "document_id", "key_id", "schedule_id", "collection")
METHODS = {"get", "post", "put", "patch", "delete"}


class Walked(Job, kind="tests.walk.open", open_to="write"):
    """A kind that a schedule may start."""

    note: str = ""


class Belongings:
    """One tenant's things, and how they stand."""

    def __init__(self, api: Api, client: httpx.Client, errand: Make) -> None:
        self.client = client
        accepted = Desk(database()).give(f"# {MARK}\n\nThe {MARK} is high.", tenant=OURS, title=MARK)
        Desk(database()).work(accepted.job.id)
        waiting = errand(MARK, tenant=OURS)
        schedule = client.post(
            "/api/schedules",
            json={"name": MARK, "kind": Walked.kind, "payload": {"note": MARK}, "cron": "0 4 * * *"},
        )
        assert schedule.status_code == 201, schedule.text
        key = client.post("/api/keys", json={"name": MARK, "scopes": ["read"]}).json()
        client.post("/api/collections", json={"name": MARK})
        self.ids = {
            "collection": MARK,
            "job_id": waiting.id,
            "document_id": str(accepted.document_id),
            "key_id": key["id"],
            "schedule_id": str(schedule.json()["id"]),
            "tenant_id": OURS,
            "worker_id": waiting.id,
            "queue": "default",
            "kind": "tests.unit.api.errand",
        }

    def look(self) -> dict[str, Any]:
        """Everything of the tenant as its own administrator sees it."""
        ids = self.ids
        paths = (
            f"/api/jobs/{ids['job_id']}", "/api/jobs", f"/api/documents/{ids['document_id']}", "/api/documents",
            f"/api/keys/{ids['key_id']}", "/api/keys", "/api/audit-log", f"/api/schedules/{ids['schedule_id']}",
            f"/api/collections/{ids['collection']}", "/api/collections",
        )  # fmt: skip
        answers = {path: self.client.get(path) for path in paths}
        assert {answer.status_code for answer in answers.values()} == {200}
        seen = {path: answer.json() for path, answer in answers.items()}
        for key in (seen[f"/api/keys/{ids['key_id']}"], *seen["/api/keys"]["data"]):
            key.pop("last_used_at")  # looking is using
        return seen


@pytest.fixture
def ours(api: Api, errand: Make) -> Iterator[Belongings]:
    with holder(api, "admin", tenant=OURS) as client:
        yield Belongings(api, client, errand)


@pytest.fixture
def lite_ours(lite_api: Api, errand: Make) -> Iterator[Belongings]:
    with holder(lite_api, "admin", tenant=OURS) as client:
        yield Belongings(lite_api, client, errand)


def operations(api: Api) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every route that takes a key: method, path, what the document says of it."""
    document = api.anyone.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in METHODS and operation.get("security"):
                yield method, path, operation


def needed(operation: dict[str, Any]) -> str | None:
    """The scope that the document says the route needs."""
    (requirement,) = operation["security"]
    ((_, scopes),) = requirement.items()
    return scopes[0] if scopes else None


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # the others of this module are on SQLite
def test_key_of_another_tenant_reads_and_changes_nothing(api: Api, ours: Belongings) -> None:
    """Each route, with the ids of the other tenant's things and the other inputs that its document allows."""
    before = ours.look()
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    walked = 0
    with holder(api, "read", "write", "admin", tenant=THEIRS) as theirs:
        headers = {"Authorization": theirs.headers["Authorization"]}
        for result in schema.get_all_operations():
            operation: Any = result.ok()  # type: ignore[union-attr]
            if operation.path in NOT_WALKED or not operation.definition.raw.get("security"):
                continue
            walked += 1
            _knock(operation, ours.ids, headers)
    assert walked >= 30
    assert ours.look() == before


def _knock(operation: Any, ids: dict[str, str], headers: dict[str, str]) -> None:
    names = {name for name in ids if f"{{{name}}}" in operation.path}

    @settings(
        max_examples=3,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    def knock(case: Any) -> None:
        for name in names:
            case.path_parameters[name] = ids[name]
        if isinstance(case.query, dict):
            # A page that is there, without filters: what could leak would.
            case.query = {name: value for name, value in case.query.items() if name in ("limit", "tenant")}
        answer = case.call(headers=headers, timeout=20)
        where = (operation.method, operation.path, answer.status_code, answer.text)
        assert MARK not in answer.text, where
        # There is no Firecrawl to pass anything on to, and that is said.
        assert answer.status_code < 500 or answer.json()["code"] == "firecrawl_not_configured", where
        if names & set(OWNED):
            assert answer.status_code in (404, 403, 422), where
        if not names:  # an answer that names our things without having been told their ids
            assert not any(ids[name] in answer.text for name in ("job_id", "key_id")), where

    knock()


def test_unknown_ids_and_those_of_another_tenant_get_equal_answers(lite_api: Api, lite_ours: Belongings) -> None:
    """Every route that names a thing says 404 for another tenant's, in the words for a thing that never was."""
    nothing = {
        "job_id": "0198c5d0-0000-7000-8000-000000000000", "document_id": "999999", "key_id": "0123456789abcdef",
        "schedule_id": "999999", "collection": "nothing",
    }  # fmt: skip
    looked = 0
    with holder(lite_api, "read", "write", "admin", tenant=THEIRS) as theirs:
        for method, path, operation in operations(lite_api):
            name = next((name for name in OWNED if f"{{{name}}}" in path), None)
            if name is None or not scopes.allows(["admin"], needed(operation) or "read"):
                continue
            looked += 1
            problems = []
            for value in (lite_ours.ids[name], nothing[name]):
                answer = theirs.request(method, path.replace(f"{{{name}}}", value), json=_body(operation))
                assert answer.status_code == 404, (method, path, answer.text)
                problem = answer.json() | {"request_id": None}
                problems.append(json.dumps(problem).replace(value, "ID"))
            assert problems[0] == problems[1], (method, path)
    assert looked >= 12


def _body(operation: dict[str, Any]) -> Any:
    """The least that the route reads, so that its answer is about the thing."""
    if "requestBody" not in operation:
        return None
    text = json.dumps(operation["requestBody"])
    return (
        {"name": "x"} if "ScheduleChange" in text or "KeyChange" in text else {"priority": 1} if "Patch" in text else {}
    )


def test_search_returns_documents_of_its_tenant_only(lite_api: Api, lite_ours: Belongings) -> None:
    with holder(lite_api, "read", tenant=THEIRS) as theirs:
        for mode in ("hybrid", "semantic", "keyword"):
            question = {"query": MARK, "mode": mode}
            assert lite_ours.client.post("/api/search", json=question).json()["total"] == 1
            for filters in ({}, {"document_ids": [lite_ours.ids["document_id"]]}):
                response = theirs.post("/api/search", json=question | {"filters": filters})
                assert (response.json()["total"], response.json()["results"]) == (0, [])
        assert theirs.get("/api/stats").json()["total_documents"] == 0


def test_no_websocket_opens_on_a_job_of_another_tenant(lite_api: Api, lite_ours: Belongings) -> None:
    with holder(lite_api, "read", tenant=THEIRS) as theirs:
        url = f"ws://127.0.0.1:{lite_api.port}/api/jobs/{lite_ours.ids['job_id']}/ws"
        with pytest.raises(InvalidStatus) as refused:
            connect(url, additional_headers={"Authorization": theirs.headers["Authorization"]}, open_timeout=20)
        assert refused.value.response.status_code == 404


def test_without_its_scope_each_route_refuses(lite_api: Api) -> None:
    """Keys with one scope each, at every route: 403 where the document names another, nothing of the kind else."""
    ids = {
        "job_id": "0198c5d0-0000-7000-8000-000000000000", "document_id": "999999", "key_id": "0123456789abcdef",
        "schedule_id": "999999", "tenant_id": "nobody", "worker_id": "0198c5d0-0000-7000-8000-000000000000",
        "queue": "default", "kind": "nothing.such",
    }  # fmt: skip
    single = ("read", "write", "admin", "operator")
    refused = dict.fromkeys(single, 0)
    with ExitStack() as stack:
        clients = {scope: stack.enter_context(holder(lite_api, scope)) for scope in single}
        unrelated_key = stack.enter_context(holder(lite_api, "kind:nothing.such"))
        for method, path, operation in operations(lite_api):
            address = path
            for name, value in ids.items():
                address = address.replace(f"{{{name}}}", value)
            need = needed(operation)
            for scope, client in clients.items():
                allowed = need is None or scopes.allows([scope], need)
                if allowed and path in NOT_WALKED:
                    continue
                answer = client.request(method, address)
                assert (answer.status_code == 403) == (not allowed), (method, path, scope, need, answer.text)
                refused[scope] += not allowed
            if path not in NOT_WALKED:
                status = unrelated_key.request(method, address).status_code
                by_kind = "`kind:NAME`" in operation["description"]
                assert status == 403 or need is None or by_kind or (status == 404 and "{job_id}" in path), (
                    method,
                    path,
                )
    assert all(refused[scope] > 5 for scope in ("read", "write", "admin")) and refused["operator"] == 0
