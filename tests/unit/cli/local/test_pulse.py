"""`millrace import pulse`: crawls and pages keep their ids and are imported once, also after a kill."""

from __future__ import annotations

import os
import signal

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import Database, database
from app.documents.jobs import IngestDocument
from app.documents.models import Document, DocumentVersion
from app.jobs.models import JobRow
from app.sources.models import CrawlSession
from app.tenants import directory
from tests.support.command import Running, millrace
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk
from tests.support.pulse import PulseService
from tests.support.services import PostgresServer
from tests.unit.api.conftest import Api
from tests.unit.cli.local.imports import import_json, run_import

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def versions(session: Session) -> dict[int, DocumentVersion]:
    return {row.id: row for row in session.scalars(sa.select(DocumentVersion))}


def job_ids(session: Session) -> list[str]:
    query = sa.select(JobRow.id).where(JobRow.kind == IngestDocument.kind, JobRow.state == "queued")
    return list(session.scalars(query.order_by(JobRow.id)))


def counts(session: Session) -> tuple[int, int, int, int]:
    tables = (CrawlSession, Document, DocumentVersion, JobRow)
    crawls, documents, versions, jobs = (
        session.scalar(sa.select(sa.func.count()).select_from(table)) for table in tables
    )
    return crawls or 0, documents or 0, versions or 0, jobs or 0


def test_a_page_keeps_its_id_and_is_found_by_it_and_by_search(api: Api, pulse: PulseService) -> None:
    pulse.add(
        "crawl_sessions",
        job_id="crawl-1",
        base_url="https://mills.example/",
        operation_type="scrape_batch",
        status="scraping",
        started_at="2025-03-01T09:00:00+00:00",
        extra_metadata={"by": "miller"},
    )
    pulse.run("SELECT setval('webhook.scraped_content_id_seq', 7000)")
    first = pulse.page(
        "https://mills.example/pond?utm_source=x",
        "# The pond\n\nThe sluice is opened at dawn.",
        html="<h1>The pond</h1>",
        source_url="http://mills.example/pond",
        crawl_session_id="crawl-1",
        metadata={"title": "Pond", "statusCode": 200, "depth": 3},
        links=["https://mills.example/"],
        screenshot="https://mills.example/shot.png",
        scraped_at="2025-02-28 12:00:00",
    )
    report = import_json(pulse)
    assert (report["pages"]["taken"], report["crawls"]["taken"], report["jobs"], report["moved"]) == (1, 1, 1, {})

    desk = Desk(database())
    assert [desk.work(job)["status"] for job in database().read(job_ids)] == ["indexed"]
    desk.follow()
    item = api.client.get(f"/api/content/{first}").json()
    assert (first, item["id"], item["url"]) == (7001, 7001, "https://mills.example/pond?utm_source=x")
    assert item["markdown"].startswith("# The pond") and item["html"] == "<h1>The pond</h1>"
    assert (item["scraped_at"], item["created_at"]) == ("2025-02-28T12:00:00Z", "2025-03-01T10:00:00Z")
    assert (item["metadata"]["depth"], item["metadata"]["title"], item["metadata"]["statusCode"]) == (3, "Pond", 200)
    assert (item["links"], item["screenshot"]) == (["https://mills.example/"], "https://mills.example/shot.png")
    assert (item["content_source"], item["source_url"]) == ("firecrawl_crawl", "http://mills.example/pond")
    assert [row["id"] for row in api.client.get("/api/content/by-session/crawl-1").json()] == [first]

    response = api.client.post("/api/search", json={"query": "when is the sluice opened"}).json()
    assert str(response["results"][0]["id"]) == str(first)
    crawl = api.client.get("/api/metrics/crawls/crawl-1").json()
    assert (crawl["status"], crawl["operation"], crawl["pages_indexed"]) == ("in_progress", "batch_scrape", 1)
    assert (crawl["started_at"], crawl["extra_metadata"]) == ("2025-03-01T09:00:00Z", {"by": "miller"})

    made = desk.give("A new page.", url="https://mills.example/new")
    assert made.version_id > first


