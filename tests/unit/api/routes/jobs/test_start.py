"""Starting jobs over HTTP: which kinds, what of them, one or a list; their trace; and who may."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import clock, http
from app.core.db import database
from app.core.telemetry import trace
from app.jobs.definition import Debounce, Job, Throttle
from app.jobs.models import JobRow
from tests.unit.api.conftest import Api

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Parcel(
    Job, kind="tests.starts.parcel", open_to="write", queue="bulk", priority=3, webhook_url="https://a.example/x"
):
    """Something to be sent."""

    number: int
    to: str = "nobody"


class Guarded(Job, kind="tests.starts.guarded", open_to="admin"):
    """For administrators."""


class Inner(Job, kind="tests.starts.inner"):
    """The program's own."""


class Ring(Job, kind="tests.starts.ring", open_to="write", unique_key=lambda job: job.bell):
    bell: str = "a"


class Poll(Job, kind="tests.starts.poll", open_to="write", unique=Throttle(60)):
    pass


class Save(Job, kind="tests.starts.save", open_to="write", unique=Debounce(30, max_wait_s=90)):
    text: str = ""


def _count() -> int:
    return database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(JobRow)) or 0)


def _key(api: Api, *scopes: str) -> dict[str, str]:
    made = api.client.post("/api/keys", json={"name": "test", "scopes": list(scopes)})
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['key']}"}


def test_a_job_of_an_open_kind_is_started(api: Api) -> None:
    expires_at = (clock.now() + timedelta(hours=2)).isoformat()
    body = {
        "kind": "tests.starts.parcel",
        "payload": {"number": 7},
        "due_at": (clock.now() + timedelta(hours=1)).isoformat(),
        "expires_at": expires_at,
        "priority": -5,
        "unique_key": "seven",
        "webhook_url": "https://shop.example/done",
    }
    answer = api.client.post("/api/jobs", json=body)
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/api/jobs/{job['id']}")
    assert (job["kind"], job["queue"], job["state"]) == ("tests.starts.parcel", "bulk", "scheduled")
    shown = api.client.get(f"/api/jobs/{job['id']}").json()
    assert shown["payload"] == {"number": 7, "to": "nobody"}
    assert (shown["priority"], shown["unique_key"]) == (-5, "seven")
    assert shown["webhook_url"] == "https://shop.example/done"
    assert shown["expires_at"].startswith(expires_at[:19])


