"""A worker process as supervisors, kernels and operators meet it: started, drained, killed, frozen, woken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.db import database
from app.core.http import client
from app.jobs.inspect.explain import explain
from app.jobs.inspect.reason import Services
from app.jobs.ledger import commands
from app.jobs.models import WorkerRow
from app.search.engines.source import has_outdated
from app.search.models import Chunk
from tests.support.kinds import (
    Alarm,
    Block,
    BlockInChildTask,
    BlockOnce,
    CallInThread,
    Compute,
    Fail,
    FailOnce,
    Held,
    Kill,
    Noop,
    Paced,
    PacedCompute,
    Sleep,
    Slow,
    Staged,
    Stubborn,
)
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until
from tests.unit.actors.conftest import Plant, pass_time

on_sqlite = pytest.mark.parametrize("plant", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("plant", ["postgresql"], indirect=True)
pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


def test_each_end_a_job_can_come_to(plant: Plant) -> None:
    """One worker, one job for each row of the outcome table, plain `dramatiq` underneath."""
    plant.worker()
    jobs = {
        "good": plant.enqueue(Sleep(seconds=0.1)),
        "staged": plant.enqueue(Staged()),
        "permanent": plant.enqueue(Fail(error="permanent")),
        "later": plant.enqueue(Fail(error="unavailable")),
        "bug": plant.enqueue(Fail(error="bug")),
        "exit": plant.enqueue(Fail(error="exit")),
        "itself": plant.enqueue(Fail(error="itself")),
        "second": plant.enqueue(FailOnce(path=str(plant.folder / "tried"))),
        "slow": plant.enqueue(Slow()),
        "sandbox": plant.enqueue(Compute(seconds=0.1)),
        "crash": plant.enqueue(Compute(crash=True)),
    }
    rows = {name: plant.until(job_id, "succeeded", "failed", timeout_s=60) for name, job_id in jobs.items()}
    attempts = {name: plant.ledger.attempts(job_id) for name, job_id in jobs.items()}
    assert {name: row.state for name, row in rows.items() if row.state == "succeeded"} == dict.fromkeys(
        ["good", "staged", "second", "sandbox"], "succeeded"
    )
    assert rows["good"].result == {"slept_s": 0.1}
    assert rows["staged"].progress is not None
    assert rows["staged"].progress["percent"] == 100.0
    assert (rows["permanent"].tries, rows["permanent"].error_code) == (1, "invalid_input")
    assert attempts["permanent"][0].traceback is None
    assert (rows["later"].tries, rows["later"].error_type) == (4, "Unavailable")
    assert [attempt.outcome for attempt in attempts["later"]] == ["retrying"] * 3 + ["failed"]
    assert "ZeroDivisionError: oops" in (attempts["bug"][0].traceback or "")
    assert (rows["exit"].error_type, rows["itself"].error_message) == ("SystemExit", "the job cancelled itself")
    assert [attempt.outcome for attempt in attempts["second"]] == ["retrying", "succeeded"]
    assert rows["slow"].error_type == "TimeLimitExceeded"
    assert rows["crash"].error_type == "SandboxCrashed"
    assert {row.crashes for row in rows.values()} == {0}


@on_sqlite
@pytest.mark.parametrize(
    ("role", "options", "sentence"),
    [
        ("api", [], "MILLRACE_ROLE=api: this process may not run jobs"),
        ("worker", ["-Q", "express"], "no queue of that name; the queues are interactive, default, fetch, bulk"),
    ],
)
def test_what_may_not_run_jobs_refuses_with_a_sentence(
    plant: Plant, role: str, options: list[str], sentence: str
) -> None:
    command = [str(Path(sys.executable).parent / "dramatiq"), "actors.main", "-p", "1", "-t", "1", *options]
    env = {**plant.env, "MILLRACE_ROLE": role}
    done = subprocess.run(command, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert plant.workers() == []


@on_sqlite
def test_more_starts_than_a_rate_lets_through_are_put_off(plant: Plant) -> None:
    """Awaiting and in a sandbox; what is put off has not tried, and its slot is free."""
    plant.worker()
    jobs = [Paced(), Paced(), PacedCompute(key="a"), PacedCompute(key="a"), PacedCompute(key="b")]
    ids = [plant.enqueue(job) for job in jobs]
    rows = [plant.until(job_id, "succeeded", "retrying") for job_id in ids]
    assert sorted(row.state for row in rows[:2]) == sorted(row.state for row in rows[2:4]) == ["retrying", "succeeded"]
    assert rows[4].state == "succeeded"
    (late,) = [row for row in rows[:2] if row.state == "retrying"]
    assert (late.tries, [attempt.outcome for attempt in plant.ledger.attempts(late.id)]) == (0, ["snoozed"])


def test_a_drain_lets_what_runs_finish_and_gives_back_what_waits(plant: Plant) -> None:
    """Handed back uncounted and at once, next to a running job that takes its time; exit 0."""
    plant.env["MILLRACE_WORKER_THREADS"] = "2"
    worker = plant.worker()
    for number in [plant.enqueue(Noop(number=number)) for number in range(40)]:
        plant.until(number, "succeeded")
    jobs = [plant.enqueue(Sleep(seconds=2)) for _ in range(8)]
    wait_until(lambda: sum(plant.row(job).started_at is not None for job in jobs) == 2, what="two jobs to run")
    worker.term()
    waiting = [job for job in jobs if plant.row(job).started_at is None]
    wait_until(
        lambda: all(plant.row(job).state == "queued" for job in waiting), timeout_s=1.5, what="the others to be back"
    )
    assert worker.wait(15) == 0
    rows = [plant.row(job) for job in jobs]
    assert sorted(row.state for row in rows) == ["queued"] * 6 + ["succeeded"] * 2
    assert {(row.tries, row.crashes) for row in rows} == {(0, 0)}
    assert plant.workers() == []
    plant.until_nobody_lives()


def test_a_drain_longer_than_the_patience_with_the_dead_loses_nothing(plant: Plant) -> None:
    """A draining worker beats on, and hears cancels."""
    plant.env |= {"MILLRACE_WORKER_DEAD_S": "1.2", "MILLRACE_BEAT_S": "0.2", "MILLRACE_GRACE_S": "20"}
    worker = plant.worker()
    long, endless = plant.enqueue(Sleep(seconds=4)), plant.enqueue(Sleep(seconds=60))
    plant.until_begun(long)
    plant.until_begun(endless)
    worker.term()
    wait_until(lambda: plant.workers("draining"), what="the drain")
    row = plant.until(long, "succeeded", "queued", "failed")
    assert (row.state, row.fence, row.crashes) == ("succeeded", 1, 0)
    database().transaction(commands.cancel, "default", endless)
    assert plant.until(endless, "cancelled", timeout_s=5).fence == 1
    assert worker.wait(10) == 0


@on_sqlite
def test_a_second_sigterm_ends_at_once_and_hands_back(plant: Plant) -> None:
    worker = plant.worker()
    job_id = plant.enqueue(Sleep(seconds=60))
    plant.until_begun(job_id)
    worker.term()
    wait_until(lambda: plant.workers("draining"), what="the drain")
    pass_time(0.4)
    worker.term()
    assert worker.wait(6) == 0
    row = plant.row(job_id)
    assert (row.state, row.tries, row.crashes) == ("queued", 0, 0)
    assert [attempt.outcome for attempt in plant.ledger.attempts(job_id)] == ["handed_back"]
    plant.until_nobody_lives()


@on_sqlite
def test_what_is_left_when_the_grace_is_over_is_handed_back(plant: Plant) -> None:
    """Also what computes in a sandbox, and what will not listen."""
    plant.env["MILLRACE_GRACE_S"] = "0.5"
    worker = plant.worker()
    jobs = [plant.enqueue(Sleep(seconds=60)), plant.enqueue(Compute(seconds=60))]
    for job_id in jobs:
        plant.until_begun(job_id)
    worker.term()
    assert worker.wait(12) == 0
    assert {(plant.row(job).state, plant.row(job).tries, plant.row(job).crashes) for job in jobs} == {("queued", 0, 0)}
    plant.until_nobody_lives()


@on_sqlite
def test_ten_sigterms_to_the_group_leave_nobody(plant: Plant) -> None:
    worker = plant.worker()
    jobs = [plant.enqueue(Sleep(seconds=60)), plant.enqueue(Compute(seconds=60))]
    for job_id in jobs:
        plant.until_begun(job_id)
    assert len(plant.living()) > 1
    for _ in range(10):
        worker.signal_group(signal.SIGTERM)
        pass_time(0.1)
    plant.until_nobody_lives(timeout_s=12)
    for job_id in jobs:
        assert plant.until(job_id, "queued").tries == 0


def _children(plant: Plant, master: int) -> list[int]:
    """Dramatiq forks: its worker process has its command line."""
    return [pid for pid, name in plant.living().items() if pid != master and "dramatiq" in name]


@on_sqlite
def test_a_worker_asked_to_end_while_it_boots_ends_before_it_has_booted(plant: Plant) -> None:
    """Dramatiq's own handler, which stands until ours does, would boot to the end first."""
    for delay_s in (0.0, 0.05, 0.15, 0.4):
        worker = plant.stack.add_worker(wait=False)
        children = wait_until(lambda worker=worker: _children(plant, worker.pid), what="it")  # type: ignore[misc]
        pass_time(delay_s)
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        assert worker.wait(60) >= 0
        plant.until_nobody_lives()
        assert "thread_died" not in worker.tail()
        assert "worker_started" not in worker.tail()


