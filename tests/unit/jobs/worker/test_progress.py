"""A bar that rises, published at most ten times a second, and whose stages and end are never left out."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import redis
from app.core.ids import uuid7
from app.jobs.definition import Job
from app.jobs.events import publish
from app.jobs.events.publish import JobEvent
from app.jobs.worker.outcome import Verdict
from app.jobs.worker.progress import Progress, ProgressPublisher
from app.jobs.worker.run import Run
from tests.support.claims import claim_of
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore, WorkerHarness

on_sqlite = pytest.mark.parametrize("spine_env", ["sqlite"], indirect=True)


class Weighed(Job, kind="tests.progress.weighed", stages={"read": 10, "embed": 60, "write": 30}):
    """Three stages of different weight."""


class Unweighed(Job, kind="tests.progress.unweighed"):
    """No stages."""


def _silent(kind: str) -> Progress:
    """A progress without a publisher."""
    return Progress(claim_of(kind), ProgressPublisher(lambda claim, state: None))


def test_percent_is_made_of_the_weights_of_the_stages() -> None:
    progress, seen = _silent(Weighed.kind), []
    for stage, done in (
        ("read", 0),
        ("read", 5),
        ("read", 10),
        ("embed", 0),
        ("embed", 5),
        ("write", 0),
        ("write", 10),
    ):
        progress.report(done, 10, stage=stage)
        seen.append(progress.state()["percent"])
    assert seen == [0.0, 5.0, 10.0, 10.0, 40.0, 70.0, 100.0]


def test_without_stages_percent_is_done_of_total() -> None:
    progress = _silent(Unweighed.kind)
    progress.report(1, 8, unit="pages")
    assert progress.state() == {
        "percent": 12.5, "stage": None, "done": 1, "total": 8, "unit": "pages", "message": None, "seq": 0
    }  # fmt: skip


def test_a_new_stage_begins_with_nothing_done() -> None:
    progress = _silent(Weighed.kind)
    progress.report(3, 4, stage="read", unit="pages", message="page three")
    progress.report(stage="embed")
    now = progress.state()
    assert (now["done"], now["total"], now["unit"], now["message"], now["percent"]) == (None, None, None, None, 10.0)


numbers = st.one_of(st.none(), st.integers(-5, 10**9), st.floats(allow_nan=True, allow_infinity=True))
reported = st.tuples(numbers, numbers, st.sampled_from([None, "read", "embed", "write", "another"]))


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from([Weighed.kind, Unweighed.kind]), reports=st.lists(reported, max_size=12))
def test_percent_never_falls(kind: str, reports: list[tuple[float | None, float | None, str | None]]) -> None:
    """And every state of it is plain JSON."""
    progress, last = _silent(kind), 0.0
    for done, total, stage in reports:
        progress.report(done, total, stage=stage)
        now = progress.state()
        assert 0.0 <= last <= now["percent"] <= 100.0
        assert json.loads(json.dumps(now, allow_nan=False)) == now
        last = now["percent"]


def _published_events(harness: WorkerHarness, run: Run) -> list[dict[str, Any]]:
    """The events that Redis has stored of the job, in their order."""
    stored = harness.redis.xrange(redis.EVENTS.format(run.claim.id))
    return [json.loads(fields["e"]) for _, fields in stored]


def _began(harness: WorkerHarness, job: Job) -> tuple[Run, Progress]:
    harness.enqueue(job)
    (run,) = harness.take()
    harness.begin(run)
    assert run.progress is not None
    return run, run.progress


@on_sqlite
def test_reports_are_published_ten_times_a_second_and_always_the_last(harness: WorkerHarness) -> None:
    run, progress = _began(harness, Chore())
    began = time.monotonic()
    for number in itertools.count(1):
        progress.report(number, 10**9, stage="first")
        if time.monotonic() - began > 1.0:
            break
    harness.end(run)
    harness.until(run.claim.id, "succeeded")
    wait_until(
        lambda: "end" in [event["event"] for event in _published_events(harness, run)], what="the end to be published"
    )
    published = [event for event in _published_events(harness, run) if event["event"] == "progress"]
    assert 4 <= len(published) <= 14
    assert published[-1]["done"] == number


@on_sqlite
def test_no_change_of_stage_is_dropped(make_harness: Callable[..., WorkerHarness]) -> None:
    harness = make_harness(Weighed.kind)
    run, progress = _began(harness, Weighed())
    for stage in ("read", "embed", "write"):
        for done in range(5):
            progress.report(done, 5, stage=stage)
    harness.end(run)
    harness.until(run.claim.id, "succeeded")
    wait_until(
        lambda: "end" in [event["event"] for event in _published_events(harness, run)], what="the end to be published"
    )
    stages = [event["stage"] for event in _published_events(harness, run) if event["event"] == "progress"]
    assert list(dict.fromkeys(stages)) == ["read", "embed", "write"]
    assert harness.ledger.row(run.claim.id).progress["percent"] == 100.0  # type: ignore[index]


def test_the_numbers_of_events_rise_also_after_a_flush(harness: WorkerHarness) -> None:
    """Within a try, and for the next try, which only knows the ledger."""
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    assert run.progress is not None
    numbers: list[int] = []
    for part in range(6):
        run.progress.report(part, 6, stage="first", message=str(part))
        wait_until(lambda part=part: run.progress.seq > part, what="the report to be published")  # type: ignore[misc]
        numbers.append(run.progress.seq)
        if part == 2:
            harness.redis.flushall()
    assert numbers == sorted(set(numbers))
    harness.process.end(run, Verdict("queued", "handed_back", run.claim.tries))
    row = harness.until(job_id, "queued")
    assert row.progress is not None
    assert row.progress["seq"] >= numbers[-1]
    harness.redis.flushall()
    (again,) = publish.publish([JobEvent(job_id, "default", "state", "queued", 1, seed=row.progress["seq"])])
    assert again > numbers[-1]


def test_ledger_stores_the_progress(harness: WorkerHarness) -> None:
    run, progress = _began(harness, Chore())
    progress.report(1, 4, stage="second", unit="pages", message="half")
    wait_until(lambda: harness.ledger.row(run.claim.id).progress, what="the snapshot")
    stored = harness.ledger.row(run.claim.id).progress
    assert stored is not None
    assert (stored["stage"], stored["done"], stored["total"], stored["unit"], stored["percent"]) == (
        "second",
        1,
        4,
        "pages",
        43.8,
    )


@on_sqlite
def test_report_after_the_end_is_not_published(harness: WorkerHarness) -> None:
    run, progress = _began(harness, Chore())
    progress.report(1, 2, stage="first")
    harness.end(run)
    progress.report(2, 2, stage="second")
    harness.until(run.claim.id, "succeeded")
    wait_until(
        lambda: "end" in [event["event"] for event in _published_events(harness, run)], what="the end to be published"
    )
    assert "second" not in [event["stage"] for event in _published_events(harness, run)]


@on_sqlite
def test_report_does_not_block_and_works_from_any_thread(harness: WorkerHarness) -> None:
    run, progress = _began(harness, Chore())
    started = time.monotonic()
    threads = [
        threading.Thread(target=lambda: [progress.report(n, 1000, stage="first") for n in range(1000)])  # type: ignore[func-returns-value]
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - started < 5
    progress.report(1000, 1000)
    harness.end(run)
    wait_until(
        lambda: [e["done"] for e in _published_events(harness, run) if e["event"] == "progress"][-1:] == [1000],
        what="the last",
    )


@on_sqlite
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_invalid_number_in_a_report_does_not_fail_the_job(harness: WorkerHarness, odd: float) -> None:
    run, progress = _began(harness, Chore())
    progress.report(odd, odd, stage="first")
    harness.end(run)
    assert harness.until(run.claim.id, "succeeded").error_type is None


@on_sqlite
def test_message_and_unit_are_published_as_text(harness: WorkerHarness) -> None:
    run, progress = _began(harness, Chore())
    error: Any = ValueError("page 3 is broken")
    progress.report(1, 2, stage="first", message=error, unit="x" * 5000)
    wait_until(lambda: _published_events(harness, run), what="the report to be published")
    message = _published_events(harness, run)[0]
    assert (message["message"], len(message["unit"])) == ("page 3 is broken", 1000)
    harness.end(run)
    assert harness.until(run.claim.id, "succeeded").progress is not None
    assert harness.process.is_serving


def test_each_event_has_its_try(harness: WorkerHarness) -> None:
    job_id = harness.ledger.put(tries=2, fence=2, admitted_at=None)
    harness.push([job_id])
    (run,) = harness.take()
    harness.begin(run)
    assert run.progress is not None
    run.progress.report(1, 2, stage="first")
    harness.end(run)
    harness.until(job_id, "succeeded")
    wait_until(
        lambda: "end" in [event["event"] for event in _published_events(harness, run)], what="the end to be published"
    )
    assert {event["attempt"] for event in _published_events(harness, run)} == {3}
    assert [event["seq"] for event in _published_events(harness, run)] == sorted(
        {event["seq"] for event in _published_events(harness, run)}
    )


@on_sqlite
def test_any_tenant_name_works(harness: WorkerHarness) -> None:
    tenant = 'acme %1 100% {} "quoted"'
    publish.publish([JobEvent(uuid7(), tenant, "state", "queued", 1)])
    (stored,) = harness.redis.xrange(redis.TENANT_EVENTS.format(tenant))
    assert json.loads(stored[1]["e"])["state"] == "queued"
