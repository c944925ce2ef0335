"""The relay feeds Redis from SQL and frees what the dead held; any number of them, each move once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import clock, metrics, redis
from app.core.db import database
from app.core.ids import uuid7
from app.jobs.admission.push import DEFAULT_WINDOW
from app.jobs.ledger import ends, timers, workers
from app.jobs.ledger.worker_host import process_start, this_host
from app.jobs.models import JOB, JobRow, WorkerRow
from app.jobs.relay import fairness
from app.jobs.relay.relay import Relay
from app.jobs.relay.windows import MAX_UNCLAIMED, MAX_WINDOW, QueueWindow
from tests.support.databases import SettingsEnv
from tests.support.services import RedisServer
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore, Ledger, Outage, WorkerHarness

on_sqlite = pytest.mark.parametrize("spine_env", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("spine_env", ["postgresql"], indirect=True)
HOUR = timedelta(hours=1)
LATER = MAX_UNCLAIMED + timedelta(seconds=1)


@pytest.fixture(autouse=True)
def right_clock() -> Iterator[None]:
    yield
    clock.shift(timedelta(0))


@pytest.fixture
def rows(spine_env: SettingsEnv) -> Ledger:
    return Ledger(database())


def window_refs(queue: str = "default") -> list[str]:
    entries: Any = redis.push().client.lrange(f"mr:q:{queue}", 0, -1)
    return [str(entry) for entry in entries]


def admitted() -> int:
    query = sa.select(sa.func.count()).where(JobRow.admitted_at.is_not(None))
    return int(database().read(lambda session: session.scalar(query)) or 0)


def put_worker(pid: int = 0, pid_birth: int = 0, host: str = "elsewhere|boot|1") -> str:
    """A worker's row as if another process had written it."""
    row = WorkerRow(
        id=uuid7(),
        host=host,
        pid=pid,
        pid_birth=pid_birth,
        queues=["default"],
        threads=4,
        version="0",
        started_at=clock.now(),
    )
    database().transaction(lambda session: session.add(row))
    return row.id


def put_running(rows: Ledger, worker_id: str, **values: Any) -> str:
    now = clock.now()
    return rows.put(state="running", fence=1, worker_id=worker_id, claimed_at=now, started_at=now, **values)


def tick_slowly(relay: Relay) -> None:
    """A round that also looks after workers and lost pushes, which happens each second."""
    relay._slow_at = 0.0
    relay.tick()


# Windows


def test_redis_holds_a_window_of_ten_thousand_queued_jobs(rows: Ledger) -> None:
    """The oldest come first; while no worker takes them, no more come."""
    ids = rows.put_many(10_000)
    relay = Relay()
    for _ in range(5):
        relay.tick()
        assert 0 < len(window_refs()) <= DEFAULT_WINDOW
    assert admitted() == len(window_refs())
    assert [ref.partition(":")[0] for ref in window_refs()] == ids[: len(window_refs())]


def test_a_window_grows_while_it_is_emptied_and_shrinks_when_it_stays_full() -> None:
    window = QueueWindow()
    for _ in range(20):
        window.fed_at = 10.0
        window.adapt(0, DEFAULT_WINDOW, 10.1)
    assert window.size == MAX_WINDOW
    window.adapt(MAX_WINDOW, DEFAULT_WINDOW, 11.0)
    assert window.size == MAX_WINDOW
    for _ in range(20):
        window.adapt(window.size, DEFAULT_WINDOW, 13.0)
    assert window.size == DEFAULT_WINDOW


def test_batch_limit_holds_with_stale_planner_statistics(rows: Ledger) -> None:
    """Of a table that was empty when it was last looked at, PostgreSQL runs a subquery's LIMIT again for each row."""
    past, db = clock.now() - HOUR, rows.db
    rows.put_many(300, queue="bulk")
    db.transaction(lambda session: session.execute(sa.delete(JOB)))
    if db.dialect == "postgresql":
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE job")
    worker_id = put_worker()
    rows.put_many(300, expires_at=past)
    rows.put_many(300, state="scheduled", due_at=past)
    rows.put_many(300, queue="bulk")
    rows.put_many(ends.FREE_BATCH + 5, state="running", fence=1, worker_id=worker_id)
    assert len(db.transaction(fairness.admit, "bulk", 7)) == 7
    assert len(db.transaction(timers.expire, 9)) == 9
    assert db.transaction(timers.make_due, 8) == 8
    assert len(db.transaction(ends.free, worker_id, "killed")) == ends.FREE_BATCH


