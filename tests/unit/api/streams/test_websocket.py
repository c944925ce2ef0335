"""Events over WebSocket: the same ones, resumed, refused in our words, and closed with a code that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from app.jobs.models import JobRow
from tests.support.databases import SettingsEnv
from tests.support.job_events import publish_event, set_job
from tests.support.stack import API_SECRET
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api

Make = Callable[..., JobRow]


def opened(api: Api, path: str, **options: Any) -> ClientConnection:
    if "subprotocols" not in options:
        options["additional_headers"] = {"Authorization": f"Bearer {API_SECRET}"}
    socket: ClientConnection = connect(f"ws://127.0.0.1:{api.port}/api{path}", proxy=None, **options)
    return socket


def next_events(socket: ClientConnection, count: int = 1) -> list[dict[str, Any]]:
    return [json.loads(socket.recv(timeout=20)) for _ in range(count)]


def closing(socket: ClientConnection) -> int | None:
    """The code that the server closes with, once all has been heard."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            socket.recv(timeout=20)
    return closed.value.rcvd.code if closed.value.rcvd else None


def refusal(api: Api, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as refused, opened(api, path, **options):
        pass
    response = refused.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.body or b"{}")


def test_a_snapshot_then_events_then_the_end_closes(api: Api, errand: Make) -> None:
    job = errand()
    with opened(api, f"/jobs/{job.id}/ws") as socket:
        [first] = next_events(socket)
        assert (first["event"], first["state"], first["snapshot"]) == ("state", "queued", True)
        publish_event(job, 10)
        [progress] = next_events(socket)
        assert (progress["event"], progress["percent"]) == ("progress", 10)
        publish_event(job, 100, "end", "succeeded")
        [end] = next_events(socket)
        assert (end["event"], end["seq"]) == ("end", progress["seq"] + 1)
        assert closing(socket) == 1000
    wait_until(lambda: api.hub.subscriber_count == 0, what="the follower to be forgotten")


def test_socket_resumes_and_closes_after_the_end(lite_api: Api, errand: Make) -> None:
    job = errand()
    for percent in (10, 20):
        publish_event(job, percent)
    with opened(lite_api, f"/jobs/{job.id}/ws?last_event_id=1") as socket:
        assert next_events(socket)[0]["percent"] == 20
    set_job(job, state="succeeded")
    publish_event(job, 100, "end", "succeeded")
    with opened(lite_api, f"/jobs/{job.id}/ws?last_event_id=3") as socket:
        assert closing(socket) == 1000


def test_tenant_events_have_ids_to_resume_from(api: Api, errand: Make) -> None:
    job, other = errand(), errand(document_id=7)
    with opened(api, "/events/ws?event=progress") as socket:
        assert next_events(socket)[0]["event"] == "open"
        publish_event(job, 1)
        publish_event(job, 2, "end", "succeeded")
        publish_event(other, 3)
        events = next_events(socket, 2)
    assert [(event["percent"], event["kind"]) for event in events] == [
        (1, "tests.unit.api.errand"),
        (3, "tests.unit.api.errand"),
    ]
    with opened(api, f"/events/ws?last_event_id={events[0]['id']}") as socket:
        assert [event.get("percent") for event in next_events(socket, 3)] == [None, 2, 3]


def test_key_may_be_sent_as_a_subprotocol(lite_api: Api, errand: Make) -> None:
    job = errand()
    with opened(lite_api, f"/jobs/{job.id}/ws", subprotocols=["millrace", f"bearer.{API_SECRET}"]) as socket:
        assert socket.subprotocol == "millrace"
        assert next_events(socket)[0]["job_id"] == job.id


def test_unauthorized_socket_is_refused_before_the_upgrade(lite_api: Api, errand: Make) -> None:
    job, theirs = errand(), errand(tenant="other")
    wrong = {"subprotocols": ["millrace", "bearer.wrong"]}
    for path in (f"/jobs/{job.id}/ws", "/events/ws"):
        status, body = refusal(lite_api, path, **wrong)
        assert (status, body["code"]) == (401, "unauthenticated")
        assert refusal(lite_api, path, subprotocols=["millrace"])[0] == 401
    for job_id in (theirs.id, "nonsense"):
        status, body = refusal(lite_api, f"/jobs/{job_id}/ws")
        assert (status, body["code"]) == (404, "job_not_found")
        assert body["request_id"]
    assert refusal(lite_api, "/events/ws?state=odd")[0] == 422
    assert refusal(lite_api, "/events/ws?document_id=x")[0] == 422
    assert refusal(lite_api, "/events/ws?kind=%00")[0] == 400
    assert refusal(lite_api, "/nowhere/ws")[0] == 404


def test_opening_counts_against_the_keys_limit(lite_api: Api, settings_env: SettingsEnv) -> None:
    settings_env(rate_limits="on")
    body = {"name": "n", "scopes": ["read"], "rate_limits": {"GET /api/events/ws": "2/day"}}
    protocols = ["millrace", f"bearer.{lite_api.client.post('/api/keys', json=body).json()['key']}"]
    for _ in range(2):
        with opened(lite_api, "/events/ws", subprotocols=protocols) as socket:
            assert next_events(socket)[0]["event"] == "open"
    assert refusal(lite_api, "/events/ws", subprotocols=protocols)[0] == 429


def test_messages_from_the_client_are_ignored(lite_api: Api, errand: Make) -> None:
    job = errand()
    with opened(lite_api, f"/jobs/{job.id}/ws") as socket:
        next_events(socket)
        socket.send("cancel!")
        socket.send(b"\xff\xfe")
        publish_event(job, 30)
        assert next_events(socket)[0]["percent"] == 30


@pytest.mark.parametrize("path", ["/jobs/{}/ws", "/events/ws"])
def test_server_stop_closes_with_service_restart(lite_api: Api, errand: Make, path: str) -> None:
    with opened(lite_api, path.format(errand().id)) as socket:
        next_events(socket)
        lite_api.hub.hang_up_soon()
        assert closing(socket) == 1012