def test_omitted_options_come_from_the_definition(api: Api) -> None:
    job = api.client.post("/api/jobs", json={"kind": "tests.starts.parcel", "payload": {"number": 1}}).json()
    shown = api.client.get(f"/api/jobs/{job['id']}").json()
    assert (shown["state"], shown["priority"], shown["webhook_url"]) == ("queued", 3, "https://a.example/x")
    assert shown["unique_key"] is None


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"kind": "tests.starts.nothing"}, 422, "kind_unknown"),
        ({"kind": "tests.starts.inner"}, 403, "kind_closed"),
        ({"kind": "tests.starts.parcel"}, 422, "payload"),
        ({"kind": "tests.starts.parcel", "payload": {"number": "seven"}}, 422, "payload"),
        ({"kind": "tests.starts.parcel", "payload": {"number": 1, "more": 2}}, 422, "payload"),
        ({"kind": "tests.starts.parcel", "payload": {"number": 1, "to": "a\x00b"}}, 422, "payload"),
        ({"kind": "tests.starts.parcel", "payload": {"number": 1, "to": "x" * 300_000}}, 422, "payload_size"),
        ({"kind": "tests.starts.parcel", "payload": {"number": 1}, "payload_version": 2}, 422, "payload_version"),
        ({"kind": "tests.starts.ring", "expires_at": "2020-01-01T00:00:00Z"}, 422, "expires_at"),
        ({"kind": "tests.starts.ring", "due_at": "2099-01-01T09:00:00"}, 422, "time_zone"),
        ({"kind": "tests.starts.ring", "due_at": "2099-01-01"}, 422, "time_zone"),
        ({"kind": "tests.starts.ring", "expires_at": "2099-01-01T09:00:00"}, 422, "time_zone"),
        ({"kind": "tests.starts.ring", "due_at": "0001-01-01T00:00:00Z"}, 422, "time"),
        ({"kind": "tests.starts.ring", "due_at": "1999-12-31T23:59:59Z"}, 422, "time"),
        ({"kind": "tests.starts.parcel", "payload": {"number": 1}, "priority": 101}, 422, "invalid_input"),
        ({"kind": "tests.starts.parcel", "payload": {"number": 1}, "webhook_url": "ftp://x"}, 422, "invalid_input"),
        ({"kind": "tests.starts.parcel", "payload": {"number": 1}, "prioritty": 1}, 422, "invalid_input"),
        ({"kind": "tests.starts.ring", "unique_key": "mine"}, 422, "unique_key"),
        ({"kind": "tests.starts.parcel", "payload": {"number": 1}, "unique_key": "a\nb"}, 422, "unique_key"),
        ([], 422, "invalid_input"),
        ("parcel", 422, "invalid_input"),
    ],
)  # fmt: skip
def test_invalid_start_is_refused_with_the_reason(lite_api: Api, body: Any, status: int, code: str) -> None:
    answer = lite_api.client.post("/api/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert _count() == 0


def test_list_is_started_atomically_and_in_order(api: Api) -> None:
    requests: list[dict[str, Any]] = [
        {"kind": "tests.starts.parcel", "payload": {"number": number}} for number in range(997)
    ]
    requests.insert(5, {"kind": "tests.starts.ring"})
    requests.insert(500, {"kind": "tests.starts.parcel", "payload": {"number": 5000}, "priority": 9})
    requests.append({"kind": "tests.starts.ring"})
    answer = api.client.post("/api/jobs", json=requests)
    jobs = answer.json()["data"]
    assert answer.status_code == 202
    assert [job["kind"] for job in jobs] == [request["kind"] for request in requests]
    assert jobs[5]["id"] == jobs[-1]["id"]
    assert _count() == 999
    shown = api.client.get(f"/api/jobs/{jobs[500]['id']}").json()
    assert (shown["payload"]["number"], shown["priority"]) == (5000, 9)


def test_fault_in_a_list_starts_no_job_and_names_the_entry(api: Api) -> None:
    good = {"kind": "tests.starts.parcel", "payload": {"number": 1}}
    answer = api.client.post("/api/jobs", json=[good, good, {"kind": "tests.starts.parcel", "payload": {}}])
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "2.payload.number"
    api.client.post("/api/jobs", json={"kind": "tests.starts.ring"})
    held = {"kind": "tests.starts.ring", "on_conflict": "raise"}
    assert api.client.post("/api/jobs", json=[good, held]).status_code == 409
    assert _count() == 1
    assert api.client.post("/api/jobs", json=[good] * 1001).status_code == 422
    assert _count() == 1


def test_unique_key_returns_the_open_job_or_a_conflict(api: Api) -> None:
    first = api.client.post("/api/jobs", json={"kind": "tests.starts.ring"}).json()
    second = api.client.post("/api/jobs", json={"kind": "tests.starts.ring"})
    assert (second.status_code, second.json()["id"]) == (202, first["id"])
    refused = api.client.post("/api/jobs", json={"kind": "tests.starts.ring", "on_conflict": "raise"})
    assert (refused.status_code, refused.json()["code"]) == (409, "unique_key")
    assert refused.json()["errors"][0]["job_id"] == first["id"]


def test_the_kinds_that_may_be_started_are_listed_with_their_schemas(lite_api: Api) -> None:
    listed = {kind["kind"]: kind for kind in lite_api.client.get("/api/kinds").json()["data"]}
    parcel = listed["tests.starts.parcel"]
    assert parcel["description"] == "Something to be sent."
    assert (parcel["queue"], parcel["priority"], parcel["open_to"], parcel["max_attempts"]) == ("bulk", 3, "write", 4)
    assert parcel["schema"]["properties"]["number"]["type"] == "integer"
    assert parcel["schema"]["required"] == ["number"]
    assert parcel["unique"] is None
    assert listed["tests.starts.ring"]["unique"] == {"mode": "while_open"}
    assert listed["tests.starts.poll"]["unique"] == {"mode": "throttle", "seconds": 60}
    assert listed["tests.starts.save"]["unique"] == {"mode": "debounce", "seconds": 30, "max_wait_s": 90}
    assert "tests.starts.inner" not in listed


def test_key_starts_kinds_of_its_scopes_only(lite_api: Api) -> None:
    parcel = {"kind": "tests.starts.parcel", "payload": {"number": 1}}
    guarded, ring = {"kind": "tests.starts.guarded"}, {"kind": "tests.starts.ring"}
    reads, writes = _key(lite_api, "read"), _key(lite_api, "read", "write")
    parcels, both = _key(lite_api, "kind:tests.starts.parcel"), _key(lite_api, "write", "kind:tests.starts.guarded")
    for headers, body, status in (
        (reads, parcel, 403),
        (writes, parcel, 202),
        (writes, guarded, 403),
        (parcels, parcel, 202),
        (parcels, ring, 403),
        (parcels, guarded, 403),
        (both, guarded, 202),
    ):
        answer = lite_api.anyone.post("/api/jobs", json=body, headers=headers)
        assert answer.status_code == status, (body, answer.text)
    assert lite_api.anyone.post("/api/jobs", json=parcel).status_code == 401
    listed = lite_api.anyone.get("/api/kinds", headers=parcels).json()["data"]
    assert [kind["kind"] for kind in listed] == ["tests.starts.parcel"]
    names = {kind["kind"] for kind in lite_api.anyone.get("/api/kinds", headers=writes).json()["data"]}
    assert "tests.starts.ring" in names
    assert "tests.starts.guarded" not in names


# Trace


@pytest.mark.parametrize(
    ("sent_trace", "stored_trace"),
    [
        (TRACE, TRACE),
        (None, None),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
        (TRACE.upper(), None),
        (TRACE + "-more", None),
    ],
)
def test_a_job_belongs_to_the_trace_of_its_request(
    lite_api: Api, sent_trace: str | None, stored_trace: str | None
) -> None:
    headers = {"traceparent": sent_trace} if sent_trace else {}
    started = lite_api.client.post("/api/jobs", json={"kind": "tests.starts.ring"}, headers=headers).json()
    page = {"url": "https://a.example/", "markdown": "text"}
    indexed = lite_api.client.post("/api/documents", json=page, headers=headers).json()
    for job in (started, indexed):
        assert lite_api.client.get(f"/api/jobs/{job['id']}").json()["traceparent"] == stored_trace


class _Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write((self.headers.get("traceparent") or "").encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that answers with the traceparent it was called with."""
    with HTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(5)


@pytest.mark.anyio
async def test_outgoing_calls_are_child_spans_of_the_trace(echo: str) -> None:
    trace.enter(TRACE)
    try:
        with http.client() as client:
            traceparents = [client.get(echo).text, client.get(echo).text]
        async with http.async_client() as client_async:
            traceparents.append((await client_async.get(echo)).text)
            trace.enter(None)
            assert (await client_async.get(echo)).text == ""
    finally:
        trace.enter(None)
    assert all(
        trace.checked(traceparent) and traceparent[:36] == TRACE[:36] and traceparent[-3:] == "-01"
        for traceparent in traceparents
    )
    assert len({*traceparents, TRACE}) == 4