def test_a_killed_master_leaves_no_live_worker(plant: Plant) -> None:
    worker = plant.worker()
    job_id = plant.enqueue(Sleep(seconds=60))
    plant.until_begun(job_id)
    plant.env["MILLRACE_GRACE_S"] = "1"
    os.kill(worker.pid, signal.SIGKILL)
    plant.until_nobody_lives(timeout_s=15)
    row = plant.until(job_id, "queued")
    assert row.tries == 0
    assert plant.workers() == []


def test_a_killed_worker_is_found_out_and_its_job_counted_as_a_crash(plant: Plant) -> None:
    worker = plant.worker()
    job_id = plant.enqueue(Sleep(seconds=60))
    plant.until_begun(job_id)
    worker.kill()
    row = plant.until(job_id, "queued", timeout_s=5)
    assert (row.tries, row.crashes) == (0, 1)
    plant.until_nobody_lives()


@on_sqlite
def test_a_loop_that_stands_still_ends_the_process(plant: Plant) -> None:
    plant.env["MILLRACE_LOOP_STALL_S"] = "1"
    worker = plant.worker()
    job_id = plant.enqueue(Block(seconds=60))
    assert worker.wait(15) != 0
    plant.until_nobody_lives()
    assert "loop_stalled" in worker.tail(200)
    row = plant.until(job_id, "retrying", "queued")
    assert (row.tries, row.crashes, row.error_code) == (1, 0, "loop_blocked")


