"""Durations of requests and of steps of work: recorded after each request, read in the old service's shapes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import clock
from app.core.db import Database, database
from app.jobs.models import JobRow
from app.main import create_app
from app.metrics import operations, requests
from app.metrics.models import RequestMetric
from app.metrics.operations import OperationStep
from app.metrics.requests import RequestTiming
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv, make_schema
from tests.support.desk import Desk
from tests.support.job_events import publish_event
from tests.support.problems import assert_problem
from tests.support.services import PostgresServer
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, served

PAGE = "# Mills\n\nThe heron stands by the mill.\n"
SUMS = {"avg_duration_ms", "min_duration_ms", "max_duration_ms"}


def _requests(api: Api, **query: Any) -> Any:
    answer = api.client.get("/api/metrics/requests", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _recorded(api: Api, path: str, count: int = 1, **query: Any) -> list[Any]:
    """The rows of this path, when there are so many."""
    wait_until(lambda: _requests(api, path=path, **query)["total"] >= count, what=f"{path} to be recorded")
    rows: list[Any] = _requests(api, path=path, **query)["metrics"]
    return rows


def _put(*timings: RequestTiming) -> None:
    database().transaction(requests.write, timings)


def _timing(path: str = "/api/jobs", duration_ms: float = 2.0, *, hours: float = 0, **more: Any) -> RequestTiming:
    at = clock.now() - timedelta(hours=hours)
    columns: dict[str, Any] = {"tenant": "default", "method": "GET", "route": path, "status_code": 200, **more}
    return RequestTiming(at=at, path=path, duration_ms=duration_ms, request_id="r-1", client_ip="10.0.0.9", **columns)


def test_a_request_is_recorded_field_by_field(api: Api) -> None:
    job_id = str(uuid.uuid4())
    before = clock.now()
    answer = api.client.get(f"/api/jobs/{job_id}", headers={"X-Request-ID": "mine-7"})
    assert answer.status_code == 404
    [row] = _recorded(api, f"/api/jobs/{job_id}")
    assert row.keys() == {
        "id", "timestamp", "method", "path", "status_code", "duration_ms", "request_id", "client_ip",
    }  # fmt: skip
    assert row["id"].isdecimal() and row["timestamp"].endswith("Z")
    assert before <= datetime.fromisoformat(row["timestamp"]) <= clock.now()
    assert (row["method"], row["path"], row["status_code"]) == ("GET", f"/api/jobs/{job_id}", 404)
    assert (row["request_id"], row["client_ip"]) == ("mine-7", "127.0.0.1")
    # What the caller was told when the answer began; the row also counts its body.
    assert row["duration_ms"] >= float(answer.headers["x-process-time"]) > 0


def test_a_page_of_requests_with_the_sums_of_all(api: Api) -> None:
    _put(*[_timing("/api/x", float(n)) for n in range(1, 6)], _timing("/api/x", 99.0, hours=30))
    body = _requests(api, path="/api/x", limit=2, offset=1)
    assert body.keys() == {"metrics", "total", "limit", "offset", "summary"}
    assert (body["total"], body["limit"], body["offset"]) == (5, 2, 1)
    assert [row["duration_ms"] for row in body["metrics"]] == [4.0, 3.0]
    assert body["summary"] == {
        "avg_duration_ms": 3.0, "min_duration_ms": 1.0, "max_duration_ms": 5.0, "total_requests": 5,
    }  # fmt: skip
    assert _requests(api, path="/api/x", hours=31)["total"] == 6
    nothing = _requests(api, path="/no/such")
    assert nothing["metrics"] == [] and nothing["summary"] == {
        "avg_duration_ms": 0.0, "min_duration_ms": 0.0, "max_duration_ms": 0.0, "total_requests": 0,
    }  # fmt: skip


def test_requests_are_found_by_each_filter(api: Api) -> None:
    _put(
        _timing("/api/a/1", 5.0, route="/api/a/{a_id}", method="DELETE"),
        _timing("/api/a/2", 50.0, route="/api/a/{a_id}"),
        _timing("/api/b\x00\ud800" + "x" * 900, 500.0, method="M" * 90, route="unmatched"),
    )
    assert _requests(api, path="/api/a/1")["total"] == 1
    assert _requests(api, path="/api/a/{a_id}")["total"] == 2  # or by the route
    assert _requests(api, path="/api/a")["total"] == 0
    assert [row["path"] for row in _requests(api, method="delete")["metrics"]] == ["/api/a/1"]
    assert [row["duration_ms"] for row in _requests(api, min_duration_ms=50, path="/api/a/{a_id}")["metrics"]] == [50.0]
    [odd] = _requests(api, path="unmatched")["metrics"]
    assert len(odd["path"]) == 500 and odd["method"] == "M" * 16


@pytest.mark.parametrize(
    "query",
    [
        "requests?limit=0", "requests?limit=1001", "requests?offset=-1", "requests?hours=0", "requests?hours=169",
        "requests?min_duration_ms=x", "requests?min_duration_ms=nan", "operations?limit=0", "operations?limit=1001",
        "operations?offset=-1", "operations?hours=0", "operations?hours=169", "operations?success=perhaps",
        "summary?hours=0", "summary?hours=169", "summary?hours=x",
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_422_as_a_list(lite_api: Api, query: str) -> None:
    answer = lite_api.client.get(f"/api/metrics/{query}")
    assert_problem(answer, 422, "invalid_input")
    assert answer.json()["detail"][0]["loc"][0] == "query"
    name, _, value = query.partition("?")[2].partition("=")
    assert answer.json()["detail"][0]["loc"][1] == name and value


@pytest.mark.parametrize(
    "query", ["requests?limit=1000&hours=168", "requests?limit=1&hours=1", "operations?limit=1000", "summary?hours=168"]
)
def test_the_bounds_themselves_are_allowed(lite_api: Api, query: str) -> None:
    assert lite_api.client.get(f"/api/metrics/{query}").status_code == 200
    assert_problem(lite_api.anyone.get(f"/api/metrics/{query}"), 401, "unauthenticated")


def test_each_tenant_sees_its_own(api: Api) -> None:
    """Operators see their requests and those without a key, and by name or `*` those of other tenants."""
    work = [OperationStep("embedding", "embed_batch", 1.0)]
    for tenant in ("default", "acme"):
        database().transaction(operations.write, work, tenant=tenant, at=clock.now())
    with holder(api, "read", tenant="acme") as acme, holder(api, "read") as reader:
        acme.get("/api/jobs?who=acme")
        reader.get("/api/me")
        api.anyone.get("/api/stats")
        _recorded(api, "/api/stats")
        _recorded(api, "/api/me")
        _recorded(api, "/api/jobs", tenant="acme")
        assert _requests(api, path="/api/jobs")["total"] == 0
        assert _requests(api, path="/api/jobs", tenant="*")["total"] == 1
        assert _requests(api, path="/api/stats", tenant="acme")["total"] == 0
        for client, own in ((acme, "/api/jobs"), (reader, "/api/me")):
            paths = {row["path"] for row in client.get("/api/metrics/requests").json()["metrics"]}
            assert own in paths and not paths & ({"/api/jobs", "/api/me", "/api/stats"} - {own})
            assert client.get("/api/metrics/operations").json()["total"] == 1
            summary = client.get("/api/metrics/summary").json()
            assert summary["operations_by_type"]["embedding"]["total_operations"] == 1
            assert {endpoint["path"] for endpoint in summary["slowest_endpoints"]} >= {own}
            for route in ("requests", "operations", "summary"):
                assert_problem(client.get(f"/api/metrics/{route}?tenant=*"), 404, "tenant_not_found")
        assert api.client.get("/api/metrics/operations?tenant=*").json()["total"] == 2
        wait_until(lambda: _errors(api, "acme") == 3, what="the refusals to be recorded")


def _errors(api: Api, tenant: str) -> int:
    count: int = api.client.get(f"/api/metrics/summary?tenant={tenant}").json()["requests"]["error_count"]
    return count


def test_probes_files_and_streams_are_not_recorded(lite_api: Api, errand: Callable[..., JobRow]) -> None:
    job = errand()
    for path in ("/livez", "/readyz", "/health", "/metrics", "/static/app.js"):
        lite_api.anyone.get(path)
    publish_event(job, 10)
    with lite_api.client.stream("GET", f"/api/jobs/{job.id}/events") as stream:
        assert float(stream.headers["x-process-time"]) >= 0
        publish_event(job, 100, state="succeeded", name="end")
        assert "event: end" in "".join(stream.iter_text())
    assert lite_api.client.get(f"/api/jobs/{uuid.uuid4()}/events").status_code == 404
    rows = _recorded(lite_api, "/api/jobs/{job_id}/events")
    assert [row["status_code"] for row in rows] == [404]  # no stream began
    assert {row["path"] for row in _requests(lite_api)["metrics"]} <= {rows[0]["path"], "/api/metrics/requests"}


def test_every_answer_says_how_long_it_took(lite_api: Api) -> None:
    """In milliseconds with two decimals, also an error and one that no route made."""
    for path in ("/", "/nowhere", "/api/jobs", "/api/jobs?limit=0", "/%00"):
        process_time = lite_api.client.get(path).headers["x-process-time"]
        assert process_time == f"{float(process_time):.2f}"


@pytest.mark.parametrize(("proxies", "recorded_ip"), [("127.0.0.1", "203.0.113.7"), ("10.0.0.1", "127.0.0.1")])
def test_the_callers_address_is_believed_of_trusted_proxies_alone(
    sqlite_url: str, redis_url: str, settings_env: SettingsEnv, proxies: str, recorded_ip: str
) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_url, trusted_proxies=proxies)
    with served(create_app()) as api:
        api.client.get("/api/stats", headers={"X-Forwarded-For": "203.0.113.7"})
        assert [row["client_ip"] for row in _recorded(api, "/api/stats")] == [recorded_ip]


def test_nothing_is_recorded_where_that_is_off(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_url, metrics_requests="off")
    with served(create_app()) as api:
        assert api.client.get("/api/stats").status_code == 200
        assert len(api.app.state.recorder) == 0
    assert _rows() == 0


def test_a_stop_writes_what_is_held(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_url)
    with served(create_app()) as api:
        for _ in range(20):
            api.client.get("/")
    assert _rows() == 20


def test_requests_go_on_while_sql_is_down(
    postgres_server: PostgresServer, redis_url: str, settings_env: SettingsEnv
) -> None:
    """Requests are as fast as before, and the buffered rows are written once the database is back."""
    url = postgres_server.create_database("metrics")
    make_schema(url)
    settings_env(database_url=url, redis_url=redis_url)
    with served(create_app()) as api:
        recorder = api.app.state.recorder
        api.client.get("/api/kinds")
        wait_until(lambda: _rows() == 1, what="the first to be written")
        postgres_server.stop()
        slowest = 0.0
        for _ in range(100):
            begun = time.perf_counter()
            assert api.client.get("/api/kinds").status_code == 200
            slowest = max(slowest, time.perf_counter() - begun)
            time.sleep(0.02)  # so that several writes fail
        assert len(recorder) == 100 and recorder.dropped == 0
        assert slowest < 0.5, slowest
        postgres_server.restart()
        wait_until(lambda: _rows() == 101, what="the rest to be written")
        assert len(recorder) == 0


def _rows() -> int:
    return database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(RequestMetric))) or 0


# Steps of work


def _operations(api: Api, **query: Any) -> Any:
    answer = api.client.get("/api/metrics/operations", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_steps_of_an_indexed_page(api: Api) -> None:
    """Of the old service's names, field by field; nothing for a page that had not changed."""
    body = {"url": "https://a.org/mill", "markdown": PAGE, "title": "Mills"}
    job_id = api.client.post("/api/index", json=body, headers={"X-Request-ID": "mine-8"}).json()["job_id"]
    result = Desk(database()).work(job_id)
    Desk(database()).work(api.client.post("/api/index", json=body).json()["job_id"])
    body = _operations(api)
    assert body.keys() == {"metrics", "total", "limit", "offset", "summary_by_type"}
    assert (body["total"], body["limit"], body["offset"]) == (4, 100, 0)
    named = {(row["operation_type"], row["operation_name"]): row for row in body["metrics"]}
    assert named.keys() == {
        ("extraction", "extract_text"), ("chunking", "chunk_text"), ("embedding", "embed_batch"),
        ("qdrant", "index_chunks"),
    }  # fmt: skip
    row = named["embedding", "embed_batch"]
    assert row.pop("id").isdecimal() and row.pop("timestamp").endswith("Z")
    assert row == {
        "operation_type": "embedding", "operation_name": "embed_batch", "duration_ms": result["timings_ms"]["embed"],
        "success": True, "error_message": None, "request_id": "mine-8", "job_id": job_id,
        "document_url": "https://a.org/mill",
    }  # fmt: skip
    sums = body["summary_by_type"]["chunking"]
    assert sums.keys() == SUMS | {"total_operations", "successful_operations", "failed_operations", "success_rate"}
    assert (sums["total_operations"], sums["failed_operations"], sums["success_rate"]) == (1, 0, 100.0)


