"""Two schedulers that run during the chaos: both fire the same minutes, each a fraction of a second here."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import database
from app.core.errors import ConfigError, Conflict, Unavailable
from app.jobs.models import ScheduleTickRow
from app.jobs.schedules import firing, store
from app.jobs.schedules.store import Plan
from tests.support.chaos_kinds import Quick

MINUTE = timedelta(minutes=1)
SECONDS_A_MINUTE = 0.5
# Far fewer than a schedule lets wait.
MAX_WAITING_JOBS = 20
NAME = "every minute"


class Clockwork:
    """Two threads that tick; `pause()` waits until both stand, `resume()` lets them go on."""

    def __init__(self, tenant: str) -> None:
        self.minutes = 0
        self._tenant = tenant
        self._running = threading.Event()
        self._running.set()
        self._stopping = threading.Event()
        self._busy = threading.Lock(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(lock,), daemon=True) for lock in self._busy]

    def start(self) -> None:
        plan = Plan(Quick.kind, every_s=60, catch_up="all", catch_up_limit=100, overlap="queue")
        try:
            row = database().transaction(store.create, self._tenant, NAME, plan)
        except Conflict as error:  # a run goes on in a database that is there already
            raise RuntimeError("the schedule of the chaos run exists") from error
        self.began: datetime = row.anchor_at
        for thread in self._threads:
            thread.start()

    def pause(self) -> None:
        self._running.clear()
        for lock in self._busy:
            with lock:
                pass

    def resume(self) -> None:
        self._running.set()

    def stop(self) -> None:
        self._stopping.set()
        self._running.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(20)

    def start_waiting(self) -> int:
        """Start one of the ticks that wait for the job before; whether there was one."""
        return database().transaction(firing.start_waiting)

    def _run(self, lock: threading.Lock) -> None:
        mine = 0
        while not self._stopping.wait(SECONDS_A_MINUTE):
            self._running.wait()
            with lock:
                if not self._running.is_set():
                    continue
                try:
                    if database().read(_waiting) > MAX_WAITING_JOBS:
                        continue  # else ticks are skipped, as they should
                    database().transaction(firing.fire, self.began + (mine + 1) * MINUTE)
                    database().transaction(firing.start_waiting)
                except (Unavailable, ConfigError):
                    continue
                mine += 1
                self.minutes = max(self.minutes, mine)

    def faults(self) -> Iterable[str]:
        """A sentence for each minute without its tick, and for each tick that started nothing."""
        ticks = database().read(_ticks)
        for minute in range(1, self.minutes + 1):
            outcome = ticks.get(self.began + minute * MINUTE)
            if outcome != "started":
                yield f"minute {minute} of the schedule is {outcome or 'not there'} at {clock.now()}"


def _waiting(session: Session) -> int:
    waits = sa.select(sa.func.count()).where(ScheduleTickRow.outcome == "waiting")
    return session.scalar(waits) or 0


def _ticks(session: Session) -> dict[datetime, str]:
    return {row.tick_at: row.outcome for row in session.scalars(sa.select(ScheduleTickRow))}
