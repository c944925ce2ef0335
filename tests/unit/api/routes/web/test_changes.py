"""Reported changes: the sender is verified, the page is read again once, and the event keeps the outcome."""

# ruff: noqa: E501  bodies and answers read best on a line

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.core import clock
from app.core.db import database
from app.jobs import testing as jobs
from app.jobs.models import JobRow
from app.main import create_app
from app.sources.models import ChangeEvent, Delivery, PageWatch
from app.sources.payloads.change_bodies import webhook_token
from tests.fakes.changedetection import FakeChangeDetection
from tests.fakes.server import Response
from tests.fakes.site import FakeSite, site
from tests.fakes.site import page as site_page
from tests.support.changes import UUID, change, page
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk
from tests.support.problems import assert_problem
from tests.support.rows import count_rows
from tests.support.sender import SECRET
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, served

__all__ = ["site"]
PATH = "/api/webhook/changedetection"


@pytest.fixture
def intake(app_env: SettingsEnv) -> Iterator[Api]:
    app_env(webhook_secret=SECRET, fetch_private="true", retry_delays="1,1,1")
    with served(create_app()) as running:
        yield running


@pytest.fixture
def lite(sqlite_url: str, settings_env: SettingsEnv) -> Iterator[Api]:
    settings_env(database_url=sqlite_url, redis_url="redis://127.0.0.1:9/0", webhook_secret=SECRET)
    with served(create_app()) as running:
        yield running


def tell(api: Api, body: Any, token: str | None = None, path: str = PATH, **headers: str) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    if not headers and path == PATH:
        headers = {"authorization": f"Bearer {token or webhook_token()}"}
    return api.anyone.post(path, content=raw, headers=headers)


def test_a_change_is_read_and_found_and_told(intake: Api, site: FakeSite) -> None:
    """First the page as it was, then another: search finds the new words, the trail and the diff say what changed."""
    url = f"{site.url}/prices"
    site.pages["/prices"] = page("The heron costs ten.")
    body = {"url": url, "tags": ["shop"], "metadata": {"owner": "ada"}}
    document = intake.client.post("/api/documents", json=body).json()["document_id"]
    jobs.drain()
    site.pages["/prices"] = page("The kingfisher costs twelve.")
    answer = tell(intake, change(url, title="Prices"))
    reply = answer.json()
    assert answer.status_code == 202 and reply["status"] == "queued" and reply["url"] == url
    assert set(reply) == {"status", "job_id", "change_event_id", "url"}
    assert intake.client.get(f"/api/changes/{reply['change_event_id']}").json()["state"] == "queued"
    [job] = jobs.drain()
    assert (job.id, job.kind, job.state) == (reply["job_id"], "sources.rescrape", "succeeded")
    assert job.result is not None and job.result["event_id"] == str(reply["change_event_id"])
    result = Desk(database()).find("kingfisher", mode="keyword")["results"]
    assert [hit["document_id"] for hit in result] == [str(document)]
    assert result[0]["metadata"]["owner"] == "ada" and result[0]["metadata"]["tags"] == ["shop"]
    [event] = intake.client.get(f"/api/documents/{document}/changes").json()["data"]
    assert (event["state"], event["job_id"], event["content_id"]) == ("indexed", reply["job_id"], result[0]["id"])
    assert (event["origin"], event["title"], event["summary"]) == ("webhook", "Prices", "-a\n+b") and event["ended_at"]
    versions = intake.client.get(f"/api/documents/{document}/versions").json()["data"]
    assert [(version["state"], version["is_current"]) for version in versions] == [
        ("current", True),
        ("superseded", False),
    ]
    diff = intake.client.get(f"/api/documents/{document}/diff").json()
    assert (diff["from"], diff["to"]) == (versions[1]["id"], versions[0]["id"])
    assert (
        diff["changed"] and "-The heron costs ten." in diff["diff"] and "+The kingfisher costs twelve." in diff["diff"]
    )
    same = intake.client.get(f"/api/documents/{document}/diff", params={"from": diff["to"], "to": diff["to"]}).json()
    assert (same["changed"], same["added"], same["removed"], same["diff"]) == (False, 0, 0, "")
    assert_problem(intake.client.get(f"/api/documents/{document}/diff?from=99999"), 404, "version_not_found")


