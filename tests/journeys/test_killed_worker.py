"""A worker killed at any step of the main job costs time and nothing else."""

from __future__ import annotations

import os
import random
import signal

import pytest
import sqlalchemy as sa

from app.core.db import database
from app.search.models import Chunk, IndexChange
from tests.journeys.conftest import Ledger
from tests.support.kinds import Sleep
from tests.support.stack import Stack
from tests.support.waiting import wait_until
from tests.unit.api.streams.following import follow

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

WORDS = ("sluice", "wheel", "pond", "race", "stone", "flour", "miller", "grain", "weir", "gear", "bolt", "hopper")
PARAGRAPHS = 1500
# Between the transactions the steps are the same on both; a restart after each takes its time.
STEPS = {"sqlite": ("extract", "chunk", "embed", "index"), "postgresql": ("extract", "index")}


def _page(name: str) -> str:
    """Long enough that every stage takes a while; one word is its own."""
    rng = random.Random(name)
    parts = [f"<p>{n} {' '.join(rng.choices(WORDS, k=60))}.</p>" for n in range(PARAGRAPHS)]
    return f"<html><body><main><h1>Killed at {name}</h1><p>It says zz{name}.</p>{''.join(parts)}</main></body></html>"


def _kill_at(stack: Stack, job_id: str, stage: str) -> bool:
    """kill -9 of the process that runs the job, the moment that its progress says the stage; False if it was past it
    before anybody followed."""
    with follow(stack.client, job_id) as events:
        for event in events:
            if event.data["stage"] == stage:
                pid = stack.job(job_id)["attempts"][-1]["worker"]["pid"]
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def _killed_at(stack: Stack, stage: str) -> tuple[str, str]:
    """A page whose worker was killed at the stage: its name and its job."""
    for number in range(5):
        name = f"{stage}{number}"
        job_id = stack.post("/api/documents", {"url": f"https://m.example/{name}", "html": _page(name)}).json()["id"]
        if _kill_at(stack, job_id, stage):
            return name, job_id
    raise AssertionError(f"the stage {stage} was never told")


def _counts(document_id: int) -> tuple[int, int, int]:
    """Chunks of the document, different ones among them, and how often it was put into the index."""
    chunks = sa.select(sa.func.count(), sa.func.count(sa.distinct(Chunk.ordinal))).where(
        Chunk.document_id == document_id
    )
    changes = sa.select(sa.func.count()).where(IndexChange.document_id == document_id)
    return database().read(lambda session: (*session.execute(chunks).one(), session.scalar(changes) or 0))


def test_a_worker_killed_at_every_step(stack: Stack, ledger: Ledger) -> None:
    """The other worker takes over, and the document is in the index exactly once."""
    stack.start(workers=2)
    for stage in STEPS[database().dialect]:
        name, job_id = _killed_at(stack, stage)
        wait_until(lambda: not all(w.alive for w in stack.workers), what="the killed child's master to end")
        next(w for w in stack.workers if not w.alive).start()
        row = ledger.wait(job_id, timeout_s=40)
        assert (row.state, ledger.outcomes(job_id)) == ("succeeded", ["died", "succeeded"]), stage
        assert row.tries == 0
        assert row.document_id is not None
        chunks, different, changes = _counts(row.document_id)
        assert chunks == different > 50, stage
        assert changes == 1, stage
        response = stack.post("/api/search", {"query": f"zz{name}", "mode": "keyword"}).json()
        assert (response["total"], response["results"][0]["title"]) == (1, f"Killed at {name}")
        stack.wait_ready()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # a matter of processes
def test_the_master_alone_killed(stack: Stack, ledger: Ledger) -> None:
    """Dramatiq's master dies; its child finishes what it has, takes nothing more and is gone."""
    stack.start(workers=1, api=False)
    job_id = ledger.enqueue(Sleep(seconds=2))
    ledger.wait(job_id, "running")
    worker = stack.workers[0]
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not stack.listening(worker), timeout_s=20, what="the child's health port to close")
    later = ledger.enqueue(Sleep(seconds=0.1))
    assert ledger.wait(job_id).state == "succeeded"
    assert ledger.outcomes(job_id) == ["succeeded"]
    assert ledger.state(later) == "queued"
    worker.start()
    assert ledger.wait(later).state == "succeeded"
