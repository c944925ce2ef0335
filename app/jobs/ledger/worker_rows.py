"""Who runs jobs: a row a worker process, alive while its beat rises."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app import __version__
from app.core import clock, sql
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Moved
from app.jobs.models import JobRow, WorkerRow

ALIVE = ("running", "paused", "draining")


@lru_cache(maxsize=1)
def this_host() -> str:
    """`name|boot id|pid namespace`: where a pid means the same process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        boot = namespace = "0"
    return f"{platform.node()}|{boot}|{namespace}"


def birth(pid: int) -> int:
    """When the process began, in ticks since boot: tells a pid from its next bearer. 0 where nobody can say or the
    process is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def is_gone(host: str, pid: int, pid_birth: int) -> bool:
    """Whether the process is surely dead; False for what another host or pid namespace holds."""
    if host != this_host():
        return False
    if pid_birth:
        return birth(pid) != pid_birth
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as the relay watches it."""

    id: str
    host: str
    pid: int
    pid_birth: int
    beat: int
    queues: list[str]
    threads: int


def register(
    session: Session,
    worker_id: str,
    queues: list[str],
    threads: int,
    health_url: str | None,
    *,
    paused: bool = False,
) -> None:
    session.add(
        WorkerRow(
            id=worker_id,
            host=this_host(),
            pid=os.getpid(),
            pid_birth=birth(os.getpid()),
            queues=queues,
            threads=threads,
            health_url=health_url,
            state="paused" if paused else "running",
            version=__version__,
            started_at=clock.now(),
            beat_at=clock.now(),
        )
    )


def beat(session: Session, worker_id: str) -> bool:
    """Count the beat up; False when this worker was declared dead."""
    alive = sa.update(WorkerRow).where(WorkerRow.id == worker_id, WorkerRow.state.in_(ALIVE))
    return sql.row_count(session, alive.values(beat=WorkerRow.beat + 1, beat_at=clock.now())) == 1


def set_state(session: Session, worker_id: str, state: str) -> None:
    session.execute(
        sa.update(WorkerRow).where(WorkerRow.id == worker_id, WorkerRow.state.in_(ALIVE)).values(state=state)
    )


def alive(session: Session) -> list[Worker]:
    """All that have not stopped or died, as far as anybody knows."""
    rows = session.scalars(sa.select(WorkerRow).where(WorkerRow.state.in_(ALIVE)))
    return [Worker(w.id, w.host, w.pid, w.pid_birth, w.beat, w.queues, w.threads) for w in rows]


def gone(session: Session, limit: int) -> list[str]:
    """Ids of workers that stopped or died, those that began last first."""
    ended = sa.select(WorkerRow.id).where(WorkerRow.state.not_in(ALIVE))
    return list(session.scalars(ended.order_by(WorkerRow.id.desc()).limit(limit)))


def bury(session: Session, worker_id: str, reason: str, *, seen_beat: int | None = None) -> list[Moved] | None:
    """Declare a worker dead and free the first batch of its jobs; None if it has beaten since `seen_beat`.

    Called again until it frees none. Guarded by the beat, so any number of relays may try.
    """
    dead = sa.update(WorkerRow).where(WorkerRow.id == worker_id)
    if seen_beat is not None:
        dead = dead.where(WorkerRow.beat == seen_beat)
    if sql.row_count(session, dead.values(state="dead")) != 1:
        return None
    return claims.free(session, worker_id, reason)


def strays(session: Session) -> list[str]:
    """Ids of dead or unknown workers that still have running jobs: a claim that crossed its worker's death."""
    living = sa.select(WorkerRow.id).where(WorkerRow.state.in_(ALIVE))
    running = sa.select(JobRow.worker_id).where(JobRow.state == "running", JobRow.worker_id.not_in(living)).distinct()
    return [worker_id for worker_id in session.scalars(running) if worker_id]


def orders_for(session: Session, worker_id: str) -> tuple[str | None, list[str]]:
    """What a worker is to do: the state it was put into, and the ids of its running jobs that were asked to stop."""
    state = session.scalar(sa.select(WorkerRow.state).where(WorkerRow.id == worker_id))
    asked = sa.select(JobRow.id).where(
        JobRow.state == "running", JobRow.worker_id == worker_id, JobRow.cancel_requested_at.is_not(None)
    )
    return state, list(session.scalars(asked))


def prune(session: Session, before: datetime) -> None:
    """Forget workers that stopped or died and had begun before then; attempts keep their ids."""
    session.execute(sa.delete(WorkerRow).where(WorkerRow.started_at < before, WorkerRow.state.not_in(ALIVE)))
