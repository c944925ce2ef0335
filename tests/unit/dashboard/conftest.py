"""A dashboard with something on every page, seen with clients that keep cookies like a browser, and by Chromium."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from app.clients.browser import find_chromium
from app.core import clock
from app.core.db import database
from app.core.ids import uuid7
from app.jobs.definition import Job
from app.jobs.ledger import workers
from app.jobs.models import AttemptRow, JobRow
from tests.support.desk import Desk
from tests.support.services import missing
from tests.support.stack import API_SECRET
from tests.unit.api.conftest import Api, api, lite_api

__all__ = ["api", "lite_api"]

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


class Parcel(Job, kind="tests.dashboard.parcel", open_to="write", stages={"pack": 1, "send": 1}):
    """A job that no worker runs."""

    note: str = ""


@contextmanager
def visiting(api: Api) -> Iterator[httpx.Client]:
    """Yield a client without a session; its forms come from the same origin, and redirects are not followed."""
    with httpx.Client(base_url=api.url, headers=SAME_ORIGIN, timeout=20, trust_env=False) as client:
        yield client


def sign_in(client: httpx.Client, key: str = API_SECRET) -> httpx.Response:
    return client.post("/ui/sign-in", data={"key": key})


@pytest.fixture
def visitor(lite_api: Api) -> Iterator[httpx.Client]:
    """Yield a client that has signed in with the API secret."""
    with visiting(lite_api) as client:
        assert sign_in(client).status_code == 303
        yield client


@pytest.fixture
def key_client(lite_api: Api) -> Iterator[Callable[..., httpx.Client]]:
    """Return a factory of clients that have signed in with a new key: `key_client("read", tenant="acme")`."""
    opened: list[httpx.Client] = []

    def make(*scopes: str, tenant: str = "default") -> httpx.Client:
        made = make_key(lite_api, *scopes, tenant=tenant)
        client = httpx.Client(base_url=lite_api.url, headers=SAME_ORIGIN, timeout=20, trust_env=False)
        opened.append(client)
        sign_in(client, made["key"])
        return client

    yield make
    for client in opened:
        client.close()


def make_key(api: Api, *scopes: str, tenant: str = "default") -> dict[str, Any]:
    if tenant != "default":
        api.client.post("/api/tenants", json={"id": tenant})
    made = api.client.post("/api/keys", json={"name": "test", "scopes": list(scopes), "tenant": tenant})
    assert made.status_code == 201, made.text
    body: dict[str, Any] = made.json()
    return body


class Furnishing:
    """One of each thing that the pages show."""

    def __init__(self, api: Api, text: str = "zugspitze") -> None:
        self.text = text
        client = api.client
        start = {"kind": Parcel.kind, "payload": {"note": text}}
        self.job_id = str(client.post("/api/jobs", json=start).json()["id"])
        self.failed_id = str(client.post("/api/jobs", json=start).json()["id"])
        self.running_id = str(client.post("/api/jobs", json=start).json()["id"])
        self.worker_id = uuid7()
        database().transaction(workers.register, self.worker_id, ["default"], 8, None)
        database().transaction(self._move)
        accepted = Desk(database()).give(f"# {text}\n\nThe {text} is high.", tenant="default", title=text, tags=[text])
        Desk(database()).work(accepted.job.id)
        self.document_id = str(accepted.document_id)
        client.post("/api/collections", json={"name": "shelf", "title": text})
        body = {"name": text[:90], "kind": Parcel.kind, "payload": {"note": text}, "cron": "30 4 * * 1-5"}
        made = client.post("/api/schedules", json=body)
        assert made.status_code == 201, made.text
        self.schedule_id = str(made.json()["id"])

    def _move(self, session: Any) -> None:
        now = clock.now()
        failed = session.get(JobRow, self.failed_id)
        failed.state, failed.finished_at, failed.tries, failed.fence = "failed", now, 4, 4
        failed.error_type, failed.error_code, failed.error_message = "Boom", "unexpected", self.text
        failed.fingerprint = "f" * 32
        session.add(
            AttemptRow(
                job_id=failed.id, fence=4, worker_id=self.worker_id, claimed_at=now, started_at=now, finished_at=now,
                outcome="failed", error_type="Boom", error_message=self.text, traceback=f"Traceback: {self.text}",
            )
        )  # fmt: skip
        running = session.get(JobRow, self.running_id)
        running.state, running.fence, running.worker_id = "running", 1, self.worker_id
        running.claimed_at = running.started_at = now
        running.progress = {"percent": 42.0, "stage": "pack", "message": self.text, "seq": 3}

    def pages(self) -> list[str]:
        """Return the addresses of all pages."""
        return [
            "/ui/", "/ui/jobs", f"/ui/jobs/{self.job_id}", f"/ui/jobs/{self.failed_id}", f"/ui/jobs/{self.running_id}",
            "/ui/failures", "/ui/queues", "/ui/workers", "/ui/schedules", f"/ui/schedules/{self.schedule_id}",
            "/ui/search", f"/ui/search?q={self.text[:20]}", "/ui/documents", f"/ui/documents/{self.document_id}",
            f"/ui/documents/{self.document_id}/similar", "/ui/collections", "/ui/audit", "/ui/me", "/ui/nothing-here",
        ]  # fmt: skip


@pytest.fixture
def furnishing(lite_api: Api) -> Furnishing:
    """Build the things in another thread: Playwright's event loop occupies this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(Furnishing, lite_api).result()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Yield one Chromium a module; its event loop must not reach the tests of others."""
    path = find_chromium()
    if path is None:
        missing("chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=str(path), args=options)
        yield browser
        browser.close()