def test_the_same_change_is_one_and_nothing_new_ends_early(intake: Api, site: FakeSite) -> None:
    url = f"{site.url}/p"
    site.pages["/p"] = page("The heron stands.")
    first = tell(intake, change(url))
    assert tell(intake, change(url)).json() == first.json()
    assert tell(intake, {"payload": json.dumps(change(url)), "title": "again"}).json() == first.json()
    assert count_rows(JobRow) == count_rows(ChangeEvent) == count_rows(Delivery) == 1
    assert [job.state for job in jobs.drain()] == ["succeeded"]
    asked = len(site.visits)
    again = tell(intake, change(url, 1795339999)).json()
    [job] = jobs.drain()
    assert job.id == again["job_id"] and job.result is not None and job.result["status"] == "unchanged"
    assert job.result["embedded"] == 0 and len(site.visits) > asked
    states = [one["state"] for one in intake.client.get("/api/changes").json()["data"]]
    assert states == ["unchanged", "indexed"]
    [delivery, _] = intake.client.get("/api/deliveries/in?source=changedetection").json()["data"]
    replayed = intake.client.post(f"/api/deliveries/in/{delivery['id']}/replay").json()
    assert replayed["answer"]["change_event_id"] == again["change_event_id"]
    assert replayed["answer"]["job_id"] != again["job_id"]
    jobs.drain()
    assert intake.client.get(f"/api/changes/{again['change_event_id']}").json()["state"] == "unchanged"


def test_a_page_that_is_gone_fails_its_event(intake: Api, site: FakeSite) -> None:
    """Its text stays searchable; the event says why."""
    url = f"{site.url}/gone"
    event = tell(intake, change(url)).json()["change_event_id"]
    [job] = jobs.drain()
    assert job.state == "failed"
    shown = intake.client.get(f"/api/changes/{event}").json()
    assert shown["state"] == "failed" and "404" in shown["error"]
    site.pages["/gone"] = site_page(b"busy", 503)
    event = tell(intake, change(url, 1795339999)).json()["change_event_id"]
    jobs.drain()
    assert intake.client.get(f"/api/changes/{event}").json()["state"] == "in_progress"  # it will be tried again
    site.pages["/gone"] = page("It is back.")
    jobs.drain(later=True)
    assert intake.client.get(f"/api/changes/{event}").json()["state"] == "indexed"


def test_an_older_job_does_not_open_its_event_again(intake: Api, app_env: SettingsEnv, site: FakeSite) -> None:
    """The page was away, somebody had the delivery done again meanwhile, and then the first job had its next try."""
    app_env(retry_delays="600,600")
    site.pages["/p"] = site_page(b"busy", 503)
    first = tell(intake, change(f"{site.url}/p")).json()
    jobs.drain()
    site.pages["/p"] = page("It is back.")
    [delivery] = intake.client.get("/api/deliveries/in").json()["data"]
    intake.client.post(f"/api/deliveries/in/{delivery['id']}/replay")
    jobs.drain()
    assert intake.client.get(f"/api/jobs/{first['job_id']}").json()["state"] == "retrying"
    jobs.drain(later=True)
    assert intake.client.get(f"/api/jobs/{first['job_id']}").json()["state"] == "succeeded"
    assert intake.client.get(f"/api/changes/{first['change_event_id']}").json()["state"] == "indexed"


def test_asking_for_a_watch_waits_for_the_job_and_not_the_job_for_it(
    postgres_url: str, redis_url: str, settings_env: SettingsEnv
) -> None:
    """Both lock the job's row and the watch's: in another order each would wait for the other."""
    settings_env(
        database_url=postgres_url, redis_url=redis_url, webhook_secret=SECRET, fetch_private="true",
        changedetection_url="http://127.0.0.1:9",
    )  # fmt: skip
    with served(create_app()) as api, ThreadPoolExecutor(1) as pool, database().engine.connect() as job:
        body = {"url": "https://example.org/p"}
        asked = api.client.post("/api/watches", json=body).json()
        job.execute(sa.select(JobRow.id).where(JobRow.id == asked["id"]).with_for_update())
        again = pool.submit(api.client.post, "/api/watches", json=body)
        blocked = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        with database().engine.connect() as other:
            wait_until(lambda: other.scalar(blocked), what="the request to wait for the job")
        job.execute(sa.select(PageWatch.id).with_for_update(nowait=True))
        job.rollback()
        assert again.result(20).status_code == 202


def test_a_cancelled_job_ends_its_event(intake: Api, site: FakeSite) -> None:
    reply = tell(intake, change(f"{site.url}/p")).json()
    assert intake.client.post(f"/api/jobs/{reply['job_id']}/cancel").status_code < 300
    assert intake.client.get(f"/api/changes/{reply['change_event_id']}").json()["state"] == "cancelled"