@on_sqlite
def test_window_grows_with_the_demand_of_workers(rows: Ledger) -> None:
    rows.put_many(3000)
    relay, sizes = Relay(), []
    for _ in range(5):
        relay.tick()
        sizes.append(len(window_refs()))
        redis.push().client.delete("mr:q:default")
    assert sizes[0] == DEFAULT_WINDOW
    assert max(sizes) >= 4 * DEFAULT_WINDOW


def test_due_jobs_are_queued_and_pushed_and_later_ones_wait(rows: Ledger) -> None:
    due = [rows.put(state=state, due_at=clock.now() - HOUR) for state in ("scheduled", "retrying")]
    later = [rows.put(state=state, due_at=clock.now() + HOUR) for state in ("scheduled", "retrying")]
    Relay().tick()
    assert {ref.partition(":")[0] for ref in window_refs()} == set(due)
    assert [rows.row(job_id).state for job_id in later] == ["scheduled", "retrying"]


def test_expired_job_fails_and_is_not_pushed(rows: Ledger) -> None:
    expired = rows.put(expires_at=clock.now() - HOUR)
    Relay().tick()
    row = rows.row(expired)
    assert (row.state, row.error_code, window_refs()) == ("failed", "expired", [])


@pytest.mark.parametrize("loss", ["list", "everything of the queue"])
def test_lost_push_is_repeated(harness: WorkerHarness, loss: str) -> None:
    ids, relay = harness.enqueue(Chore(), Chore()), Relay()
    relay.tick()
    redis.push().client.delete("mr:q:default")
    if loss != "list":
        redis.push().client.delete("mr:q:default.msgs")
    tick_slowly(relay)
    assert window_refs() == []
    clock.shift(LATER)
    tick_slowly(relay)
    assert {run.claim.id for run in harness.take(2)} == set(ids)


def test_job_held_by_a_live_worker_or_in_the_list_is_not_pushed_again(harness: WorkerHarness) -> None:
    """However long it takes until a worker claims it."""
    relay = Relay()
    relay.tick()
    harness.enqueue(Chore(), Chore())
    taken = redis.push().client.lpop("mr:q:default")
    redis.push().client.sadd(f"mr:q:__acks__.{harness.process.id}.default", str(taken))
    clock.shift(LATER)
    tick_slowly(relay)
    assert len(window_refs()) == 1
    assert str(taken) not in window_refs()


def test_unserved_queue_does_not_hide_lost_ids_of_another(rows: Ledger) -> None:
    long_ago = clock.now() - HOUR
    rows.put_many(1500, queue="bulk", admitted_at=long_ago)
    lost = rows.put(admitted_at=clock.now() - LATER)
    waiting = rows.db.read(lambda session: list(session.scalars(sa.select(JobRow.id).where(JobRow.queue == "bulk"))))
    redis.push().client.rpush("mr:q:bulk", *(f"{job_id}:0" for job_id in waiting))
    relay = Relay()
    redis.push().client.set(redis.EPOCH, str(redis.push().client.info("server")["run_id"]))
    relay.tick()
    assert window_refs() == [f"{lost}:0"]
    assert len(window_refs("bulk")) == 1500


def test_flushed_redis_is_refilled_at_once(harness: WorkerHarness) -> None:
    ids, relay = harness.enqueue(Chore(), Chore()), Relay()
    relay.tick()
    redis.push().client.flushall()
    relay.tick()
    assert {run.claim.id for run in harness.take(2)} == set(ids)


@on_sqlite
def test_restarted_redis_counts_as_an_empty_window(redis_server: RedisServer, spine_env: SettingsEnv) -> None:
    """Two relays, and each finds out once: nothing is pushed over and over."""
    spine_env(redis_url=redis_server.url)
    rows = Ledger(database())
    ids = rows.put_many(10)
    relays = [Relay(), Relay()]
    for relay in relays:
        relay.tick()
    assert len(window_refs()) == 10
    redis_server.kill()
    redis_server.start()
    wait_until(lambda: not redis.push().is_open and not relays[0].tick()[1], what="Redis to be back")
    redis.push().client.delete("mr:q:default")
    for _ in range(3):
        for relay in relays:
            tick_slowly(relay)
    wait_until(lambda: relays[1].tick() and window_refs(), what="the window to be filled")
    assert {ref.partition(":")[0] for ref in window_refs()} == set(ids)
    assert len(window_refs()) <= 20


