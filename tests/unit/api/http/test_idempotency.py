"""`Idempotency-Key`: the same request again is answered as the first time, and works once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.api.http.idempotency import LOCK_TIMEOUT_S
from app.core import clock
from app.core.db import database
from app.jobs.definition import Job
from app.jobs.models import IdempotencyRow, JobRow
from tests.unit.api.conftest import Api
from tests.unit.jobs.ledger.unique_kinds import at_once

PARCEL = {"kind": "tests.idempotency.parcel", "payload": {"number": 1}}


class Parcel(Job, kind="tests.idempotency.parcel", open_to="write"):
    number: int = 0


@pytest.fixture(autouse=True)
def _right_clock() -> Iterator[None]:
    yield
    clock.shift(timedelta(0))


def _count() -> int:
    return database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(JobRow)) or 0)


def _post(api: Api, path: str, body: Any, key: str = "key-1", **more: Any) -> Any:
    return api.client.post(path, json=body, headers={"Idempotency-Key": key}, **more)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/jobs", PARCEL),
        ("/api/jobs", [PARCEL, PARCEL]),
        ("/api/documents", {"url": "https://a.example/", "markdown": "text"}),
        ("/api/documents", {"url": "https://a.example/"}),
        ("/api/index", {"url": "https://a.example/", "markdown": "text"}),
    ],
)
def test_repeated_request_gets_the_first_answer(api: Api, path: str, body: Any) -> None:
    first = _post(api, path, body)
    made = _count()
    database().transaction(lambda session: session.execute(sa.update(JobRow).values(priority=7)))
    second = _post(api, path, body)
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert second.headers.get("location") == first.headers.get("location")
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert _count() == made
    assert _post(api, path, body, key="key-2").status_code == 202


def test_different_request_with_the_same_key_is_refused(api: Api) -> None:
    _post(api, "/api/jobs", PARCEL)
    for path, body in (("/api/jobs", {**PARCEL, "priority": 1}), ("/api/documents", {"markdown": "x"})):
        refused = _post(api, path, body)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert _count() == 1


def test_a_refused_request_leaves_its_key_free(api: Api) -> None:
    held = {**PARCEL, "unique_key": "held", "on_conflict": "raise"}
    first = api.client.post("/api/jobs", json=held).json()
    assert _post(api, "/api/jobs", held).status_code == 409
    assert api.client.post(f"/api/jobs/{first['id']}/cancel").status_code == 200
    again = _post(api, "/api/jobs", held)
    assert again.status_code == 202
    assert again.json()["id"] != first["id"]


def test_key_expires_after_a_day(api: Api) -> None:
    first = _post(api, "/api/jobs", PARCEL).json()
    clock.shift(timedelta(hours=23))
    assert _post(api, "/api/jobs", PARCEL).json()["id"] == first["id"]
    clock.shift(timedelta(hours=25))
    again = _post(api, "/api/jobs", {**PARCEL, "priority": 1})
    assert again.status_code == 202
    assert again.json()["id"] != first["id"]


def test_fifty_concurrent_repeats_make_one_job_and_get_one_answer(api: Api) -> None:
    answers = at_once(50, lambda number: _post(api, "/api/jobs", PARCEL))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count(None) == 1
    assert _count() == 1


def test_repeated_request_may_wait_for_the_job(api: Api) -> None:
    first = _post(api, "/api/jobs", PARCEL).json()
    api.client.post(f"/api/jobs/{first['id']}/cancel")
    again = _post(api, "/api/jobs", PARCEL, params={"wait": 5})
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


def test_tenants_do_not_share_idempotency_keys(api: Api) -> None:
    assert api.client.post("/api/tenants", json={"id": "acme", "name": "Acme"}).status_code == 201
    made = api.client.post("/api/keys", json={"name": "n", "scopes": ["write"], "tenant": "acme"}).json()
    first = _post(api, "/api/jobs", PARCEL).json()
    headers = {"Authorization": f"Bearer {made['key']}", "Idempotency-Key": "key-1"}
    other = api.anyone.post("/api/jobs", json=PARCEL, headers=headers).json()
    assert (first["tenant"], other["tenant"]) == ("default", "acme")


@pytest.mark.parametrize("key", ["", "x" * 256, "sch\u00f6n"])
def test_invalid_key_is_refused(lite_api: Api, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = lite_api.client.post("/api/jobs", json=PARCEL, headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_repeat_during_a_long_request_is_a_conflict(api: Api) -> None:
    with database().engine.begin() as connection:
        row = {"tenant": "default", "key": "key-1", "request_hash": "0" * 64, "created_at": clock.now()}
        connection.execute(sa.insert(IdempotencyRow), row)
        started = clock.monotonic()
        answer = _post(api, "/api/jobs", PARCEL)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
        assert clock.monotonic() - started >= LOCK_TIMEOUT_S - 1
        connection.rollback()
    assert _post(api, "/api/jobs", PARCEL).status_code == 202