@pytest.mark.parametrize(
    ("stage", "named"),
    [("embed", ("embedding", "embed_batch")), (None, ("indexing", "index_document"))],
)
def test_a_failed_step_is_told_with_its_error(api: Api, stage: str | None, named: tuple[str, str]) -> None:
    """It is the step that the job was at, and counts the time of the whole run."""
    desk = Desk(database())
    accepted = desk.give(PAGE, url="https://a.org/failed")
    claim = desk.claim(accepted.job.id).claim
    fault = {"error_type": "Unavailable", "error_code": "embedder", "error_message": "no answer"}
    started_at = clock.now() - timedelta(seconds=3)
    desk._finish(claim, "failed", progress={"stage": stage}, started_at=started_at, **fault)
    [row] = _operations(api, success="false")["metrics"]
    assert (row["operation_type"], row["operation_name"]) == named
    assert (row["success"], row["error_message"], row["job_id"]) == (False, "no answer", accepted.job.id)
    assert row["document_url"] == "https://a.org/failed" and 3000 <= row["duration_ms"] < 60_000
    sums = _operations(api)["summary_by_type"][named[0]]
    assert (sums["successful_operations"], sums["failed_operations"], sums["success_rate"]) == (0, 1, 0.0)


def test_a_cancelled_job_is_no_failed_step(lite_api: Api) -> None:
    accepted = Desk(database()).give(PAGE)
    assert lite_api.client.post(f"/api/jobs/{accepted.job.id}/cancel").status_code == 200
    assert _operations(lite_api)["total"] == 0


