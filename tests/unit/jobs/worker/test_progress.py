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
from tests.unit.jobs.conftest import Chore, Desk

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
def test_percent_never_falls_whatever_is_reported(
    kind: str, reports: list[tuple[float | None, float | None, str | None]]
) -> None:
    """And every state of it is plain JSON."""
    progress, last = _silent(kind), 0.0
    for done, total, stage in reports:
        progress.report(done, total, stage=stage)
        now = progress.state()
        assert 0.0 <= last <= now["percent"] <= 100.0
        assert json.loads(json.dumps(now, allow_nan=False)) == now
        last = now["percent"]


def _heard(desk: Desk, run: Run) -> list[dict[str, Any]]:
    """The events that Redis has stored of the job, in their order."""
    stored = desk.redis.xrange(redis.EVENTS.format(run.claim.id))
    return [json.loads(fields["e"]) for _, fields in stored]


def _began(desk: Desk, job: Job) -> tuple[Run, Progress]:
    desk.enqueue(job)
    (run,) = desk.take()
    desk.begin(run)
    assert run.progress is not None
    return run, run.progress


@on_sqlite
def test_reports_are_told_ten_times_a_second_and_the_last_is_never_dropped(desk: Desk) -> None:
    run, progress = _began(desk, Chore())
    began = time.monotonic()
    for number in itertools.count(1):
        progress.report(number, 10**9, stage="first")
        if time.monotonic() - began > 1.0:
            break
    desk.end(run)
    desk.until(run.claim.id, "succeeded")
    wait_until(lambda: "end" in [event["event"] for event in _heard(desk, run)], what="the end to be told")
    published = [event for event in _heard(desk, run) if event["event"] == "progress"]
    assert 4 <= len(published) <= 14
    assert published[-1]["done"] == number


@on_sqlite
def test_no_change_of_stage_is_dropped_however_quick(desks: Callable[..., Desk]) -> None:
    desk = desks(Weighed.kind)
    run, progress = _began(desk, Weighed())
    for stage in ("read", "embed", "write"):
        for done in range(5):
            progress.report(done, 5, stage=stage)
    desk.end(run)
    desk.until(run.claim.id, "succeeded")
    wait_until(lambda: "end" in [event["event"] for event in _heard(desk, run)], what="the end to be told")
    stages = [event["stage"] for event in _heard(desk, run) if event["event"] == "progress"]
    assert list(dict.fromkeys(stages)) == ["read", "embed", "write"]
    assert desk.ledger.row(run.claim.id).progress["percent"] == 100.0  # type: ignore[index]


def test_the_numbers_of_events_rise_also_after_a_flush(desk: Desk) -> None:
    """Within a try, and for the next try, which only knows the ledger."""
    (job_id,) = desk.enqueue(Chore())
    (run,) = desk.take()
    desk.begin(run)
    assert run.progress is not None
    numbers: list[int] = []
    for part in range(6):
        run.progress.report(part, 6, stage="first", message=str(part))
        wait_until(lambda part=part: run.progress.seq > part, what="the report to be told")  # type: ignore[misc]
        numbers.append(run.progress.seq)
        if part == 2:
            desk.redis.flushall()
    assert numbers == sorted(set(numbers))
    desk.process.end(run, Verdict("queued", "handed_back", run.claim.tries))
    row = desk.until(job_id, "queued")
    assert row.progress is not None
    assert row.progress["seq"] >= numbers[-1]
    desk.redis.flushall()
    (again,) = publish.publish([JobEvent(job_id, "default", "state", "queued", 1, seed=row.progress["seq"])])
    assert again > numbers[-1]


def test_the_ledger_keeps_where_a_job_is(desk: Desk) -> None:
    run, progress = _began(desk, Chore())
    progress.report(1, 4, stage="second", unit="pages", message="half")
    wait_until(lambda: desk.ledger.row(run.claim.id).progress, what="the snapshot")
    stored = desk.ledger.row(run.claim.id).progress
    assert stored is not None
    assert (stored["stage"], stored["done"], stored["total"], stored["unit"], stored["percent"]) == (
        "second",
        1,
        4,
        "pages",
        43.8,
    )


@on_sqlite
def test_a_report_after_the_end_is_not_told(desk: Desk) -> None:
    run, progress = _began(desk, Chore())
    progress.report(1, 2, stage="first")
    desk.end(run)
    progress.report(2, 2, stage="second")
    desk.until(run.claim.id, "succeeded")
    wait_until(lambda: "end" in [event["event"] for event in _heard(desk, run)], what="the end to be told")
    assert "second" not in [event["stage"] for event in _heard(desk, run)]


@on_sqlite
def test_a_report_blocks_nobody_and_may_come_from_any_thread(desk: Desk) -> None:
    run, progress = _began(desk, Chore())
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
    desk.end(run)
    wait_until(
        lambda: [e["done"] for e in _heard(desk, run) if e["event"] == "progress"][-1:] == [1000], what="the last"
    )


@on_sqlite
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_number_that_is_none_costs_no_job(desk: Desk, odd: float) -> None:
    run, progress = _began(desk, Chore())
    progress.report(odd, odd, stage="first")
    desk.end(run)
    assert desk.until(run.claim.id, "succeeded").error_type is None


@on_sqlite
def test_whatever_is_given_as_a_text_is_told_as_one(desk: Desk) -> None:
    run, progress = _began(desk, Chore())
    error: Any = ValueError("page 3 is broken")
    progress.report(1, 2, stage="first", message=error, unit="x" * 5000)
    wait_until(lambda: _heard(desk, run), what="the report to be told")
    message = _heard(desk, run)[0]
    assert (message["message"], len(message["unit"])) == ("page 3 is broken", 1000)
    desk.end(run)
    assert desk.until(run.claim.id, "succeeded").progress is not None
    assert desk.process.is_serving


def test_each_event_says_which_try_it_belongs_to(desk: Desk) -> None:
    job_id = desk.ledger.put(tries=2, fence=2, admitted_at=None)
    desk.push([job_id])
    (run,) = desk.take()
    desk.begin(run)
    assert run.progress is not None
    run.progress.report(1, 2, stage="first")
    desk.end(run)
    desk.until(job_id, "succeeded")
    wait_until(lambda: "end" in [event["event"] for event in _heard(desk, run)], what="the end to be told")
    assert {event["attempt"] for event in _heard(desk, run)} == {3}
    assert [event["seq"] for event in _heard(desk, run)] == sorted({event["seq"] for event in _heard(desk, run)})


@on_sqlite
def test_a_tenant_may_be_called_anything(desk: Desk) -> None:
    tenant = 'acme %1 100% {} "quoted"'
    publish.publish([JobEvent(uuid7(), tenant, "state", "queued", 1)])
    (stored,) = desk.redis.xrange(redis.TENANT_EVENTS.format(tenant))
    assert json.loads(stored[1]["e"])["state"] == "queued"
