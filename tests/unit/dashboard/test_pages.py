"""Each page shows its things, and each act does what its button says, with one line in the audit log."""

from __future__ import annotations

import html
import re

import httpx
import pytest

from app.core.db import database
from app.jobs.models import JobRow
from app.tenants import audit
from tests.unit.api.conftest import Api
from tests.unit.dashboard.conftest import Furnishing


def text_of(answer: httpx.Response, status: int = 200) -> str:
    """Return the page as its reader sees it: without tags."""
    assert answer.status_code == status, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def acts() -> list[tuple[str, str]]:
    """Return act and subject of the audit log, the oldest first, without those of signing in."""
    entries = database().read(lambda session: audit.entries(session, tenant=None, limit=100))
    rows = [entry for entry in reversed(entries) if entry.details.get("via") == "dashboard"]
    assert all(entry.details["session_id"] for entry in rows)
    return [(entry.action, entry.subject) for entry in rows]


def state_of(job_id: str) -> str:
    row = database().read(lambda session: session.get(JobRow, job_id))
    assert row is not None
    return row.state


def test_a_browser_is_sent_to_the_dashboard_and_a_program_is_not(lite_api: Api) -> None:
    sent = lite_api.anyone.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/ui/")
    assert lite_api.anyone.get("/").json()["service"] == "Millrace"


def test_the_overview_names_what_needs_a_person(visitor: httpx.Client, furnishing: Furnishing) -> None:
    page = text_of(visitor.get("/ui/"))
    assert "failed jobs in 1 groups had new failures in the last hour" in page
    assert "1 × Boom" in page
    assert "No relay runs" in page


def test_an_empty_installation_says_how_to_begin(visitor: httpx.Client) -> None:
    for path, words in {
        "/ui/jobs": "No job yet. `millrace kinds` lists",
        "/ui/failures": "Nothing has failed for good.",
        "/ui/workers": "No worker is alive",
        "/ui/documents": "millrace index PATH",
        "/ui/collections": "millrace collections create NAME",
    }.items():
        assert words in text_of(visitor.get(path))


def test_jobs_are_filtered_by_the_address(visitor: httpx.Client, furnishing: Furnishing) -> None:
    everything = visitor.get("/ui/jobs").text
    assert all(job_id in everything for job_id in (furnishing.job_id, furnishing.failed_id, furnishing.running_id))
    failed = visitor.get("/ui/jobs", params={"state": "failed"}).text
    assert furnishing.failed_id in failed
    assert furnishing.job_id not in failed
    none = text_of(visitor.get("/ui/jobs", params={"kind": "tests.none", "queue": "bulk"}))
    assert "No job matches." in none
    assert "kind: tests.none ×" in none
    assert visitor.get("/ui/jobs", params={"state": "sleeping"}).status_code == 422


def test_a_long_list_goes_on_behind_its_last_row(lite_api: Api, visitor: httpx.Client) -> None:
    start = {"kind": "tests.dashboard.parcel", "payload": {}}
    made = lite_api.client.post("/api/jobs", json=[start] * 120).json()["data"]
    ids, path = [], "/ui/jobs"
    while path:
        page = visitor.get(path).text
        ids += re.findall(r'data-job="([0-9a-f-]{36})"', page)
        older = re.search(r'rel="next" href="([^"]+)"', page)
        path = html.unescape(older[1]) if older else ""
    assert ids == [job["id"] for job in reversed(made)]


def test_a_job_shows_its_reason_attempts_and_payload(visitor: httpx.Client, furnishing: Furnishing) -> None:
    waiting = text_of(visitor.get(f"/ui/jobs/{furnishing.job_id}"))
    assert '"note": "zugspitze"' in waiting
    assert "The job is next; a worker is about to claim it. Nothing to do." in waiting
    failed = text_of(visitor.get(f"/ui/jobs/{furnishing.failed_id}"))
    assert "Boom unexpected : zugspitze" in failed
    assert "Traceback: zugspitze" in failed
    running = visitor.get(f"/ui/jobs/{furnishing.running_id}").text
    assert 'value="42.0"' in running


def test_secrets_in_payloads_are_masked(lite_api: Api, visitor: httpx.Client) -> None:
    job = {"kind": "tests.dashboard.parcel", "payload": {"note": "x"}}
    job_id = lite_api.client.post("/api/jobs", json=job).json()["id"]

    def plant(session: object) -> None:
        row = session.get(JobRow, job_id)  # type: ignore[attr-defined]
        row.payload = {"api_key": "hunter2", "deep": [{"Password": "hunter3"}], "tokens": 7, "note": "seen"}

    database().transaction(plant)
    page = text_of(visitor.get(f"/ui/jobs/{job_id}"))
    assert "hunter" not in page
    assert '"tokens": 7' in page
    assert '"note": "seen"' in page