@on_sqlite
@pytest.mark.parametrize("kind", [BlockOnce, BlockInChildTask])
def test_a_job_that_blocks_the_loop_is_named_with_its_line_and_counted_alone(
    plant: Plant, kind: type[BlockOnce]
) -> None:
    plant.env["MILLRACE_LOOP_STALL_S"] = "4"
    worker = plant.worker()
    neighbours = [plant.enqueue(Sleep(seconds=60)), plant.enqueue(Compute(seconds=60))]
    for other in neighbours:
        plant.until_begun(other)
    job_id = plant.enqueue(kind(seconds=60))

    def explained() -> dict[str, Any]:
        return database().read(explain, "default", job_id, Services())

    wait_until(lambda: explained()["reason"] == "blocks_loop", what="explain to name the line")
    assert "kinds.py, line " in explained()["message"]
    assert "time.sleep(job.seconds)" in explained()["facts"]["line"]
    assert "to_thread" in explained()["fix"]
    assert worker.wait(20) != 0
    row = plant.until(job_id, "failed", relay=False)
    assert (row.tries, row.crashes, row.error_code) == (1, 0, "loop_blocked")
    (attempt,) = plant.ledger.attempts(job_id)
    assert attempt.error_type == "LoopBlocked"
    assert "time.sleep(job.seconds)" in (attempt.error_message or "")
    assert "kinds.py" in (attempt.traceback or "")
    for other in neighbours:
        row = plant.until(other, "queued")
        assert (row.tries, row.crashes) == (0, 0)
    log = worker.tail(400)
    assert "loop_blocked" in log
    assert job_id in log
    plant.until_nobody_lives()


