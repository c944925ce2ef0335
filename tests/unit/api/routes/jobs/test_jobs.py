"""Jobs over HTTP: shown, listed in pages, waited for, cancelled, tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.core import ids
from app.core.db import database
from app.jobs.models import JobRow
from tests.support.job_events import publish_event, set_job
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api

Make = Callable[..., JobRow]


def test_job_view_has_every_field(api: Api, errand: Make) -> None:
    job = errand(note="hello", document_id=12)
    shown = api.client.get(f"/api/jobs/{job.id}").json()
    assert shown["kind"] == "tests.unit.api.errand"
    assert (shown["state"], shown["attempt"], shown["max_attempts"], shown["tenant"]) == ("queued", 1, 4, "default")
    assert shown["progress"] == {
        "percent": None, "stage": None, "done": None, "total": None, "unit": None, "message": None, "seq": 0,
    }  # fmt: skip
    assert (shown["payload"], shown["result"], shown["document_id"]) == ({"note": "hello"}, None, "12")
    assert (shown["attempts"], shown["children"]["total"], shown["error"]) == ([], 0, None)
    assert shown["created_at"].endswith("Z")
    assert api.client.get(f"/api/tasks/{job.id}").json() == shown


@pytest.mark.parametrize(
    "odd",
    ["x", "0", "01a20472-8105-7f57-9d0a-6beac39f915f", "01A20472-8105-7F57-9D0A-6BEAC39F915F", "%20", "é", "a" * 900],
)
@pytest.mark.parametrize("path", ["/api/jobs/{}", "/api/tasks/{}", "/api/jobs/{}/events", "/api/jobs/{}?wait=1"])
def test_an_unknown_or_malformed_id_is_not_found(lite_api: Api, path: str, odd: str) -> None:
    answer = lite_api.client.get(path.format(odd))
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_list_is_paged_newest_first(api: Api, errand: Make) -> None:
    made = [errand().id for _ in range(7)][::-1]
    seen: list[str] = []
    cursor: str | None = None
    for expected in (3, 3, 1):
        page = api.client.get("/api/jobs", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["data"]) == expected
        seen += [job["id"] for job in page["data"]]
        errand()  # a new job does not shift the pages
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
    assert seen == made


def test_a_list_is_filtered(api: Api, errand: Make) -> None:
    plain, failed, about = errand(), errand(), errand(document_id=5)
    errand(tenant="other")
    set_job(failed, state="failed", error_type="E", error_code="boom", error_message="m")

    def listed_ids(**filters: Any) -> set[str]:
        answer = api.client.get("/api/jobs", params=filters)
        assert answer.status_code == 200, answer.text
        return {job["id"] for job in answer.json()["data"]}

    assert listed_ids() == {plain.id, failed.id, about.id}
    assert listed_ids(state="failed") == listed_ids(error_code="boom") == {failed.id}
    assert listed_ids(state=["queued", "running"]) == listed_ids(state="queued,running") == {plain.id, about.id}
    assert listed_ids(document_id=5) == {about.id}
    assert listed_ids(kind="tests.unit.api.errand", queue="default") == listed_ids()
    assert listed_ids(kind="other") == listed_ids(queue="bulk") == set()
    assert listed_ids(parent_id=plain.id) == set()
    set_job(about, parent_id=plain.id, child_index=0)
    assert listed_ids(parent_id=plain.id) == {about.id}
    shown = api.client.get(f"/api/jobs/{failed.id}").json()
    assert failed.id not in listed_ids(created_after=api.client.get(f"/api/jobs/{about.id}").json()["created_at"])
    assert listed_ids(created_before=shown["created_at"]) == {plain.id}
    assert listed_ids(created_after="2020-01-01T00:00:00+05:00") == listed_ids()


@pytest.mark.parametrize(
    "wrong",
    [
        "limit=0", "limit=201", "limit=x", "limit=1e3", "cursor=x", "cursor=é", "cursor=W10", "cursor=WzFd",
        "cursor=eyJ9",
        "cursor=" + "W" * 501, "state=lost", "parent_id=x",
        "document_id=x", "document_id=99999999999999999999", "created_after=soon",
        "created_after=0001-01-01T00:00:00%2B14:00", "kind=" + "k" * 101,
    ],
)  # fmt: skip
def test_invalid_filter_is_refused(api: Api, wrong: str) -> None:
    answer = api.client.get(f"/api/jobs?{wrong}")
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_wait_returns_as_soon_as_the_job_has_ended(api: Api, errand: Make) -> None:
    job = errand()

    def finish() -> None:
        set_job(job, state="succeeded", result={"n": 1})
        publish_event(job, 100, state="succeeded", name="end")

    timer = threading.Timer(0.3, finish)
    timer.start()
    answer = api.client.get(f"/api/jobs/{job.id}?wait=20")
    timer.join()
    assert (answer.json()["state"], answer.json()["result"]) == ("succeeded", {"n": 1})
    assert answer.elapsed.total_seconds() < 5


def test_wait_returns_at_once_for_an_ended_job_and_shows_an_open_one_at_its_timeout(
    lite_api: Api, errand: Make
) -> None:
    open_, ended = errand(), errand()
    set_job(ended, state="failed")
    assert lite_api.client.get(f"/api/jobs/{ended.id}?wait=30").elapsed.total_seconds() < 2
    assert lite_api.client.get(f"/api/jobs/{open_.id}?wait=0.2").json()["state"] == "queued"
    assert lite_api.hub.subscriber_count == 0


@pytest.mark.parametrize("wrong", ["61", "-1", "x", "nan", "inf"])
def test_a_wrong_wait_is_refused(lite_api: Api, errand: Make, wrong: str) -> None:
    assert lite_api.client.get(f"/api/jobs/{errand().id}?wait={wrong}").status_code == 422


def test_waiting_job_is_cancelled_at_once_and_a_repeat_changes_nothing(api: Api, errand: Make) -> None:
    job = errand()
    for _ in range(2):
        answer = api.client.post(f"/api/jobs/{job.id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


def test_cancel_of_a_running_job_is_requested(api: Api, errand: Make) -> None:
    job = errand()
    set_job(job, state="running")
    answer = api.client.post(f"/api/jobs/{job.id}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (202, f"/api/jobs/{job.id}")
    assert answer.json()["cancel_requested_at"] is not None


def test_ended_job_cannot_be_cancelled(api: Api, errand: Make) -> None:
    job = errand()
    set_job(job, state="succeeded")
    answer = api.client.post(f"/api/jobs/{job.id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_state")
    assert "succeeded" in answer.json()["detail"]


def test_failed_job_can_be_retried_and_an_open_one_cannot(api: Api, errand: Make) -> None:
    job = errand()
    set_job(job, state="failed", tries=4, error_type="E", error_message="m")
    answer = api.client.post(f"/api/jobs/{job.id}/retry")
    assert (answer.status_code, answer.headers["location"]) == (202, f"/api/jobs/{job.id}")
    assert (answer.json()["state"], answer.json()["attempt"], answer.json()["error"]) == ("queued", 1, None)
    refused = api.client.post(f"/api/jobs/{job.id}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_state")


@pytest.mark.parametrize("how", [{"params": {"wait": "10"}}, {"headers": {"Prefer": "respond-async, wait=10"}}])
def test_accepted_work_may_be_waited_for(lite_api: Api, errand: Make, how: dict[str, Any]) -> None:
    job = errand()
    set_job(job, state="failed")

    def finish() -> None:
        wait_until(lambda: lite_api.hub.subscriber_count > 0, what="the request to wait for the job")
        set_job(job, state="succeeded")
        publish_event(job, 100, state="succeeded", name="end")

    finishing = threading.Thread(target=finish)
    finishing.start()
    answer = lite_api.client.post(f"/api/jobs/{job.id}/retry", **how)
    finishing.join()
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    assert answer.headers["preference-applied"] == "wait=10"
    assert answer.headers["location"] == f"/api/jobs/{job.id}"


@pytest.mark.parametrize("odd", ["wait=x", "wait=-5", "await=9", "wait", "wait=", "=;,", "wait=0", "é"])
def test_unknown_preference_is_ignored(lite_api: Api, errand: Make, odd: str) -> None:
    job = errand()
    set_job(job, state="failed")
    answer = lite_api.client.post(f"/api/jobs/{job.id}/retry", headers=[(b"Prefer", odd.encode())])
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_a_request_id_reaches_the_job(lite_api: Api) -> None:
    """The job of a request has its id, and the API shows it."""
    request_id = ids.uuid7()
    answer = lite_api.client.post("/api/documents", json={"text": "a text"}, headers={"X-Request-ID": request_id})
    assert answer.headers["x-request-id"] == request_id
    row = database().read(lambda session: session.get(JobRow, answer.json()["id"]))
    assert row is not None and row.request_id == request_id
    shown = lite_api.client.get(f"/api/jobs/{row.id}").json()
    assert (shown["request_id"], shown["attempt"]) == (request_id, 1)