@pytest.mark.parametrize(
    ("act", "target", "state"), [("cancel", "job_id", "cancelled"), ("retry", "failed_id", "queued")]
)
def test_an_act_on_a_job_moves_it_and_is_on_record(
    visitor: httpx.Client, furnishing: Furnishing, act: str, target: str, state: str
) -> None:
    job_id = getattr(furnishing, target)
    answer = visitor.post(f"/ui/jobs/{job_id}/{act}")
    assert answer.status_code == 303
    assert text_of(visitor.get(answer.headers["location"])).count("job")
    assert state_of(job_id) == state
    assert acts() == [(f"job.{act}", job_id)]


def test_an_act_that_comes_too_late_is_refused(visitor: httpx.Client, furnishing: Furnishing) -> None:
    answer = visitor.post(f"/ui/jobs/{furnishing.failed_id}/cancel")
    assert "The job had failed before; nothing was changed" in text_of(answer, 409)
    assert acts() == []


def test_a_queue_is_paused_with_a_reason_and_resumed(visitor: httpx.Client, furnishing: Furnishing) -> None:
    visitor.post("/ui/queues/default/pause", data={"reason": "the <b>mill</b> is mended"})
    page = text_of(visitor.get("/ui/queues"))
    assert "by secret : the <b>mill</b> is mended" in page.replace("secret:", "secret :")
    assert "Queue default was paused by secret" in text_of(visitor.get("/ui/"))
    visitor.post("/ui/queues/default/resume")
    assert "paused" not in text_of(visitor.get("/ui/queues"))
    assert acts() == [("queue.pause", "default"), ("queue.resume", "default")]


def test_a_worker_takes_orders(visitor: httpx.Client, furnishing: Furnishing) -> None:
    visitor.post(f"/ui/workers/{furnishing.worker_id}/pause")
    assert "paused" in text_of(visitor.get("/ui/workers"))
    assert acts() == [("worker.pause", furnishing.worker_id)]
    assert visitor.post(f"/ui/workers/{furnishing.worker_id}/dance").status_code == 422


def test_a_schedule_is_told_in_words_and_run(visitor: httpx.Client, furnishing: Furnishing) -> None:
    assert "At 04:30, Monday through Friday" in text_of(visitor.get("/ui/schedules"))
    answer = visitor.post(f"/ui/schedules/{furnishing.schedule_id}/run")
    assert answer.status_code == 303
    assert "started" in text_of(visitor.get(answer.headers["location"]))
    assert acts() == [("schedule.run", "zugspitze")]


def test_search_marks_its_words_and_leads_to_the_document(visitor: httpx.Client, furnishing: Furnishing) -> None:
    answer = visitor.get("/ui/search", params={"q": "zugspitze"})
    assert "<mark>zugspitze</mark>" in answer.text
    assert f'href="/ui/documents/{furnishing.document_id}"' in answer.text
    document = text_of(visitor.get(f"/ui/documents/{furnishing.document_id}"))
    assert "The zugspitze is high." in document


def test_the_box_opens_what_it_names(visitor: httpx.Client, furnishing: Furnishing) -> None:
    for text, target in {
        furnishing.job_id: f"/ui/jobs/{furnishing.job_id}",
        "7": "/ui/documents/7",
        "how high?": "/ui/search?q=how+high%3F",
    }.items():
        assert visitor.get("/ui/go", params={"q": text}).headers["location"] == target


def test_a_document_is_deleted(visitor: httpx.Client, furnishing: Furnishing) -> None:
    assert visitor.post(f"/ui/documents/{furnishing.document_id}/delete").status_code == 303
    assert visitor.get(f"/ui/documents/{furnishing.document_id}").status_code == 404
    assert acts() == [("document.delete", furnishing.document_id)]


def test_times_are_shown_in_the_chosen_zone(visitor: httpx.Client, furnishing: Furnishing) -> None:
    assert re.search(r'title="[^"]+ UTC"', visitor.get("/ui/jobs").text)
    visitor.post("/ui/me/settings", data={"theme": "dark", "zone": "Asia/Kolkata", "back": "/ui/jobs"})
    page = visitor.get("/ui/jobs").text
    assert re.search(r'title="[^"]+ IST"', page)
    assert "Times in Asia/Kolkata" in page
    assert 'data-theme="dark"' in page
    assert visitor.post("/ui/me/settings", data={"zone": "Mars/Olympus"}).status_code == 422


def test_every_page_shows_its_command_without_a_key(visitor: httpx.Client, furnishing: Furnishing) -> None:
    for path in ("/ui/", "/ui/jobs", f"/ui/jobs/{furnishing.job_id}", "/ui/queues", "/ui/documents"):
        page = text_of(visitor.get(path))
        assert "$MILLRACE_API_KEY" in page
        assert "As a command" in page