# Workers


def test_jobs_of_an_ended_process_are_freed_at_once(rows: Ledger) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        worker_id = put_worker(child.pid, process_start(child.pid), this_host())
        job_id = put_running(rows, worker_id)
        relay = Relay()
        relay.tick()
        assert rows.row(job_id).state == "running"
        child.kill()
        wait_until(lambda: process_start(child.pid) == 0, what="the process to end")
        began = time.monotonic()
        tick_slowly(relay)
        assert time.monotonic() - began < 2
        row = rows.row(job_id)
        assert (row.state, row.crashes) == ("queued", 1)
        assert window_refs() == [f"{job_id}:1"]
        assert rows.attempts(job_id)[0].error_message == f"process {child.pid} ended"
    finally:
        child.kill()
        child.communicate()


def test_reused_pid_is_a_dead_worker(rows: Ledger) -> None:
    job_id = put_running(rows, put_worker(os.getpid(), process_start(os.getpid()) + 1, this_host()))
    Relay().tick()
    assert rows.row(job_id).state == "queued"


def test_live_pid_on_this_host_keeps_its_jobs(rows: Ledger) -> None:
    job_id = put_running(rows, put_worker(os.getpid(), process_start(os.getpid()), this_host()))
    Relay().tick()
    assert rows.row(job_id).state == "running"


def _until_freed(relay: Relay, rows: Ledger, job_id: str, timeout_s: float = 15.0) -> float:
    """Seconds until the job is free."""
    began = time.monotonic()

    def freed() -> bool:
        tick_slowly(relay)
        return rows.row(job_id).state != "running"

    wait_until(freed, timeout_s=timeout_s, what="the job to be freed", poll_s=0.1)
    return time.monotonic() - began


def test_stale_heartbeat_frees_jobs_by_the_clock_of_the_relay(spine_env: SettingsEnv) -> None:
    """A wall clock that jumps a day ahead or back frees no job."""
    spine_env(worker_dead_s=3)
    rows, relay = Ledger(database()), Relay()
    worker_id = put_worker()
    job_id = put_running(rows, worker_id)
    for jump in (timedelta(days=1), timedelta(days=-1), timedelta(0)):
        tick_slowly(relay)
        clock.shift(jump)
        tick_slowly(relay)
        assert rows.row(job_id).state == "running"
    database().transaction(workers.heartbeat, worker_id)
    assert 2.9 < _until_freed(relay, rows, job_id) < 12
    assert rows.attempts(job_id)[0].error_message == "no beat for 3 s"


@on_sqlite
def test_worker_with_heartbeats_keeps_its_jobs(spine_env: SettingsEnv) -> None:
    spine_env(worker_dead_s=1.1)
    rows, relay, end = Ledger(database()), Relay(), time.monotonic() + 2.5
    worker_id = put_worker()
    job_id = put_running(rows, worker_id)

    def beats_on() -> bool:
        database().transaction(workers.heartbeat, worker_id)
        tick_slowly(relay)
        assert rows.row(job_id).state == "running"
        return time.monotonic() > end

    wait_until(beats_on, what="some time to pass", poll_s=0.2)


@on_sqlite
def test_suspended_relay_restarts_its_timeouts(spine_env: SettingsEnv) -> None:
    """It was stopped, with its whole machine perhaps: what it saw before says nothing."""
    spine_env(worker_dead_s=1.1)
    rows, relay = Ledger(database()), Relay()
    job_id = put_running(rows, put_worker())
    tick_slowly(relay)
    asleep_until = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > asleep_until, what="the sleep to end", poll_s=0.1)
    tick_slowly(relay)
    assert rows.row(job_id).state == "running"
    assert _until_freed(relay, rows, job_id) > 1