def test_newest_content_is_indexed_and_a_second_import_adds_nothing(db: Database, pulse: PulseService) -> None:
    old = [pulse.page("https://m.example/a", f"Text {n}.", scraped_at=f"2025-01-0{n} 00:00:00") for n in (1, 3, 2)]
    lone = pulse.page("https://m.example/b", None, html="<p>Only HTML.</p>", crawl_session_id="nobody-knows")
    pulse.add("crawl_sessions", job_id="c", status="completed", completed_at="2025-03-01T09:00:00+00:00")
    assert import_json(pulse)["jobs"] == 2
    states = {key: row.state for key, row in db.read(versions).items()}
    assert states == {old[0]: "superseded", old[1]: "received", old[2]: "superseded", lone: "received"}
    assert db.read(versions)[lone].crawl_session == "nobody-knows"
    before = db.read(counts)
    again = import_json(pulse)
    assert (again["pages"], again["jobs"]) == ({"read": 4, "taken": 0, "here": 4, "left_out": 0}, 0)
    assert (again["crawls"]["here"], db.read(counts)) == (1, before)

    desk = Desk(db)
    for job in db.read(job_ids):
        desk.work(job)
    newer = pulse.page("https://m.example/a", "Text 4.", scraped_at="2025-01-04 00:00:00")
    older = pulse.page("https://m.example/a", "Text 0.", scraped_at="2024-01-01 00:00:00")
    same = pulse.page("https://m.example/b", None, html="<p>Only HTML.</p>", crawl_session_id="another")
    assert import_json(pulse)["jobs"] == 1
    states = {key: db.read(versions)[key].state for key in (newer, older, same)}
    assert states == {newer: "received", older: "superseded", same: "superseded"}
    assert db.read(versions)[same].html == "<p>Only HTML.</p>"


def test_invalid_rows_are_skipped_with_their_reason(db: Database, pulse: PulseService) -> None:
    good = pulse.page("https://m.example/good", "Good.")
    empty = pulse.page("https://m.example/empty", " \n", html="")
    huge = pulse.page("https://m.example/huge", "x" * 6000)
    long = pulse.page("https://m.example/" + "y" * 3000, "Long.")
    blank = pulse.page("", "No address.")
    odd = pulse.page("http://[half", "No address either.")
    pulse.run(r"""INSERT INTO webhook.scraped_content (url, markdown, metadata, scraped_at, screenshot) VALUES
        ('https://m.example/nul', 'Nul.', '{"title": "a\u0000b"}', 'infinity', repeat('z', 9000)),
        ('https://m.example/deep', 'Deep.', CAST(repeat('[', 300) || repeat(']', 300) AS json), NULL, NULL),
        ('https://m.example/list', 'List.', '["x"]', NULL, NULL)""")
    for url in ("https://m.example/1", "https://m.example/2"):
        pulse.page(url, "Good, too.")
    pulse.add("crawl_sessions", job_id="   ")
    pulse.add("crawl_sessions", job_id="odd", status="hibernating", success=False, error_message="x" * 9000)
    report = import_json(pulse, MILLRACE_MAX_BODY_BYTES="5000")
    reasons = {(row["table"], row["id"]): row["reason"] for row in report["left_out"]}
    assert {key[1] for key in reasons if key[0] == "scraped_content"} == {
        str(row_id) for row_id in (empty, huge, long, blank, odd, odd + 2)
    }
    assert "MILLRACE_MAX_BODY_BYTES" in reasons["scraped_content", str(huge)]
    assert "2048" in reasons["scraped_content", str(long)]
    assert "url is missing" in reasons["scraped_content", str(blank)]
    assert report["pages"] == {"read": 11, "taken": 5, "here": 0, "left_out": 6}
    assert report["crawls"] == {"read": 2, "taken": 1, "here": 0, "left_out": 1}
    rows = db.read(versions)
    assert rows.keys() == {good, odd + 1, odd + 3, odd + 4, odd + 5}
    assert rows[odd + 1].fields["title"] == "ab"
    assert import_json(pulse)["pages"]["taken"] == 1
    assert huge in db.read(versions)

    shown = run_import(pulse)
    assert shown.code == 0 and "left out 1:" in shown.out