def test_who_may_tell(lite: Api) -> None:
    """The token in the header or the path, or the older service's signature; nothing else."""
    raw = json.dumps(change("https://example.org/p")).encode()
    signature = hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
    token = webhook_token()
    assert SECRET not in token
    for headers in (
        {"x-signature": signature},
        {"x-signature": f"sha256={signature}"},
        {"authorization": f"bearer {token}"},
        {"Authorization": token},
    ):
        assert tell(lite, raw, **headers).status_code == 202, headers
    assert tell(lite, raw, path=f"{PATH}/{token}").status_code == 202
    for headers in (
        {"x": ""}, {"x-signature": "0" * 64}, {"x-signature": "short"}, {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {SECRET}"}, {"authorization": ""},
        {"x-signature": "0" * 64, "authorization": f"Bearer {token}"},
    ):  # fmt: skip
        assert_problem(tell(lite, raw, **headers), 401, "unauthenticated")
    assert_problem(tell(lite, raw, path=f"{PATH}/wrong"), 401, "unauthenticated")
    assert count_rows(ChangeEvent) == 1


def test_bodies_that_are_none(lite: Api) -> None:
    for body in (b"", b"{", b"[]", {"watch_id": "x"}, {"watch_url": "https://a.org", "detected_at": "never"}):
        answer = tell(lite, body)
        assert_problem(answer, 400, "webhook_payload")
        assert answer.json()["detail"].startswith("Invalid payload: ")
    assert count_rows(Delivery) == 0


def test_bytes_that_are_no_text_are_kept_as_they_came(lite: Api) -> None:
    raw = b"https://example.org/p had a change.\n\xff\xfe\x00"
    assert tell(lite, raw).status_code == 202
    [delivery] = lite.client.get("/api/deliveries/in").json()["data"]
    assert lite.client.get(f"/api/deliveries/in/{delivery['id']}").json()["body"] is None
    assert lite.client.post(f"/api/deliveries/in/{delivery['id']}/replay").json()["status"] == 202


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: json.dumps({"watch_url": "https://a.org/" + text, "watch_uuid": text, "diff": text, "title": text}).encode()))  # fmt: skip
def test_no_body_is_a_500(lite: Api, raw: bytes) -> None:
    assert tell(lite, raw).status_code in (202, 400)


def test_another_tenant_s_changes_are_not_there(lite: Api) -> None:
    event = tell(lite, change("https://example.org/p")).json()["change_event_id"]
    assert_problem(lite.client.get(f"/api/changes/{event + 1}"), 404, "change_not_found")
    assert lite.client.get("/api/changes?state=failed").json()["data"] == []
    assert len(lite.client.get("/api/changes", params={"url": "https://example.org/p"}).json()["data"]) == 1


@pytest.fixture
def there(intake: Api, app_env: SettingsEnv) -> Iterator[FakeChangeDetection]:
    with FakeChangeDetection().running() as server:
        app_env(changedetection_url=server.url, changedetection_api_key="key")
        yield server


