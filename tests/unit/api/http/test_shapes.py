"""One shape of error for everything, request ids, credentials, limits, and whatever odd thing is sent."""

from __future__ import annotations

import json
import socket
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import Body

from app.api.http.auth import Caller
from app.api.http.errors import RateLimited
from app.core import errors
from app.core.db import database, in_transaction
from app.jobs.models import JobRow
from app.main import create_app
from tests.support.databases import SettingsEnv
from tests.support.problems import assert_problem
from tests.support.stack import API_SECRET
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, served

Make = Callable[..., JobRow]
RAISED: dict[str, tuple[Callable[[], Exception], int, str]] = {
    "InvalidInput": (lambda: errors.InvalidInput("odd", code="odd", errors=[{"field": "x"}]), 422, "odd"),
    "NotFound": (lambda: errors.NotFound("gone"), 404, "not_found"),
    "Conflict": (lambda: errors.Conflict("no"), 409, "conflict"),
    "NotAllowed": (lambda: errors.NotAllowed("no"), 403, "not_allowed"),
    "LimitReached": (lambda: errors.LimitReached("slow", 2.5), 429, "limit_reached"),
    "Unavailable": (lambda: errors.Unavailable("away", retry_after_s=7), 503, "unavailable"),
    "Rejected": (lambda: errors.Rejected("no"), 502, "rejected"),
    "Stale": (lambda: errors.Stale("moved"), 500, "internal_error"),
    "bug": (lambda: RuntimeError("secret thing"), 500, "internal_error"),
    "rate": (
        lambda: RateLimited("Rate limit exceeded: 50 per 1 minute", 12.2, policy="search", limit=50, window_s=60),
        429,
        "rate_limited",
    ),
}


@pytest.fixture
def faulty(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> Iterator[Api]:
    """The application with routes that fail in every way, and a small limit of bodies."""
    settings_env(database_url=sqlite_url, redis_url=redis_url, max_body_bytes=2000)
    app = create_app()

    @app.get("/fail/{how}")
    async def fail(how: str) -> None:
        make, _, _ = RAISED[how]
        raise make()

    @app.post("/echo")
    async def echo(caller: Caller, count: int = Body(), word: str = Body()) -> dict[str, object]:
        return {"count": count, "word": word, "tenant": caller.tenant, "request_id": caller.request_id}

    app.post("/api/content/echo", operation_id="echo_of_an_old_route")(echo)

    @app.post("/store")
    async def store(word: str = Body(embed=True)) -> None:
        await in_transaction(lambda session: session.get(JobRow, word))

    with served(app) as running:
        wait_until(lambda: running.hub.has_redis, what="the hub to reach Redis")
        yield running


@pytest.mark.parametrize("how", RAISED)
def test_each_error_has_its_status_and_the_one_shape(faulty: Api, how: str) -> None:
    _, status, code = RAISED[how]
    answer = faulty.client.get(f"/fail/{how}")
    assert_problem(answer, status, code)
    assert "secret thing" not in answer.text
    if status == 503:
        assert answer.headers["retry-after"] == "7"


def test_a_limit_says_when_and_how_much_in_old_words_and_new(faulty: Api) -> None:
    answer = faulty.client.get("/fail/rate")
    assert answer.json()["error"] == "Rate limit exceeded: 50 per 1 minute"
    assert answer.headers["retry-after"] == "13"
    assert answer.headers["ratelimit"] == '"search";r=0;t=13'
    assert answer.headers["ratelimit-policy"] == '"search";q=50;w=60'


def test_routes_and_methods_that_are_not_there(faulty: Api) -> None:
    assert_problem(faulty.client.get("/nowhere"), 404, "not_found")
    answer = faulty.client.delete("/livez")
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


def test_invalid_bodies_are_told_apart_by_route(faulty: Api) -> None:
    """New routes give a sentence and errors[]; the old service's clients find their list in `detail`."""
    new, old = (faulty.client.post(path, json={"count": "x"}) for path in ("/echo", "/api/content/echo"))
    assert_problem(new, 422, "invalid_input")
    assert "body.count" in new.json()["detail"]
    assert [fault["field"] for fault in new.json()["errors"]] == ["body.count", "body.word"]
    assert_problem(old, 422, "invalid_input")
    assert old.json()["detail"][0]["loc"] == ["body", "count"]


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (None, "Missing Authorization header"),
        (b"", "Missing Authorization header"),
        (b"Bearer wrong", "Invalid credentials"),
        (b"bearer " + API_SECRET.encode(), "Invalid credentials"),
        (b"Bearer", "Invalid credentials"),
        (b"Basic dTpw", "Invalid credentials"),
        ("Bearer clé".encode(), "Invalid credentials"),
        (b"\xff\xfe\x80", "Invalid credentials"),
        (b"x" * 5000, "Invalid credentials"),
    ],
)
def test_wrong_credentials(faulty: Api, header: bytes | None, detail: str) -> None:
    """And they are looked at before the body is judged."""
    headers = [] if header is None else [(b"Authorization", header)]
    for answer in (
        faulty.anyone.get("/api/jobs", headers=headers),
        faulty.anyone.post("/echo", json=[], headers=headers),
    ):
        assert_problem(answer, 401, "unauthenticated")
        assert answer.json()["detail"] == detail
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_secret_alone_is_enough(faulty: Api) -> None:
    assert faulty.anyone.get("/api/jobs", headers={"Authorization": API_SECRET}).status_code == 200