def test_taken_id_is_reported_with_the_new_one(db: Database, pulse: PulseService) -> None:
    """By another page of ours, or by the same installation moved to another tenant."""
    ours = Desk(db).give("Ours.", url="https://ours.example/").version_id
    pulse.run(f"SELECT setval('webhook.scraped_content_id_seq', {ours}, false)")
    taken, free = pulse.page("https://m.example/a", "A."), pulse.page("https://m.example/b", "B.")
    beyond = pulse.page("https://m.example/c", "C.", id=2**60)
    assert taken == ours
    tried = import_json(pulse, "--dry-run")
    assert (tried["pages"]["taken"], tried["moved"]) == (3, {str(taken): None, str(beyond): None})
    assert (tried["jobs"], len(db.read(versions))) == (0, 1)

    report = import_json(pulse)
    assert report["moved"].keys() == {str(taken), str(beyond)}
    new = {int(old): int(to) for old, to in report["moved"].items()}
    rows = db.read(versions)
    assert rows[ours].body == "Ours." and rows[free].body == "B."
    assert [rows[new[taken]].body, rows[new[beyond]].body] == ["A.", "C."]
    assert min(new.values()) > free
    again = import_json(pulse)
    assert (again["pages"]["here"], again["moved"], len(db.read(versions))) == (3, report["moved"], 4)

    assert run_import(pulse, "--tenant", "acme").code == 4
    db.transaction(directory.create, "acme", "", {})
    other = import_json(pulse, "--tenant", "acme")
    assert (other["pages"]["taken"], len(other["moved"])) == (3, 3)
    assert import_json(pulse, "--tenant", "acme")["pages"]["here"] == 3


def test_newer_local_content_stays_searched(api: Api, pulse: PulseService) -> None:
    """Though its id is the lesser one: shown first, and read when the document is to be read again."""
    desk = Desk(database())
    ours = desk.put("Of today.", url="https://m.example/a")
    pulse.page("https://m.example/a", "Of last year.", id=500, scraped_at="2024-01-01 00:00:00")
    assert import_json(pulse)["jobs"] == 0
    assert database().read(versions)[500].state == "superseded"
    shown = api.client.get("/api/content/by-url", params={"url": "https://m.example/a"}).json()
    assert [page["markdown"] for page in shown] == ["Of today.", "Of last year."]
    desk.work(api.client.post(f"/api/documents/{ours['document_id']}/reprocess").json()["id"])
    assert _current() == ["Of today."]
    desk.put("Of tomorrow.", url="https://m.example/a")
    assert _current() == ["Of tomorrow."]
    assert max(database().read(versions)) > 500


def _current() -> list[str | None]:
    return [row.text for row in database().read(versions).values() if row.state == "current"]


def test_concurrent_imports_take_each_row_once(db: Database, pulse: PulseService) -> None:
    pulse.run("""INSERT INTO webhook.scraped_content (url, markdown)
        SELECT 'https://m.example/' || n % 500, 'Text ' || n FROM generate_series(1, 1000) n""")
    pulse.run("INSERT INTO webhook.crawl_sessions (job_id) SELECT 'crawl-' || n FROM generate_series(1, 500) n")
    both = [Running("import", "pulse", pulse.url, env=os.environ) for _ in range(2)]
    ended = [process.end(60) for process in both]
    assert [result.code for result in ended] == [0, 0], ended
    assert db.read(counts) == (500, 500, 1000, 500)


def test_a_server_that_goes_away_is_one_sentence(sqlite_db: Database, postgres_server: PostgresServer) -> None:
    old = PulseService(postgres_server.create_database("pulse"))
    old.run("""INSERT INTO webhook.scraped_content (url, markdown)
        SELECT 'https://m.example/' || n, 'Text ' || n FROM generate_series(1, 20000) n""")
    running = Running("import", "pulse", old.url, env=os.environ)
    while not sqlite_db.read(counts)[2]:
        assert running.poll() is None
    postgres_server.kill()
    code, _, error = running.end(60)
    assert code == 1 and error.startswith("millrace: the older database cannot be read"), error
    assert "run it again" in error and len(error.splitlines()) == 1
    assert sqlite_db.read(counts)[2] >= 200