def read_again(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    """Report the change, run its job, and return the event."""
    reply = tell(api, body).json()
    jobs.drain()
    event: dict[str, Any] = api.client.get(f"/api/changes/{reply['change_event_id']}").json()
    return event


@pytest.mark.parametrize("fault", ["unknown", "no uuid", "key", "down", "odd", "busy"])
def test_a_missing_confirmation_does_not_lose_the_change(
    intake: Api, there: FakeChangeDetection, site: FakeSite, fault: str
) -> None:
    """The page of the event is read at once and indexed; the event says why its address is not confirmed."""
    body = change(f"{site.url}/p", watch_uuid="w" if fault == "no uuid" else UUID)
    if fault == "key":
        there.key = "another"
    elif fault == "down":
        there.stop()
    elif fault in ("odd", "busy"):
        status, headers = (200, {}) if fault == "odd" else (429, {"retry-after": "60"})
        there.respond = lambda request: Response(b"<html>", status, headers)  # type: ignore[method-assign]
    site.pages["/p"] = page("The kingfisher is here.")
    event = read_again(intake, body)
    assert (event["state"], event["url"], event["confirmed"]) == ("indexed", f"{site.url}/p", False)
    assert event["metadata"]["unconfirmed"]
    assert Desk(database()).find("kingfisher", mode="keyword")["results"]


def test_the_watch_corrects_the_address(intake: Api, there: FakeChangeDetection, site: FakeSite) -> None:
    there.watches[UUID] = {**there.watches.get(UUID, {}), "uuid": UUID, "url": f"{site.url}/right"}
    site.pages["/right"] = page("The kingfisher is here.")
    event = read_again(intake, change(f"{site.url}/wrong"))
    assert (event["state"], event["url"], event["confirmed"]) == ("indexed", f"{site.url}/right", True)
    assert "unconfirmed" not in event["metadata"]
    assert [path for path, _ in site.visits if path != "/robots.txt"] == ["/right"]


@pytest.mark.parametrize(
    ("url", "link", "path"),
    [
        ("{site}/{% now 'utc', '%Y' %}/p", "{site}/2026/p", "/2026/p"),
        ("{site}/p?d={{ 1 + 1 }}", "{site}/p?d=2", "/p?d=2"),
        ("source:{site}/p", "{site}/p", "/p"),
        ("source:{site}/p", "", "/p"),
        ("SOURCE: {site}/p", "DISABLED", "/p"),
        ("{site}/p", ["{site}/p"], "/p"),
    ],
)
def test_a_watch_is_read_where_it_reads(
    intake: Api, there: FakeChangeDetection, site: FakeSite, url: str, link: Any, path: str
) -> None:
    """The link of a template, and the page behind `source:`."""
    url = url.replace("{site}", site.url)
    link = link.replace("{site}", site.url) if isinstance(link, str) else link
    there.watches[UUID] = {"uuid": UUID, "url": url, "link": link}
    site.pages[path] = page("The kingfisher is here.")
    event = read_again(intake, change(url))
    assert (event["state"], event["url"], event["confirmed"]) == ("indexed", site.url + path, True)


def test_a_template_waits_for_its_address(intake: Api, there: FakeChangeDetection, site: FakeSite) -> None:
    """No try is counted while changedetection.io is down; a watch that it does not know fails with the reason."""
    url = f"{site.url}/{{% now 'utc', '%Y' %}}/p"
    respond = there.respond
    there.respond = lambda request: Response(b"", 503)  # type: ignore[method-assign]
    reply = tell(intake, change(url)).json()
    [row] = jobs.drain()
    assert (row.state, row.tries) == ("retrying", 0)
    there.respond = respond  # type: ignore[method-assign]
    there.watches[UUID] = {"uuid": UUID, "url": url, "link": f"{site.url}/2026/p"}
    site.pages["/2026/p"] = page("The kingfisher is here.")
    jobs.drain(later=True)
    assert intake.client.get(f"/api/changes/{reply['change_event_id']}").json()["state"] == "indexed"
    there.watches.clear()
    event = read_again(intake, change(url, 1795339999))
    assert event["state"] == "failed" and "template" in event["error"]
    assert [path for path, _ in site.visits if path != "/robots.txt"] == ["/2026/p"]


def test_an_unconfirmed_page_does_not_replace_the_page_of_its_watch(
    intake: Api, there: FakeChangeDetection, site: FakeSite
) -> None:
    """A watch made here for one page, in a notification that names another one."""
    site.pages |= {"/mine": page("The heron stands."), "/other": page("The kingfisher is here.")}
    job = intake.client.post("/api/documents", json={"url": f"{site.url}/mine"}).json()
    jobs.drain()
    now = clock.now()
    row = PageWatch(
        tenant="default", document_id=int(job["document_id"]), url=f"{site.url}/mine", watch_id=UUID, state="present",
        created_at=now, updated_at=now,
    )  # fmt: skip
    database().transaction(lambda session: session.add(row))
    assert read_again(intake, change(f"{site.url}/other"))["state"] == "indexed"
    assert {hit["url"] for hit in Desk(database()).find("heron", mode="keyword")["results"]} == {f"{site.url}/mine"}
    assert {hit["url"] for hit in Desk(database()).find("kingfisher", mode="keyword")["results"]} == {
        f"{site.url}/other"
    }


@pytest.mark.parametrize(
    "body",
    [
        b"Test body",
        b"Test title\nTest body",
        {"version": "1.0", "title": "Test title", "message": "Test body", "attachments": [], "type": "info"},
        {"watch_uuid": UUID, "watch_url": "https://WATCH-PLACE-HOLDER/", "diff": ""},
        {"watch_uuid": "XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX", "watch_url": "https://example.org/p"},
        {"title": "ChangeDetection.io Notification - https://watch-place-holder/", "message": "x"},
        change("https://example.org/p", diff="-Example text: change detection is cool\n+Example text: change detection is fantastic"),
        {"event": "test"},
        {"payload": json.dumps({"test": True})},
    ],
)  # fmt: skip
def test_a_test_notification_is_acknowledged(lite: Api, body: Any) -> None:
    """Its sender is answered well, and nothing is read; without the token it is refused like any other."""
    answer = tell(lite, body)
    assert (answer.status_code, answer.json()) == (200, {"status": "acknowledged", "event_type": "watch.test"})
    assert count_rows(ChangeEvent) == count_rows(JobRow) == 0
    assert_problem(tell(lite, body, token="wrong"), 401, "unauthenticated")