@pytest.mark.parametrize("open_", ["/", "/livez", "/readyz", "/health", "/metrics", "/docs", "/openapi.json"])
def test_what_is_open_to_everybody(faulty: Api, open_: str) -> None:
    assert faulty.anyone.get(open_).status_code == 200


def test_a_good_request_id_is_kept_and_any_other_replaced(faulty: Api) -> None:
    assert faulty.client.get("/", headers={"X-Request-ID": "my-id:7"}).headers["x-request-id"] == "my-id:7"
    for odd in (b"", b"two words", b"\xc3\xa9", b"x" * 129, b"tab\there"):
        given = faulty.client.get("/", headers=[(b"X-Request-ID", odd)]).headers["x-request-id"]
        assert str(uuid.UUID(given)) == given
    body = {"count": 1, "word": "w"}
    assert faulty.client.post("/echo", json=body, headers={"X-Request-ID": "r"}).json()["request_id"] == "r"


def test_huge_bodies_are_refused_announced_or_not(faulty: Api) -> None:
    big = json.dumps({"count": 1, "word": "w" * 3000}).encode()
    assert_problem(faulty.client.post("/echo", content=big), 413, "body_too_large")
    chunks = (big[start : start + 100] for start in range(0, len(big), 100))
    headers = {"Content-Type": "application/json"}
    assert_problem(faulty.client.post("/echo", content=chunks, headers=headers), 413, "body_too_large")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"text"', 422),
        (b"\xff\xfe{}", 400),
        (b"\x00", 422),
        (b'{"count": NaN, "word": 3}', 422),
        (b'{"count": 1e999, "word": "x"}', 422),
        (b'{"count": 1, "word": "\\ud800"}', 422),
        (b"[" * 900, 422),
    ],
)
@pytest.mark.parametrize("path", ["/echo", "/api/content/echo"])
def test_odd_bodies_get_a_clean_answer(faulty: Api, path: str, body: bytes, status: int) -> None:
    answer = faulty.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {status, 400, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/xml", "multipart/form-data", "x", "application/json; charset=é"]
)
def test_a_body_of_another_type_is_refused(faulty: Api, kind: str | None) -> None:
    headers = [] if kind is None else [(b"Content-Type", kind.encode())]
    answer = faulty.client.post("/echo", content=b"count=1", headers=headers)
    assert answer.status_code in (400, 415, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/api/jobs/%00", "/api/jobs?kind=%00", "/%00", "/api/jobs?%00=1"])
def test_a_nul_in_the_address_is_refused(faulty: Api, path: str) -> None:
    assert_problem(faulty.client.get(path), 400, "nul_character")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /api/jobs HTTP/1.1\r\nHost: x\r\nX-Odd: a\x00b\r\n\r\n",
        b"GET /api/jobs HTTP/1.1\r\nHost: x\r\nX-Request-ID: \x80\xff\r\nAuthorization: \xe9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
    ],
)
def test_odd_bytes_on_the_wire_get_an_answer_below_500(faulty: Api, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", faulty.port), timeout=10) as connection:
        connection.sendall(raw)
        answer = connection.recv(4000)
    assert answer.startswith(b"HTTP/1.1 "), answer
    assert int(answer.split()[1]) < 500


def test_browsers_of_an_allowed_origin_may_call(
    sqlite_url: str, redis_url: str, settings_env: SettingsEnv, errand: Make
) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_url, cors_origins="http://localhost:3000,https://a.example")
    with served(create_app()) as api:
        allowed = api.client.get("/api/jobs", headers={"Origin": "https://a.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-origin" not in api.client.get("/", headers={"Origin": "https://evil"}).headers
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        assert api.anyone.options("/api/jobs/x/cancel", headers=asked).status_code == 200
        with api.client.stream(
            "GET", f"/api/jobs/{errand().id}/events", headers={"Origin": "https://a.example"}
        ) as stream:
            assert stream.headers["access-control-allow-origin"] == "https://a.example"


def test_sql_that_is_away_is_503_and_says_when_to_come_back(
    redis_url: str, settings_env: SettingsEnv, sqlite_url: str
) -> None:
    settings_env(database_url="postgresql://nobody@127.0.0.1:1/none", redis_url=redis_url)
    with served(create_app()) as api:
        answer = api.client.get("/api/jobs")
        assert_problem(answer, 503, "database_unavailable")
        assert answer.headers["retry-after"]
        ready = api.anyone.get("/readyz")
        assert_problem(ready, 503, "not_ready")
        assert ready.json()["missing"] == ["sql"]
        health = api.anyone.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")


def test_ready_names_redis_when_it_is_missing(sqlite_url: str, settings_env: SettingsEnv) -> None:
    settings_env(database_url=sqlite_url, redis_url="redis://127.0.0.1:1/0")
    with served(create_app()) as api:
        assert api.anyone.get("/readyz").json()["missing"] == ["redis"]
        assert api.client.get("/api/jobs").status_code == 200


def test_health_and_metrics_tell_of_this_process(lite_api: Api, errand: Make) -> None:
    wait_until(lambda: lite_api.anyone.get("/readyz").status_code == 200, what="the api to be ready")
    with lite_api.client.stream("GET", f"/api/jobs/{errand().id}/events"):
        body = lite_api.anyone.get("/health").json()
    assert body["status"] == "healthy"
    assert body["services"] == {"sql": "healthy", "redis": "healthy"}
    assert body["threads"] > 0
    assert body["loop_lag_ms"] >= 0
    assert body["streams"] == 1
    assert {"timestamp", "version", "role"} <= body.keys()
    wait_until(lambda: lite_api.hub.subscriber_count == 0, what="the stream to have ended")
    text = lite_api.anyone.get("/metrics").text
    assert 'millrace_http_request_duration_seconds_count{method="GET",route="/health",status="200"}' in text
    assert "millrace_event_streams" in text
    assert 'route="/api/jobs/{job_id}/events"' in text


def _unwritable(api: Api, code: str) -> None:
    """Writing is refused for now, reading goes on."""
    answer = api.client.post("/api/documents", json={"text": "some text that must be kept"})
    assert_problem(answer, 503, code)
    assert answer.headers["retry-after"]
    assert api.client.get("/api/jobs").json()["data"] == []


def test_a_read_only_database_is_503(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    settings_env(database_url=f"sqlite:///file:{path}?mode=ro&uri=true", redis_url=redis_url)
    with served(create_app()) as api:
        _unwritable(api, "database_unavailable")


def test_a_full_disk_is_503_and_nothing_is_lost(lite_api: Api) -> None:
    def fill(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # no page more than there are

    sa.event.listen(database().engine, "connect", fill)
    database().engine.dispose()
    big = {"text": "some text that must be kept " * 20_000}
    assert_problem(lite_api.client.post("/api/documents", json=big), 503, "database_unavailable")
    assert lite_api.client.get("/api/documents").json()["data"] == []
    sa.event.remove(database().engine, "connect", fill)
    database().engine.dispose()
    assert lite_api.client.post("/api/documents", json=big).status_code == 202


def test_a_database_that_another_program_locks_is_503_after_some_patience(lite_api: Api, sqlite_url: str) -> None:
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        _unwritable(lite_api, "database_unavailable")
    assert lite_api.client.post("/api/documents", json={"text": "again"}).status_code == 202


def test_work_is_accepted_while_redis_is_down(sqlite_url: str, settings_env: SettingsEnv) -> None:
    settings_env(database_url=sqlite_url, redis_url="redis://127.0.0.1:1/0")
    with served(create_app()) as api:
        answer = api.client.post("/api/documents", json={"text": "kept in SQL"})
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert answer.headers["location"] == f"/api/jobs/{answer.json()['id']}"
