"""A page changes, a real changedetection.io sees it, and search finds the new words: once, and nothing is missed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.jobs.states import ENDED
from app.sources.changes.jobs import ReconcileChanges
from tests.fakes.site import FakeSite, site
from tests.journeys.conftest import Ledger
from tests.support.changedetection import ChangeDetectionServer
from tests.support.changes import page
from tests.support.stack import Stack
from tests.support.waiting import wait_until

__all__ = ["site"]
pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
SECRET = "a-secret-of-tests-0123456789-abcdef"


@pytest.fixture
def watched(stack: Stack, changedetection_server: ChangeDetectionServer) -> Iterator[Stack]:
    names = {**changedetection_server.settings, "webhook_secret": SECRET, "fetch_private": "true", "url": stack.url}
    stack.env |= {f"MILLRACE_{name.upper()}": value for name, value in names.items()}
    yield stack.start()


def _done(stack: Stack, answer: Any) -> dict[str, Any]:
    job_id = answer.json()["id"]
    shown: dict[str, Any] = {}

    def ended() -> bool:
        shown.update(stack.client.get(f"/api/jobs/{job_id}").json())
        return shown["state"] in ENDED

    wait_until(ended, timeout_s=30, what=f"job {job_id} to end")
    assert shown["state"] == "succeeded", shown
    return shown


def _found(stack: Stack, word: str) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = stack.post("/api/search", {"query": word, "mode": "keyword"}).json()["results"]
    return results


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # the subject is changedetection.io
def test_a_change_becomes_searchable_once(
    watched: Stack, site: FakeSite, changedetection_server: ChangeDetectionServer, ledger: Ledger
) -> None:
    """The watch is made, the page changes, the notification comes, the new text is found, the trail says why; the
    same notification again does nothing; a change whose notification was lost is found all the same; and with
    the page its watch goes."""
    server, url = changedetection_server, f"{site.url}/prices"
    site.pages["/prices"] = page("The heron costs ten.")
    indexed = _done(watched, watched.post("/api/documents", {"url": url, "source": "crawl", "tags": ["shop"]}))
    document = indexed["document_id"]
    assert _done(watched, watched.post("/api/watches:sync", None))["result"]["made"] == 1
    [mine] = watched.client.get("/api/watches").json()["data"]
    watch = mine["watch_id"]
    assert (mine["state"], mine["url"], mine["is_ours"]) == ("present", url, True)

    def snapshots() -> int:
        return int(server.ask("GET", f"/watch/{watch}").json()["history_n"])

    wait_until(lambda: snapshots() == 1, timeout_s=30, what="the first look at the page")
    site.pages["/prices"] = page("The kingfisher costs twelve.")
    server.ask("GET", f"/watch/{watch}", params={"recheck": "true"}).raise_for_status()
    wait_until(lambda: bool(_found(watched, "kingfisher")), timeout_s=40, what="the new words to be found")
    assert _found(watched, "kingfisher")[0]["metadata"]["tags"] == ["shop"] and not _found(watched, "heron")
    changes = watched.client.get(f"/api/documents/{document}/changes").json()["data"]
    assert [(row["origin"], row["state"], row["watch_id"]) for row in changes] == [("webhook", "indexed", watch)]
    assert "+The kingfisher" in changes[0]["summary"]
    diff = watched.client.get(f"/api/documents/{document}/diff").json()
    assert "-The heron" in diff["diff"] and "+The kingfisher" in diff["diff"]

    [delivery] = watched.client.get("/api/deliveries/in").json()["data"]
    body = watched.client.get(f"/api/deliveries/in/{delivery['id']}").json()["body"]
    template = watched.client.get("/api/watches/template").json()
    token = template["notification_urls"][0].partition("Bearer%20")[2].partition("&")[0]
    path = f"/api/webhook/changedetection/{token}"
    again = watched.client.post(path, content=body, headers={"content-type": "application/json"})
    assert again.json() == delivery["answer"]["body"]
    assert len(watched.client.get("/api/changes").json()["data"]) == 1

    assert watched.api is not None
    watched.api.stop()
    site.pages["/prices"] = page("The egret costs fourteen.")
    server.ask("GET", f"/watch/{watch}", params={"recheck": "true"}).raise_for_status()
    wait_until(
        lambda: bool(server.ask("GET", f"/watch/{watch}").json()["last_notification_error"]),
        timeout_s=60,
        what="changedetection.io to give up telling us",
    )
    watched.start_api()
    ledger.wait(ledger.enqueue(ReconcileChanges()), "succeeded")
    wait_until(lambda: bool(_found(watched, "egret")), timeout_s=30, what="the change that nobody told of")
    changes = watched.client.get(f"/api/documents/{document}/changes").json()["data"]
    assert [(row["origin"], row["state"]) for row in changes] == [("reconcile", "indexed"), ("webhook", "indexed")]

    assert watched.client.delete(f"/api/documents/{document}").status_code == 204
    assert _done(watched, watched.post("/api/watches:sync", None))["result"]["removed"] == 1
    assert server.ask("GET", "/watch").json() == {}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the subject is changedetection.io
@pytest.mark.parametrize("shape", ["{site}/prices?n={{{{ 1 + 1 }}}}", "source:{site}/prices?n=2"])
def test_a_watch_made_by_hand_is_read_where_it_reads(
    watched: Stack, site: FakeSite, changedetection_server: ChangeDetectionServer, shape: str
) -> None:
    """Its URL has macros, or is marked as a source: the change is read at the address that it stands for."""
    server, target = changedetection_server, "/prices?n=2"
    site.pages[target] = page("The heron costs ten.")
    body = {"url": shape.format(site=site.url), **watched.client.get("/api/watches/template").json()}
    watch = server.ask("POST", "/watch", json=body).json()["uuid"]
    wait_until(
        lambda: server.ask("GET", f"/watch/{watch}").json()["history_n"] == 1, timeout_s=30, what="the first look"
    )
    site.pages[target] = page("The kingfisher costs twelve.")
    server.ask("GET", f"/watch/{watch}", params={"recheck": "true"}).raise_for_status()
    wait_until(lambda: bool(_found(watched, "kingfisher")), timeout_s=40, what="the new words to be found")
    [event] = watched.client.get("/api/changes").json()["data"]
    assert (event["url"], event["state"], event["confirmed"]) == (f"{site.url}{target}", "indexed", True)
