"""The log lines of jobs: collected where they are logged, kept in their order, bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import clock, logging
from app.core.db import database
from app.core.ids import uuid7
from app.jobs.models import JobLogRow, JobRow
from app.jobs.sandbox import job_log
from app.jobs.sandbox.job_log import MAX_LINES_PER_RUN, MAX_TEXT_CHARS, MORE, JobLog
from tests.support.databases import SettingsEnv
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Ledger


def line(event: str = "said", **values: Any) -> dict[str, Any]:
    return {"at": 1.8e9, "level": "info", "logger": "tests", "event": event, "fields": {}} | values


@pytest.fixture
def collector(spine_env: SettingsEnv) -> Iterator[JobLog]:
    """A worker's log of jobs, its lines made by this process's own loggers."""
    logging.setup("worker")
    collected = JobLog()
    collected.start()
    yield collected
    collected.stop()
    logging.unbind("job_id", "fence", "attempt")


def lines(job_id: str, count: int) -> list[JobLogRow]:
    """The job's lines once there are so many."""

    def there() -> list[JobLogRow]:
        rows = database().read(job_log.read_lines, job_id, limit=5000)
        return rows if len(rows) >= count else []

    return wait_until(there, what=f"{count} lines of {job_id}")


def test_lines_are_kept_in_their_order_and_read_in_pages(ledger_of: Ledger) -> None:
    job_id, other = ledger_of.put_many(2)
    key = {"key_id": job_id, "fence": 1, "attempt": 1}
    rows = [job_log._row(line(f"line {number}", at=2e9 - number)) | key for number in range(5)]
    ledger_of.db.transaction(job_log.write, [*rows, job_log._row(line("theirs")) | key | {"key_id": other}])
    first = ledger_of.db.read(job_log.read_lines, job_id, limit=3)
    rest = ledger_of.db.read(job_log.read_lines, job_id, limit=3, after=first[-1].id)
    assert [row.event for row in (*first, *rest)] == [f"line {number}" for number in range(5)]
    assert ledger_of.db.read(job_log.read_lines, other, limit=3)[0].event == "theirs"


def test_lines_are_chosen_by_level_and_attempt(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    rows = [
        job_log._row(line(level, level=level)) | {"key_id": job_id, "fence": 2 * attempt, "attempt": attempt}
        for attempt in (1, 2)
        for level in job_log.LEVELS
    ]
    ledger_of.db.transaction(job_log.write, rows)

    def events_of(**options: Any) -> list[tuple[int, str]]:
        chosen = ledger_of.db.read(job_log.read_lines, job_id, limit=50, **options)
        return [(row.attempt, row.event) for row in chosen]

    assert len(events_of()) == 10
    assert events_of(level="error", attempt=2) == [(2, "error"), (2, "critical")]


def test_deleted_job_loses_its_lines_and_late_ones_are_dropped(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    row = job_log._row(line()) | {"key_id": job_id, "fence": 1, "attempt": 1}
    ledger_of.db.transaction(job_log.write, [row])
    ledger_of.db.transaction(lambda session: session.execute(sa.delete(JobRow)))
    assert ledger_of.db.read(job_log.read_lines, job_id, limit=9) == []
    ledger_of.db.transaction(job_log.write, [row, row | {"key_id": uuid7()}])
    assert ledger_of.db.read(job_log.read_lines, job_id, limit=9) == []


def test_old_lines_are_pruned_in_batches(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    key = {"key_id": job_id, "fence": 1, "attempt": 1}
    old = clock.now() - timedelta(days=9)
    rows = [job_log._row(line("old", at=old.timestamp())) | key] * 3 + [job_log._row(line("new", at=None)) | key]
    ledger_of.db.transaction(job_log.write, rows)
    week_ago = clock.now() - timedelta(days=7)
    assert [ledger_of.db.transaction(job_log.prune, week_ago, 2) for _ in range(3)] == [2, 1, 0]
    assert [row.event for row in ledger_of.db.read(job_log.read_lines, job_id, limit=9)] == ["new"]


def test_only_lines_logged_by_a_job_are_stored(collector: JobLog) -> None:
    job_id = Ledger(database()).put()
    log = logging.get_logger("tests.talking")
    log.warning("before any job")
    logging.bind(job_id=job_id, fence=3, attempt=2, tenant="default")
    log.info("hello", number=7, api_key="hidden-one", odd=object, text="Bearer hidden-two")
    log.debug("too low a level")
    try:
        raise ValueError("this")
    except ValueError:
        log.exception("caught")
    logging.unbind("job_id", "fence", "attempt", "tenant")
    log.warning("after it")
    logged, caught = lines(job_id, 2)
    assert (logged.event, logged.level, logged.logger) == ("hello", "info", "tests.talking")
    assert (logged.fence, logged.attempt) == (3, 2)
    assert logged.fields["number"] == 7
    assert "hidden" not in str(logged.fields)
    assert (caught.level, caught.event) == ("error", "caught")
    assert caught.fields["exception"].strip().endswith("ValueError: this")
    assert len(lines(job_id, 2)) == 2


def test_lines_of_a_run_are_limited_with_a_note_and_the_next_run_starts_afresh(collector: JobLog) -> None:
    job_id = Ledger(database()).put()
    logging.bind(job_id=job_id, fence=1, attempt=1)
    for number in range(MAX_LINES_PER_RUN + 50):
        collector.take(line(f"{number}"))
    logging.bind(fence=2)
    collector.take(line("the next run"))
    rows = lines(job_id, MAX_LINES_PER_RUN + 2)
    assert [row.event for row in rows[-3:]] == [str(MAX_LINES_PER_RUN - 1), MORE, "the next run"]


def test_long_and_malformed_lines_are_cut_to_fit_a_row(collector: JobLog) -> None:
    job_id = Ledger(database()).put()
    logging.bind(job_id=job_id, fence=1, attempt=1)
    collector.take(line("x" * 9000, fields={"long": "y" * 9000, "nul": "a\0b", "nan": float("nan"), "list": [1, {2}]}))
    collector.take(line(fields={str(number): "z" * 4000 for number in range(9)}))
    collector.take({"at": "noon", "level": "loud", "fields": "none"})
    first, second, third = lines(job_id, 3)
    assert (len(first.event), len(first.fields["long"])) == (MAX_TEXT_CHARS, MAX_TEXT_CHARS)
    assert (first.fields["nul"], first.fields["nan"], first.fields["list"]) == ("ab", "nan", [1, "{2}"])
    assert second.fields["more_fields"] == "not kept"
    assert (third.level, third.event, third.fields) == ("info", "", {})


def test_threads_may_log_concurrently(collector: JobLog) -> None:
    ids = Ledger(database()).put_many(4)

    def talk(job_id: str) -> None:
        logging.bind(job_id=job_id, fence=1, attempt=1)
        for number in range(100):
            logging.get_logger("tests").info(f"{number}")

    threads = [threading.Thread(target=talk, args=(job_id,)) for job_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for job_id in ids:
        assert [row.event for row in lines(job_id, 100)] == [str(number) for number in range(100)]


def test_stop_writes_the_last_lines(collector: JobLog) -> None:
    job_id = Ledger(database()).put()
    logging.bind(job_id=job_id, fence=1, attempt=1)
    collector.take(line("last words"))
    collector.stop()
    assert [row.event for row in database().read(job_log.read_lines, job_id, limit=9)] == ["last words"]
