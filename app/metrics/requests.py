"""Durations of requests: collected in memory, written in batches by a background task.

While SQL is down the newest are held; those that do not fit are dropped and counted. No request waits or fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core import clock, metrics
from app.core.db import in_transaction
from app.core.errors import AppError
from app.core.logging import get_logger
from app.core.sql import storable
from app.metrics.models import RequestMetric

MAX_HELD = 10_000
# Requests of unknown callers that a process records: so many at once, and then so many a minute.
STRANGERS_AT_ONCE = 30
STRANGERS_PER_MINUTE = 10
BATCH = 500
WRITE_INTERVAL_S = 1.0

_INSERT = sa.insert(cast(sa.Table, RequestMetric.__table__))

log = get_logger(__name__)


class RequestTiming(NamedTuple):
    """One finished request; the fields are the columns of its row."""

    at: datetime
    tenant: str | None
    method: str
    path: str
    route: str
    status_code: int
    duration_ms: float
    request_id: str
    client_ip: str | None


class StrangerSample:
    """Decides which requests of unknown callers are recorded: their rows must not grow with their requests."""

    def __init__(self) -> None:
        self._left = float(STRANGERS_AT_ONCE)
        self._counted_at = clock.monotonic()

    def take(self) -> bool:
        """Return True if one more request may be recorded."""
        now = clock.monotonic()
        earned = (now - self._counted_at) * STRANGERS_PER_MINUTE / 60
        self._left, self._counted_at = min(self._left + earned, STRANGERS_AT_ONCE), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class RequestRecorder:
    """Collects request durations of one API process; runs on its event loop from `start()` to `close()`."""

    def __init__(self, *, max_held: int = MAX_HELD, interval_s: float = WRITE_INTERVAL_S) -> None:
        self._held: deque[RequestTiming] = deque(maxlen=max_held)
        self._interval_s = interval_s
        self._stopping = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._has_sql = True
        self.dropped = 0

    def __len__(self) -> int:
        """Return the number of requests not written yet."""
        return len(self._held)

    def add(self, timing: RequestTiming) -> None:
        """Hold one request for the next batch; drops the oldest if full. Never waits and never raises."""
        if len(self._held) == self._held.maxlen:
            self.dropped += 1
            metrics.REQUEST_METRICS_DROPPED.inc()
        self._held.append(timing)

    def start(self) -> None:
        self._writing = asyncio.create_task(self._run(), name="request-metrics")

    async def close(self) -> None:
        """Stop the task after one attempt to write the requests that are held."""
        self._stopping.set()
        if self._writing is not None:
            await self._writing

    async def _run(self) -> None:
        is_last = False
        while not is_last:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._interval_s)
            is_last = self._stopping.is_set()
            await self._write_all()

    async def _write_all(self) -> None:
        """Write batches until nothing is left or SQL is down."""
        while self._held:
            batch, dropped = list(islice(self._held, BATCH)), self.dropped
            try:
                await in_transaction(write, batch)
            except AppError as error:
                if self._has_sql:
                    log.warning("request_metrics_wait_for_sql", held=len(self._held), reason=error.message)
                self._has_sql = False
                return
            except SQLAlchemyError:
                log.exception("request_metrics_refused", requests=len(batch))
            self._has_sql = True
            # Requests dropped during the write were the oldest, so they were at the head of this batch.
            for _ in range(len(batch) - (self.dropped - dropped)):
                self._held.popleft()


def write(session: Session, timings: Sequence[RequestTiming]) -> None:
    session.execute(_INSERT, [_row(timing) for timing in timings])


def _row(timing: RequestTiming) -> dict[str, object]:
    """Return the values of the row, cut to the columns' lengths: a caller may send any length."""
    row = storable(timing._asdict())
    row |= {"method": row["method"][:16], "path": row["path"][:500], "route": row["route"][:200]}
    row["client_ip"] = row["client_ip"][:64] if row["client_ip"] else None
    return dict(row)
