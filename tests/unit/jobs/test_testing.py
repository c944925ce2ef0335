"""Helpers for users' tests: a separate ledger, one job run inline, and `drain` for all waiting jobs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from actors.runtime import job_actor
from app.core import clock
from app.core.db import database, in_transaction
from app.core.errors import InvalidInput, Unavailable
from app.core.settings import get_settings
from app.jobs import functions, testing
from app.jobs.children import children
from app.jobs.children.children import ALL, WaitForChildren
from app.jobs.definition import Debounce, Job
from app.jobs.ledger.claims import hold
from app.jobs.ledger.enqueue import enqueue, enqueue_many
from app.jobs.models import AttemptRow, JobRow
from app.jobs.worker.progress import Progress


class Order(Job, kind="tests.testing.order"):
    """Starts a receipt for each of its items."""

    items: int = 2


class Receipt(Job, kind="tests.testing.receipt", retry_delays=(60, 60)):
    number: int
    fails: int = 0


class Sum(Job, kind="tests.testing.sum", stages={"add": 1}):
    """Computes."""

    numbers: list[int]


class Echo(Job, kind="tests.testing.echo", unique=Debounce(30, max_wait_s=90)):
    text: str = ""


class Again(Job, kind="tests.testing.again"):
    """Starts itself."""


class Unhandled(Job, kind="tests.testing.unhandled"):
    """Has no function."""


class Parent(Job, kind="tests.testing.parent"):
    """Adds up the sums of its children."""


tried: dict[int, int] = {}


@job_actor(Order)
async def order(job: Order, progress: Progress) -> dict[str, Any]:
    def bill(session: Session) -> int:
        hold(session, progress.claim)
        return len(enqueue_many(session, [Receipt(number=n) for n in range(job.items)], tenant=progress.claim.tenant))

    return {"started": await in_transaction(bill)}


@job_actor(Receipt)
async def receipt(job: Receipt, progress: Progress) -> None:
    tried[job.number] = tried.get(job.number, 0) + 1
    if tried[job.number] <= job.fails:
        raise Unavailable("no mail today")
    progress.report(1, 1, message="sent")


@job_actor(Sum)
def add(job: Sum, progress: Progress) -> dict[str, Any]:
    if not job.numbers:
        raise InvalidInput("nothing to add")
    progress.report(1, 1, stage="add")
    return {"sum": sum(job.numbers)}


@job_actor(Echo)
async def echo(job: Echo, progress: Progress) -> dict[str, Any]:
    return {"text": job.text}


@job_actor(Again)
async def again(job: Again, progress: Progress) -> None:
    await in_transaction(enqueue, Again(), tenant=progress.claim.tenant)


@job_actor(Parent)
async def parent(job: Parent, progress: Progress) -> dict[str, Any]:
    if not progress.claim.continues:
        await in_transaction(children.start, progress.claim, [Sum(numbers=[n]) for n in range(4)])
        raise WaitForChildren(ALL)
    return {"sum": sum([(child.result or {})["sum"] async for child in children.results(progress.claim)])}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    tried.clear()
    with testing.ledger():
        yield


def _start(*jobs: Job, **options: Any) -> list[str]:
    return [row.id for row in database().transaction(enqueue_many, jobs, tenant="default", **options)]


def _outcomes(job_id: str) -> list[str]:
    query = sa.select(AttemptRow.outcome).where(AttemptRow.job_id == job_id).order_by(AttemptRow.fence)
    return database().read(lambda session: list(session.scalars(query)))


def test_run_inline_returns_the_row_with_state_result_and_progress() -> None:
    row = testing.run_inline(Sum(numbers=[1, 2, 3]), tenant="acme", request_id="r-1")
    assert (row.state, row.result, row.tenant, row.request_id) == ("succeeded", {"sum": 6}, "acme", "r-1")
    assert row.progress is not None
    assert row.progress["percent"] == 100
    assert _outcomes(row.id) == ["succeeded"]


def test_run_inline_raises_the_error_and_stores_it_in_the_row() -> None:
    with pytest.raises(InvalidInput, match="nothing to add"):
        testing.run_inline(Sum(numbers=[]))
    row = database().read(lambda session: session.scalars(sa.select(JobRow)).one())
    assert (row.state, row.error_type, row.error_message) == ("failed", "InvalidInput", "nothing to add")


def test_drain_runs_waiting_jobs_and_the_jobs_they_start() -> None:
    (first,) = _start(Order(items=3))
    rows = testing.drain()
    assert [row.kind for row in rows] == [Order.kind, *[Receipt.kind] * 3]
    assert {row.state for row in rows} == {"succeeded"}
    assert (rows[0].id, rows[0].result) == (first, {"started": 3})
    assert testing.drain() == []


def test_drain_runs_children_and_then_their_parent() -> None:
    assert testing.run_inline(Parent()).state == "waiting"
    rows = testing.drain()
    assert [row.kind for row in rows] == [*[Sum.kind] * 4, Parent.kind]
    assert (rows[-1].state, rows[-1].result) == ("succeeded", {"sum": 6})


def test_drain_runs_higher_priorities_first() -> None:
    _start(Receipt(number=1))
    _start(Receipt(number=2), priority=5)
    assert [row.payload["number"] for row in testing.drain()] == [2, 1]


def test_drain_leaves_a_retry_until_due_unless_later_is_set() -> None:
    (job_id,) = _start(Receipt(number=1, fails=1))
    before = clock.now()
    assert [row.state for row in testing.drain()] == ["retrying"]
    assert [row.state for row in testing.drain()] == []
    assert [(row.id, row.state) for row in testing.drain(later=True)] == [(job_id, "succeeded")]
    assert _outcomes(job_id) == ["retrying", "succeeded"]
    assert clock.now() - before < timedelta(seconds=50), "the clock is restored"


def test_job_without_tries_left_fails() -> None:
    (job_id,) = _start(Receipt(number=1, fails=9))
    assert [row.state for row in testing.drain(later=True)] == ["retrying", "retrying", "failed"]
    assert _outcomes(job_id) == ["retrying", "retrying", "failed"]


def test_run_inline_ignores_the_due_time() -> None:
    row = testing.run_inline(Echo(text="soon"))
    assert (row.state, row.result) == ("succeeded", {"text": "soon"})
    row = testing.run_inline(Sum(numbers=[1]), due_at=clock.now() + timedelta(days=400))
    assert row.state == "succeeded"
    _start(Echo(text="a"))
    _start(Echo(text="b"))
    assert testing.drain() == []
    assert [row.result for row in testing.drain(later=True)] == [{"text": "b"}]


def test_drain_refuses_an_endless_chain_of_jobs() -> None:
    _start(Again())
    with pytest.raises(RuntimeError, match="more than 20 runs"):
        testing.drain(most=20)


def test_kind_without_a_function_names_the_missing_decorator() -> None:
    with pytest.raises(LookupError, match="@job_actor"):
        testing.run_inline(Unhandled())


@pytest.mark.anyio
async def test_helpers_work_inside_a_running_event_loop() -> None:
    assert testing.run_inline(Order(items=1)).result == {"started": 1}
    assert [row.kind for row in testing.drain()] == [Receipt.kind]


def test_each_ledger_is_empty_and_settings_are_restored() -> None:
    outer = get_settings().database_url
    _start(Sum(numbers=[1]))
    with testing.ledger():
        assert get_settings().database_url != outer
        assert testing.drain() == []
    assert get_settings().database_url == outer


def test_ledger_may_use_postgresql(postgres_url: str) -> None:
    with testing.ledger(postgres_url):
        assert database().dialect == "postgresql"
        assert testing.run_inline(Order(items=1)).state == "succeeded"
        assert [row.state for row in testing.drain()] == ["succeeded"]


def test_second_function_for_a_kind_is_refused() -> None:
    async def another(job: Sum, progress: Progress) -> None:
        """Uses a kind that has a function."""

    with pytest.raises(TypeError, match="two functions"):
        job_actor(Sum)(another)
    function = functions.function_of(Sum.kind)
    assert function is not None
    assert function.function is add