@on_sqlite
def test_a_stall_does_not_use_up_the_time_of_the_neighbours(plant: Plant) -> None:
    """The loop is kept from it longer than it may run, and it is stopped in its own time."""
    plant.worker()
    slow, blocking = plant.enqueue(Slow()), plant.enqueue(Block(seconds=7))
    assert plant.until(blocking, "succeeded", timeout_s=30).tries == 0
    row = plant.until(slow, "retrying", "failed")
    assert (row.error_type, row.crashes) == ("TimeLimitExceeded", 0)
    assert "did not stop" not in (row.error_message or "")


@on_sqlite
def test_each_job_has_a_thread_of_the_executor(plant: Plant) -> None:
    """Eight calls on eight slots run at once, whatever the number of cores."""
    plant.env["MILLRACE_WORKER_THREADS"] = "8"
    ids = [plant.enqueue(CallInThread(seconds=3)) for _ in range(8)]
    plant.worker()
    rows = [plant.until(job_id, "succeeded") for job_id in ids]
    starts, ends = [row.started_at for row in rows], [row.finished_at for row in rows]
    assert max(start for start in starts if start) < min(end for end in ends if end)


@on_sqlite
def test_a_later_job_does_not_meet_the_alarm_of_an_earlier_one(plant: Plant) -> None:
    plant.env["MILLRACE_SANDBOXES"] = "1"
    plant.worker()
    first = plant.until(plant.enqueue(Alarm()), "succeeded")
    second = plant.until(plant.enqueue(Compute(seconds=2)), "succeeded", "retrying", "failed")
    assert second.state == "succeeded"
    assert first.result != second.result


@on_sqlite
def test_a_coroutine_that_ignores_its_limits_ends_its_process_and_is_retried_counted(plant: Plant) -> None:
    """Its neighbour finishes first."""
    plant.env |= {"MILLRACE_GRACE_S": "10"}
    worker = plant.worker()
    neighbour, stubborn = plant.enqueue(Sleep(seconds=3)), plant.enqueue(Stubborn())
    plant.until_begun(neighbour)
    row = plant.until(stubborn, "retrying", "queued", relay=False)
    assert (row.tries, row.crashes, row.error_type) == (1, 0, "TimeLimitExceeded")
    assert "did not stop" in (row.error_message or "")
    assert worker.wait(20) == 70
    assert plant.row(neighbour).state == "succeeded"
    plant.until_nobody_lives()


def test_a_worker_frozen_past_its_death_writes_nothing_and_begins_anew(plant: Plant) -> None:
    plant.env |= {"MILLRACE_WORKER_DEAD_S": "2", "MILLRACE_BEAT_S": "0.3"}
    plant.relay_patience(2)
    frozen = plant.worker()
    old = plant.workers()[0]
    output = plant.folder / "said"
    job_id = plant.enqueue(Held(path=str(output), seconds=20))
    plant.until_begun(job_id)
    wait_until(output.exists, what="the job to write")
    frozen.freeze()
    row = plant.until(job_id, "queued", timeout_s=10)
    assert (row.fence, row.crashes) == (1, 1)
    other = plant.worker()
    plant.tick()
    wait_until(lambda: "2" in output.read_text().split(), what="the job to write elsewhere")
    written = output.read_text().split().count("1")
    frozen.wake()
    wait_until(lambda: len(plant.workers()) == 2, what="the woken worker to register anew")
    assert old not in plant.workers()
    assert plant.until(job_id, "succeeded", timeout_s=30).fence == 2
    assert output.read_text().split().count("1") == written
    assert [attempt.outcome for attempt in plant.ledger.attempts(job_id)] == ["died", "succeeded"]
    assert other.stop() == 0
    assert plant.until(plant.enqueue(Noop()), "succeeded").fence == 1
    assert frozen.alive