@on_postgres
def test_unreadable_heartbeats_are_not_stale(spine_env: SettingsEnv, outage: Outage) -> None:
    spine_env(worker_dead_s=1.5)
    rows, relay = Ledger(database()), Relay()
    job_id = put_running(rows, put_worker())
    tick_slowly(relay)
    almost = time.monotonic() + 1.0

    def watched() -> bool:
        tick_slowly(relay)
        return time.monotonic() > almost

    wait_until(watched, what="most of the patience to be used up", poll_s=0.1)
    with outage():
        tick_slowly(relay)
        assert relay.tick()[1]
    assert _until_freed(relay, rows, job_id) > 1.3


def test_ids_fetched_by_a_dead_worker_return_to_the_list(rows: Ledger) -> None:
    job_id, worker_id = rows.put(), put_worker(os.getpid(), 1, this_host())
    database().transaction(workers.set_state, worker_id, "stopped")
    relay = Relay()
    relay.tick()
    redis.push().client.delete("mr:q:default")
    redis.push().client.sadd(f"mr:q:__acks__.{worker_id}.default", f"{job_id}:0")
    database().transaction(lambda session: session.execute(sa.update(WorkerRow).values(state="running")))
    tick_slowly(relay)
    assert window_refs() == [f"{job_id}:0"]


def test_jobs_of_an_unknown_worker_are_freed_and_only_begun_ones_count_a_crash(rows: Ledger) -> None:
    begun = put_running(rows, uuid7())
    claimed = rows.put(state="running", fence=1, worker_id=uuid7(), claimed_at=clock.now())
    Relay().tick()
    assert [(rows.row(job_id).state, rows.row(job_id).crashes) for job_id in (begun, claimed)] == [
        ("queued", 1),
        ("queued", 0),
    ]


def test_concurrent_relays_do_each_step_once(rows: Ledger) -> None:
    dead = put_worker(os.getpid(), 1, this_host())
    running = [put_running(rows, dead) for _ in range(20)]
    rows.put_many(50, state="scheduled", due_at=clock.now() - HOUR)
    rows.put_many(200)

    def work(relay: Relay) -> None:
        for _ in range(5):
            relay.tick()

    Relay().tick()
    redis.push().client.delete("mr:q:default")
    database().transaction(lambda session: session.execute(sa.update(JOB).values(admitted_at=None)))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, [Relay(), Relay(), Relay()]))
    assert {rows.row(job_id).crashes for job_id in running} == {1}
    assert all(len(rows.attempts(job_id)) == 1 for job_id in running)
    ids = [ref.partition(":")[0] for ref in window_refs()]
    assert len(ids) == len(set(ids)) == admitted()


@on_sqlite
def test_relay_without_redis_reports_it_and_continues(redis_server: RedisServer, spine_env: SettingsEnv) -> None:
    spine_env(redis_url=redis_server.url)
    rows, relay = Ledger(database()), Relay()
    relay.tick()
    assert (reached("sql"), reached("redis")) == (1, 1)
    redis_server.stop()
    job_id = rows.put(state="scheduled", due_at=clock.now() - HOUR)
    problems = relay.tick()[1]
    assert any("Redis" in problem for problem in problems)
    assert (reached("sql"), reached("redis")) == (1, 0)
    assert rows.row(job_id).state == "queued"
    redis_server.start()
    wait_until(lambda: relay.tick() and window_refs(), what="the job to be fed")
    relay.tick()
    assert reached("redis") == 1


def reached(service: str) -> float | None:
    """Return the value of `millrace_service_up` for the service."""
    return metrics.REGISTRY.get_sample_value("millrace_service_up", {"service": service})


def test_every_redis_key_except_those_of_dramatiq_expires(harness: WorkerHarness) -> None:
    harness.enqueue(Chore())
    relay = Relay()
    relay.tick()
    (run,) = harness.take()
    harness.begin(run)
    assert run.progress is not None
    run.progress.report(1, 2, stage="first")
    harness.end(run)
    harness.until(run.claim.id, "succeeded")
    harness.until_acked()
    client: Any = redis.push().client
    wait_until(lambda: client.exists(f"mr:ev:{run.claim.id}"), what="the events")
    for key in client.scan_iter("*"):
        assert key.startswith("mr:")
        assert key.startswith("mr:q:") or client.ttl(key) > 0, key