def test_operations_are_found_by_each_filter(api: Api) -> None:
    def put(type_: str, name: str, ms: float, error: str | None = None, *, hours: float = 0, **about: Any) -> None:
        at = clock.now() - timedelta(hours=hours)
        database().transaction(
            operations.write, [OperationStep(type_, name, ms, error)], tenant="default", at=at, **about
        )

    put("embedding", "embed_batch", 10.0, document_url="https://a.org/1", crawl_id="c-1")
    put("embedding", "embed_batch", 30.0, "no \ud800\x00answer", document_url="https://a.org/2")
    put("chunking", "chunk_text", 1.0, document_url="https://a.org/1")
    put("chunking", "chunk_text", 7.0, hours=50)
    assert [row["duration_ms"] for row in _operations(api, operation_type="embedding")["metrics"]] == [30.0, 10.0]
    assert _operations(api, operation_name="chunk_text")["total"] == 1
    assert _operations(api, document_url="https://a.org/1")["total"] == 2
    assert _operations(api, success="true")["total"] == 2
    assert _operations(api, min_duration_ms=10)["total"] == 2
    assert _operations(api, hours=51)["total"] == 4
    page = _operations(api, limit=1, offset=1)
    assert (len(page["metrics"]), page["total"]) == (1, 3)
    assert page["summary_by_type"]["embedding"] == {
        "avg_duration_ms": 20.0, "min_duration_ms": 10.0, "max_duration_ms": 30.0, "total_operations": 2,
        "successful_operations": 1, "failed_operations": 1, "success_rate": 50.0,
    }  # fmt: skip


