"""Rows 1 to 3: pick-up, drain and enqueue, with the whole ledger, compared with stock Dramatiq without one.

python -m tests.bench.throughput [sqlite | postgresql]
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from datetime import datetime
from statistics import median
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import after_commit, database
from app.core.ids import uuid7
from app.jobs.ledger.enqueue import enqueue, enqueue_many
from app.jobs.models import JobRow
from tests.bench import stock
from tests.bench.rig import DATABASES, Rig, rig
from tests.bench.table import Row, markdown, quantile
from tests.support.kinds import Noop, Touch
from tests.support.waiting import wait_until

DRAINED = 16_000
PICK_UPS = 40
# Minimal share of stock's rate: one job a call, a thousand a call.
ENQUEUE_TARGETS = {"sqlite": (0.45, 12), "postgresql": (0.22, 7)}
# Workers that have just started also warm their sandboxes, which is no part of a drain.
WARM_S = 5


def pick_up(here: Rig) -> tuple[list[float], list[float]]:
    """Milliseconds from the row's commit (stock: from send()) to the actor's first line, idle workers."""
    here.stack.start(workers=1, relay=True, api=False)
    time.sleep(WARM_S)
    ours = _touches(here, lambda path: database().transaction(_write_touch, path)[0])
    here.stack.end()
    here.redis.flush()
    process = here.stock_workers(1, 8)
    time.sleep(3)
    theirs = _touches(here, _send_touch)
    process.term()
    process.stop(timeout_s=30)  # else it takes of what comes next, and strands it
    return ours[5:], theirs[5:]


def _write_touch(session: Session, path: str) -> list[float]:
    """The moment of the commit, once it is made."""
    written: list[float] = []
    after_commit(session, "written", lambda: lambda: written.append(time.time()))
    enqueue(session, Touch(path=path), tenant="bench")
    return written


def _send_touch(path: str) -> float:
    began = time.time()
    stock.touch.send(path)
    return began


def _touches(here: Rig, send: Callable[[str], float]) -> list[float]:
    """`send` gives the moment from which the time counts."""
    delays_ms = []
    for number in range(PICK_UPS):
        time.sleep(random.uniform(0.3, 0.9))
        path = here.folder / f"touch-{number}"
        path.unlink(missing_ok=True)
        began = send(str(path))
        wait_until(lambda path=path: path.exists() and path.read_text(), timeout_s=10, what="the touch")  # type: ignore[misc]
        delays_ms.append((float(path.read_text()) - began) * 1000)
        path.unlink()
    return delays_ms


def _rate(times: list[float]) -> float:
    """Jobs a second between 10 % and 90 % of the drain."""
    times.sort()
    low, high = int(len(times) * 0.1), int(len(times) * 0.9)
    return (high - low) / (times[high] - times[low])


def drain(here: Rig, *, processes: int = 2, threads: int = 8) -> float:
    """Our jobs a second: async no-ops, each with its claim, end and attempt written."""
    here.stack.env["MILLRACE_WORKER_THREADS"] = str(threads)
    here.stack.start(workers=processes, relay=True, api=False)
    time.sleep(WARM_S)
    database().transaction(enqueue_many, [Noop(number=n) for n in range(DRAINED)], tenant="bench")

    def open_jobs(session: Any) -> int:
        return int(session.scalar(sa.select(sa.func.count()).where(JobRow.state != "succeeded")))

    wait_until(lambda: database().read(open_jobs) == 0, timeout_s=120, what="the drain", poll_s=0.3)
    here.stack.end()

    def finished(session: Any) -> list[datetime]:
        return list(session.scalars(sa.select(JobRow.finished_at)))

    return _rate([moment.timestamp() for moment in database().read(finished)])


def drain_stock(here: Rig, actor: str) -> float:
    """Stock's jobs a second, seen from how many bodies Redis still holds."""
    client = here.redis.client()
    client.flushall()
    messages = [getattr(stock, actor).message(n) for n in range(DRAINED)]
    for message in messages:
        stock.broker.enqueue(message)
    process = here.stock_workers(2, 8)
    seen: list[tuple[float, int]] = []
    while not seen or seen[-1][1]:
        seen.append((time.time(), int(client.hlen("dramatiq:default.msgs"))))
        time.sleep(0.01)
    process.term()
    process.stop(timeout_s=30)  # else it takes of what comes next, and strands it
    first = next(at for at, left in seen if left <= DRAINED * 0.9)
    last = next(at for at, left in seen if left <= DRAINED * 0.1)
    return DRAINED * 0.8 / (last - first)