def test_killed_import_is_completed_by_the_next_run(db: Database, pulse: PulseService, redis_url: str) -> None:
    pulse.run("""INSERT INTO webhook.scraped_content (url, markdown, crawl_session_id)
        SELECT 'https://m.example/' || n % 1000, 'Text ' || n, 'crawl-' || n % 7 FROM generate_series(1, 2000) n""")
    pulse.run("INSERT INTO webhook.crawl_sessions (job_id, status) SELECT 'crawl-' || n, 'completed' "
              "FROM generate_series(0, 299) n")  # fmt: skip

    def pages_and_jobs() -> tuple[int, int]:
        return db.read(counts)[2:]

    for pages, jobs in ((200, 0), (2000, 100)):
        running = Running("import", "pulse", pulse.url, env={**os.environ, "MILLRACE_REDIS_URL": redis_url})
        while (so_far := pages_and_jobs()) < (pages, jobs):
            assert running.poll() is None, f"it ended with {so_far}"
        assert running.kill() == -signal.SIGKILL
        assert db.read(counts)[3] < 1000
    report = import_json(pulse)
    assert report["pages"] == {"read": 2000, "taken": 0, "here": 2000, "left_out": 0}
    assert db.read(counts) == (300, 1000, 2000, 1000)
    rows = db.read(versions)
    assert sorted(rows) == list(range(1, 2001))
    assert {row.state for key, row in rows.items() if key > 1000} == {"received"}
    assert {row.state for key, row in rows.items() if key <= 1000} == {"superseded"}


def test_an_older_version_with_fewer_columns(sqlite_db: Database, pulse: PulseService) -> None:
    pulse.run(
        "ALTER TABLE webhook.scraped_content DROP html, DROP links, DROP screenshot, DROP metadata, DROP source_url, "
        "DROP scraped_at, DROP content_source; DROP TABLE webhook.crawl_sessions; DROP TABLE webhook.change_events"
    )
    page = pulse.page("https://m.example/", "Plain.")
    assert import_json(pulse)["pages"]["taken"] == 1
    assert sqlite_db.read(versions)[page].fields["source"] == "firecrawl"
    pulse.run("DROP TABLE webhook.scraped_content")
    assert "no schema 'webhook'" in run_import(pulse).err


def test_asyncpg_url_is_accepted(sqlite_db: Database, pulse: PulseService) -> None:
    pulse.url = pulse.url.replace("+psycopg", "+asyncpg") + "?ssl=disable"
    pulse.page("https://m.example/", "Plain.")
    assert import_json(pulse, "--dry-run")["pages"]["taken"] == 1
    assert sqlite_db.read(counts) == (0, 0, 0, 0)


def test_unreadable_database_is_one_sentence_and_exit_code_2(
    sqlite_db: Database, pulse: PulseService, shared_postgres: PostgresServer
) -> None:
    server = shared_postgres.url_of("")
    wrong = {
        "nonsense": "invalid database URL",
        "mysql://u@127.0.0.1/x": "PostgreSQL",
        "postgresql://u@127.0.0.1:1/x": "refused",
        f"{server}nowhere": "nowhere",
        f"{server}postgres": "no schema 'webhook'",
        pulse.url.replace(shared_postgres.password, "guess"): "authentication",
        f"{pulse.url}?colour=blue": "colour",
    }
    for url, reason in wrong.items():
        ran = millrace("import", "pulse", url, env=dict(os.environ))
        assert (ran.code, ran.out) == (2, ""), url
        assert reason in ran.err and len(ran.err.splitlines()) == 1, ran.err
        assert "guess" not in ran.err and shared_postgres.password not in ran.err


def test_our_database_must_have_this_version_s_schema(pulse: PulseService, settings_env: SettingsEnv) -> None:
    settings_env(database_url="sqlite:///empty.db")
    ran = run_import(pulse)
    assert (ran.code, ran.out) == (2, "") and "millrace migrate" in ran.err