def test_everything_at_a_look(api: Api) -> None:
    _put(*[_timing(f"/api/r{n}/7", float(n), route=f"/api/r{n}/{{id}}") for n in range(1, 13)])
    _put(_timing("/api/r12/8", 24.0, route="/api/r12/{id}", status_code=503), _timing("/api/old", 9e9, hours=25))
    steps = [
        OperationStep("embedding", "embed_batch", 4.0),
        OperationStep("embedding", "embed_batch", 8.0, "no answer"),
    ]
    database().transaction(operations.write, steps, tenant="default", at=clock.now())
    # Its own database holds requests of this test too: only those that were put are as slow.
    summary = api.client.get("/api/metrics/summary").json()
    assert summary.keys() == {"time_period_hours", "requests", "operations_by_type", "slowest_endpoints"}
    assert summary["time_period_hours"] == 24
    assert summary["requests"].keys() == {"total", "avg_duration_ms", "error_count"}
    assert (summary["requests"]["total"], summary["requests"]["error_count"]) == (13, 1)
    assert summary["requests"]["avg_duration_ms"] == round((78 + 24) / 13, 2)
    assert summary["operations_by_type"] == {
        "embedding": {"total_operations": 2, "avg_duration_ms": 6.0, "error_count": 1}
    }
    assert len(summary["slowest_endpoints"]) == 10
    assert summary["slowest_endpoints"][0] == {
        "path": "/api/r12/{id}", "avg_duration_ms": 18.0, "request_count": 2,
    }  # fmt: skip


def test_an_empty_look_has_its_shape(lite_api: Api) -> None:
    assert lite_api.client.get("/api/metrics/summary?hours=1").json() == {
        "time_period_hours": 1,
        "requests": {"total": 0, "avg_duration_ms": 0.0, "error_count": 0},
        "operations_by_type": {},
        "slowest_endpoints": [],
    }


def test_steps_end_with_their_job_in_one_transaction(db: Database) -> None:
    """The end of a job whose worker has lost it writes no step."""
    desk = Desk(db)
    accepted = desk.give(PAGE, url="https://a.org/1")
    progress = desk.claim(accepted.job.id)
    result = desk.run(progress)
    desk._finish(progress.claim._replace(fence=99), "succeeded", result=result)
    count = sa.select(sa.func.count()).select_from(sa.table("operation_metric"))
    assert db.read(lambda session: session.scalar(count)) == 0
    desk._finish(progress.claim, "succeeded", result=result)
    assert db.read(lambda session: session.scalar(count)) == 4