@on_postgres
def test_a_job_that_kills_its_worker_again_and_again_is_poison(plant: Plant) -> None:
    """Counted from the second time at the latest, the last time alone; others come through."""
    count = plant.folder / "deaths"
    job_id = plant.enqueue(Kill(path=str(count)))
    good = [plant.enqueue(Noop(number=number)) for number in range(5)]
    worker = plant.worker()

    def all_ended() -> bool:
        plant.tick()
        if not worker.alive:
            worker.start()
        return {plant.row(each_id).state for each_id in (job_id, *good)} <= {"failed", "succeeded"}

    wait_until(all_ended, timeout_s=60, what="the poison to be found", poll_s=0.1)
    row = plant.row(job_id)
    assert (row.state, row.error_code, row.crashes) == ("failed", "poison", 3)
    assert 3 <= len(count.read_text()) <= 4
    assert {attempt.outcome for attempt in plant.ledger.attempts(job_id)} == {"died"}
    assert {plant.row(one).state for one in good} == {"succeeded"}


def test_a_cancel_reaches_what_awaits_what_computes_and_what_has_not_started(plant: Plant) -> None:
    plant.env["MILLRACE_WORKER_THREADS"] = "2"
    plant.worker()
    jobs = [plant.enqueue(Sleep(seconds=60)), plant.enqueue(Compute(seconds=60)), plant.enqueue(Noop())]
    for job_id in jobs[:2]:
        plant.until_begun(job_id)
    for job_id in jobs[::-1]:
        database().transaction(commands.cancel, "default", job_id)
        row = plant.until(job_id, "cancelled", timeout_s=2.5, relay=False)
        assert (row.tries, row.crashes, row.result) == (0, 0, None)
    assert plant.row(jobs[2]).fence == 0
    assert plant.until(plant.enqueue(Noop()), "succeeded").fence == 1


@on_sqlite
def test_a_cancel_reaches_a_worker_that_hears_nothing_from_redis(plant: Plant) -> None:
    """Its beat reads the ledger."""
    plant.worker()
    job_id = plant.enqueue(Sleep(seconds=60))
    plant.until_begun(job_id)
    database().transaction(commands.cancel, "default", job_id)
    assert plant.until(job_id, "cancelled", timeout_s=4).tries == 0


@on_sqlite
def test_a_worker_tells_of_its_health_and_counts(plant: Plant) -> None:
    worker = plant.worker()
    plant.until(plant.enqueue(Noop()), "succeeded")
    plant.until(plant.enqueue(Slow()), "failed", timeout_s=60)
    with client(base_url=f"http://127.0.0.1:{plant.stack.health_port(worker)}") as http:
        health = http.get("/health").json()
        assert (health["status"], health["role"], health["worker_id"]) == ("healthy", "worker", plant.workers()[0])
        assert health["threads"] > 3
        assert health["loop_lag_s"] < 5
        assert http.get("/readyz").status_code == 200
        assert 'millrace_jobs_ended_total{kind="tests.noop",outcome="succeeded"} 1.0' in http.get("/metrics").text
        limits = 'millrace_jobs_timed_out_total{kind="tests.slow"} 4.0'
        wait_until(lambda: limits in http.get("/metrics").text, what="its tries to be counted")


@on_sqlite
def test_a_worker_serves_the_queues_it_was_told_to(plant: Plant) -> None:
    plant.worker("-Q", "bulk")
    names = database().read(lambda session: session.scalars(sa.select(WorkerRow.queues)).all())
    assert names == [["bulk"]]
    other = plant.enqueue(Noop())
    plant.worker("-Q", "default")
    assert plant.until(other, "succeeded").fence == 1


@on_sqlite
def test_a_starting_worker_has_documents_of_another_analyzer_analysed_again(plant: Plant) -> None:
    """After an update of the program nobody has to ask for it."""
    old = Chunk(
        tenant="default", document_id=1, version_id=1, generation="g", ordinal=0, text="the mill", span_start=0,
        span_end=8, headings=[], text_hash="0", terms=b"", analyzer=1,
    )  # fmt: skip
    database().transaction(lambda session: session.add(old))
    assert database().read(has_outdated)
    plant.worker()
    wait_until(lambda: not database().read(has_outdated), timeout_s=60, what="the words of the chunk")
    assert database().read(lambda session: session.scalar(sa.select(Chunk.document_terms)))
