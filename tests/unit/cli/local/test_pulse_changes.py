"""`millrace import pulse`: change events with their results, each imported once."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import Database
from app.sources.models import ChangeEvent
from app.tenants import directory
from tests.support.command import Running
from tests.support.pulse import PulseService
from tests.unit.api.conftest import Api
from tests.unit.cli.local.imports import import_json, run_import

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def events(session: Session) -> dict[int, ChangeEvent]:
    """By the id that each had there."""
    return {row.extra["older_id"]: row for row in session.scalars(sa.select(ChangeEvent).order_by(ChangeEvent.id))}


def count(session: Session) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(ChangeEvent)) or 0


def add_change(pulse: PulseService, status: str | None, **more: Any) -> int:
    url = "https://m.example/p"
    columns = {
        "watch_id": "w-1",
        "watch_url": url,
        "detected_at": "2025-03-01T10:00:00+02:00",
        "rescrape_status": status,
    }
    return int(pulse.add("change_events", **columns | more))


def test_imported_change_keeps_its_fields_and_its_page(api: Api, pulse: PulseService) -> None:
    page = pulse.page("https://m.example/p", "Text.")
    old = add_change(
        pulse,
        "completed",
        watch_url="https://M.example/p?utm_source=x#top",
        diff_summary="-ten\n+twelve",
        snapshot_url="https://cd.example/diff/w-1",
        rescrape_job_id="rq-7",
        indexed_at="2025-03-01T10:01:00+02:00",
        metadata={"watch_title": "Prices", "diff_size": 11},
    )
    report = import_json(pulse)
    assert (report["changes"], report["unread"]) == ({"read": 1, "taken": 1, "here": 0, "left_out": 0}, 0)
    document = api.client.get("/api/content/by-url?url=https://m.example/p").json()[0]
    assert document["id"] == page
    [event] = api.client.get("/api/changes").json()["data"]
    assert api.client.get(f"/api/documents/{event['document_id']}/changes").json()["data"] == [event]
    assert (event["origin"], event["state"], event["error"]) == ("import", "indexed", None)
    assert (event["url"], event["watch_id"]) == ("https://M.example/p?utm_source=x#top", "w-1")
    assert (event["title"], event["summary"]) == ("Prices", "-ten\n+twelve")
    assert (event["diff_url"], event["job_id"], event["history_key"]) == ("https://cd.example/diff/w-1", None, None)
    assert (event["detected_at"], event["ended_at"]) == ("2025-03-01T08:00:00Z", "2025-03-01T08:01:00Z")
    expected_metadata = {"watch_title": "Prices", "diff_size": 11, "older_id": old, "rescrape_status": "completed"}
    assert event["metadata"] == expected_metadata | {"rescrape_job_id": "rq-7"}


def test_rescrape_status_becomes_state_and_reason(db: Database, pulse: PulseService) -> None:
    at = "2025-03-01T10:01:00+00:00"
    expected = {
        add_change(pulse, "completed"): ("indexed", None),
        add_change(pulse, "failed: job timeout after 15 minutes"): ("failed", "job timeout after 15 minutes"),
        add_change(pulse, "failed: 502: Bad Gateway"): ("failed", "502: Bad Gateway"),
        add_change(pulse, "failed"): ("failed", "no reason was given"),
        add_change(pulse, "hibernating"): ("failed", "the older service left it as 'hibernating'"),
        add_change(pulse, "done", indexed_at=at): ("indexed", None),
    }
    waiting = [add_change(pulse, status) for status in ("queued", "in_progress", None)]
    report = import_json(pulse)
    rows = db.read(events)
    assert {key: (row.state, row.error_message) for key, row in rows.items() if key not in waiting} == expected
    for waiting_key in waiting:
        assert (rows[waiting_key].state, rows[waiting_key].ended_at is not None) == ("failed", True)
        assert "had not fetched the page again" in (rows[waiting_key].error_message or "")
    assert (report["unread"], report["jobs"], {row.document_id for row in rows.values()}) == (3, 0, {None})
    assert "3 changes still waited there" in run_import(pulse, "--dry-run").out


def test_second_import_adds_nothing_and_updates_ended_changes(db: Database, pulse: PulseService) -> None:
    """And a page that came later gets its change."""
    completed_id = add_change(pulse, "completed")
    waiting_id = add_change(pulse, "in_progress", watch_url="https://m.example/q")
    assert import_json(pulse, "--dry-run")["changes"]["taken"] == 2
    assert db.read(count) == 0
    assert import_json(pulse)["changes"]["taken"] == 2
    again = import_json(pulse)
    assert (again["changes"], again["unread"]) == ({"read": 2, "taken": 0, "here": 2, "left_out": 0}, 1)
    before = db.read(events)

    pulse.page("https://m.example/p", "Text.")
    pulse.run("UPDATE webhook.change_events SET rescrape_status = 'completed', indexed_at = '2025-03-02T00:00:00Z' "
              f"WHERE id = {waiting_id}")  # fmt: skip
    new = add_change(pulse, "queued")
    assert import_json(pulse, "--dry-run")["changes"]["taken"] == 2
    report = import_json(pulse)
    assert (report["changes"], report["unread"]) == ({"read": 3, "taken": 2, "here": 1, "left_out": 0}, 1)
    rows = db.read(events)
    assert (set(rows), db.read(count)) == ({completed_id, waiting_id, new}, 3)
    assert rows[waiting_id].id == before[waiting_id].id
    assert (rows[waiting_id].state, rows[waiting_id].error_message) == ("indexed", None)
    assert rows[waiting_id].ended_at == datetime(2025, 3, 2, tzinfo=UTC)
    assert rows[completed_id].document_id == rows[new].document_id and rows[completed_id].document_id is not None
    assert rows[waiting_id].document_id is None


def test_changes_of_other_installations_and_tenants_are_separate(db: Database, pulse: PulseService) -> None:
    add_change(pulse, "completed")
    import_json(pulse)
    pulse.run("UPDATE webhook.change_events SET watch_id = 'of-another'")
    assert import_json(pulse)["changes"]["taken"] == 1
    db.transaction(directory.create, "acme", "", {})
    assert import_json(pulse, "--tenant", "acme")["changes"]["taken"] == 1
    assert (import_json(pulse, "--tenant", "acme")["changes"]["here"], db.read(count)) == (1, 3)


def test_invalid_changes_are_skipped_with_their_reason(sqlite_db: Database, pulse: PulseService) -> None:
    """Also with a table that has times without a zone, which are UTC, and fewer columns."""
    pulse.run("ALTER TABLE webhook.change_events ALTER detected_at TYPE timestamp, DROP snapshot_url, DROP indexed_at")
    odd = {"watch_id": None, "diff_summary": "y" * 2000, "metadata": ["x"], "detected_at": "2025-03-01 10:00:00"}
    good = add_change(pulse, "completed", **odd)
    endless = add_change(pulse, "completed", detected_at="infinity", metadata={"watch_title": 7})
    left = {
        add_change(pulse, "completed", watch_url=None): "watch_url is missing",
        add_change(pulse, "completed", watch_url=" "): "watch_url is missing",
        add_change(pulse, "completed", watch_url="http://[half"): "url",
        add_change(pulse, "completed", watch_url="https://m.example/" + "y" * 3000): "2048",
        add_change(pulse, "completed", diff_summary="z" * 6000): "MILLRACE_MAX_BODY_BYTES",
    }
    pulse.run("""INSERT INTO webhook.change_events (watch_url, rescrape_status, metadata) VALUES
        ('https://m.example/', 'completed', '{"watch_title": "a\\u0000b"}')""")
    report = import_json(pulse, MILLRACE_MAX_BODY_BYTES="5000")
    reasons = {int(entry["id"]): entry["reason"] for entry in report["left_out"]}
    assert reasons.keys() == left.keys()
    assert all(part in reasons[change_id] for change_id, part in left.items()), reasons
    assert report["changes"] == {"read": 8, "taken": 3, "here": 0, "left_out": 5}
    rows = sqlite_db.read(events)
    assert rows[good].detected_at == datetime(2025, 3, 1, 10, tzinfo=UTC)
    assert (len(rows[good].summary or ""), rows[good].extra["metadata"]) == (500, ["x"])
    assert rows[max(rows)].title == "ab" and rows[endless].title is None
    assert import_json(pulse)["changes"] == {"read": 8, "taken": 1, "here": 3, "left_out": 4}

    pulse.run("ALTER TABLE webhook.change_events DROP watch_url")
    assert import_json(pulse)["changes"]["read"] == 0


def test_killed_and_concurrent_imports_are_complete_without_doubles(
    db: Database, pulse: PulseService, redis_url: str
) -> None:
    pulse.run("""INSERT INTO webhook.change_events (watch_id, watch_url, detected_at, rescrape_status)
        SELECT 'w-' || n % 7, 'https://m.example/' || n % 500, now(), 'completed' FROM generate_series(1, 3000) n""")
    env = {**os.environ, "MILLRACE_REDIS_URL": redis_url}
    running = Running("import", "pulse", pulse.url, env=env)
    while (so_far := db.read(count)) < 200:
        assert running.poll() is None, f"it ended with {so_far}"
    assert running.kill() == -signal.SIGKILL
    assert 200 <= db.read(count) < 3000
    both = [Running("import", "pulse", pulse.url, env=env) for _ in range(2)]
    ended = [process.end(60) for process in both]
    assert [result.code for result in ended] == [0, 0], ended
    assert sorted(db.read(events)) == list(range(1, 3001))
    assert (db.read(count), import_json(pulse)["changes"]["here"]) == (3000, 3000)