def enqueue_rates(here: Rig) -> tuple[float, float, float, float]:
    """Jobs a second: one call and commit each; a thousand a call; stock's send(); a bare driver's insert and commit."""

    def timed(count: int, step: Any) -> float:
        began = time.perf_counter()
        step()
        return count / (time.perf_counter() - began)

    def single() -> None:
        for number in range(1000):
            database().transaction(enqueue, Noop(number=number), tenant="bench")

    def batches() -> None:
        for _ in range(5):
            database().transaction(enqueue_many, [Noop(number=n) for n in range(1000)], tenant="bench")

    def send() -> None:
        for number in range(1000):
            stock.noop_thread.send(number)

    connection = database().engine.raw_connection()
    mark = "?" if database().dialect == "sqlite" else "%s"
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE bare (id varchar(36) PRIMARY KEY, payload text)")
    connection.commit()

    def bare() -> None:
        for _ in range(300):
            if database().dialect == "sqlite":
                cursor.execute("BEGIN IMMEDIATE")
            cursor.execute(f"INSERT INTO bare VALUES ({mark}, '{{}}')", (uuid7(),))
            connection.commit()

    single()
    send()
    steps = ((1000, single), (5000, batches), (1000, send), (300, bare))
    rounds = [[timed(count, step) for count, step in steps] for _ in range(3)]
    connection.close()
    single_rate, batch_rate, stock_rate, bare_rate = (median(column) for column in zip(*rounds, strict=True))
    return single_rate, batch_rate, stock_rate, bare_rate


def rows(kinds: tuple[str, ...] = DATABASES) -> list[Row]:
    results = []
    for kind in kinds:
        with rig(kind) as here:
            ours, theirs = pick_up(here)
        p50, p99 = quantile(ours, 0.5), quantile(ours, 0.99)
        peer = f"stock {quantile(theirs, 0.5):.0f} / {quantile(theirs, 0.99):.0f} ms"
        met = p50 <= 3 and p99 <= 10
        results.append(Row("1", f"pick-up p50 / p99, {kind}", f"{p50:.1f} / {p99:.1f} ms", peer, "≤ 3 / ≤ 10 ms", met))
    for kind in kinds:
        with rig(kind) as here:
            mine = drain(here)
            threads, asyncio = drain_stock(here, "noop_thread"), drain_stock(here, "noop_async")
        peer = f"stock threads {threads:,.0f}/s, AsyncIO {asyncio:,.0f}/s"
        ratio = f"{mine:,.0f}/s = {mine / asyncio:.2f} x AsyncIO, {mine / threads:.2f} x threads"
        met = mine >= 2 * asyncio and mine >= 1.5 * threads
        results.append(Row("2", f"no-op drain, {kind}", ratio, peer, "≥ 2.0 x, ≥ 1.5 x", met))
    for kind in kinds:
        single_target, batch_target = ENQUEUE_TARGETS[kind]
        with rig(kind) as here:
            single, batch, send, bare = enqueue_rates(here)
        ratio = f"{single:,.0f}/s = {single / send:.2f} x; {batch:,.0f}/s = {batch / send:.1f} x"
        met = single >= single_target * send and batch >= batch_target * send
        results.append(
            Row(
                "3",
                f"enqueue one / 1,000 a call, {kind}",
                ratio,
                f"stock {send:,.0f}/s; bare insert + commit {bare:,.0f}/s",
                f"≥ {single_target} x / ≥ {batch_target} x",
                met,
            )
        )
    return results


if __name__ == "__main__":
    print(markdown(rows(tuple(sys.argv[1:]) or DATABASES)))
