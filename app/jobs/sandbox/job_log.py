"""Log lines of jobs, stored with the job: collected in the worker and written in bounded batches in the background.

A job that logs nothing costs nothing. Lines that cannot be stored are dropped and the drop is logged; no job waits.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core import clock, logging, sql
from app.core.db import database
from app.core.errors import AppError
from app.jobs.models import JobLogRow

LEVELS = ("debug", "info", "warning", "error", "critical")
# The next line of such a run says that there were more.
MAX_LINES_PER_RUN = 1000
MAX_TEXT_CHARS = 4000
MAX_FIELDS_BYTES = 16 * 1024
# While SQL is away; further lines are dropped.
MAX_HELD_LINES = 10_000
BATCH = 500
LINGER_S = 0.5
RETRY_S = 1.0
# Runs whose lines are counted at the same time; the run that has been silent longest is forgotten first.
MAX_COUNTED_RUNS = 4096
MORE = "more lines of this run are not kept"

_COLUMNS = {
    "number": "int",
    "key_id": "id",
    "fence": "int",
    "attempt": "int",
    "at": "time",
    "level": "text",
    "logger": "text",
    "event": "text",
    "fields": "json",
}

log = logging.get_logger(__name__)


class JobLog:
    """The job log of a worker process, with a thread that writes."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._counts: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="job-log", daemon=True)

    def start(self) -> None:
        """Record from now on every line that a job's code logs in this process or in its sandboxes."""
        global _current
        _current = self
        logging.send_lines(self.take)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Record no more lines, and write the waiting ones if that is possible in time."""
        global _current
        logging.send_lines(None)
        _current = None
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def take(self, line: Mapping[str, Any]) -> None:
        """Record a line of the run that is bound to this thread or task; never blocks for long."""
        bound = logging.bound()
        job_id, fence = str(bound["job_id"]), int(bound["fence"])
        with self._changed:
            count = self._counts[job_id, fence] = self._counts.pop((job_id, fence), 0) + 1
            if len(self._counts) > MAX_COUNTED_RUNS:
                self._counts.popitem(last=False)
            if count > MAX_LINES_PER_RUN + 1 or len(self._lines) >= MAX_HELD_LINES:
                return
            if count > MAX_LINES_PER_RUN:
                line = {**line, "level": "warning", "event": MORE, "fields": {}}
            row = _row(line)
            self._lines.append(row | {"key_id": job_id, "fence": fence, "attempt": int(bound["attempt"])})
            if len(self._lines) in (1, BATCH):
                self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._lines or self._stopping):
                    self._changed.wait()
                if not self._stopping and len(self._lines) < BATCH:
                    self._changed.wait(LINGER_S)
                if self._stopping and not self._lines:
                    return
                lines, self._lines = self._lines[:BATCH], self._lines[BATCH:]
            if not self._write(lines):
                if self._stopping:
                    return
                with self._changed:
                    self._lines[:0] = lines[: max(0, MAX_HELD_LINES - len(self._lines))]
                threading.Event().wait(RETRY_S)

    def _write(self, lines: list[dict[str, Any]]) -> bool:
        """Write the lines; return False while SQL is away."""
        try:
            database().transaction(write, lines)
        except AppError as error:
            log.warning("job_log_waits_for_sql", lines=len(lines), reason=error.message)
            return False
        except SQLAlchemyError:
            log.exception("job_log_lines_refused", lines=len(lines))
        return True


_current: JobLog | None = None


def record_sandbox_line(line: Any) -> None:
    """Record a line from a sandbox for the job that is bound here; malformed lines are ignored."""
    current = _current
    if current is not None and isinstance(line, dict) and "job_id" in logging.bound():
        current.take(line)


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that the line fills; frames of foreign code may lack any of them."""
    at, level = line.get("at"), line.get("level")
    return {
        "at": datetime.fromtimestamp(at, UTC) if isinstance(at, float) else clock.now(),
        "level": level if level in LEVELS else "info",
        "logger": str(line.get("logger", ""))[:100],
        "event": str(line.get("event", ""))[:MAX_TEXT_CHARS],
        "fields": _fields(line.get("fields")),
    }


def _fields(fields: Any) -> dict[str, Any]:
    """Return the fields as JSON values; of long texts the end is kept, where a traceback has most."""
    values: dict[str, Any] = {}
    size = 0
    for name, value in fields.items() if isinstance(fields, dict) else ():
        plain = value if value is None or isinstance(value, (bool, int, str)) else json.loads(_json(value))
        plain = plain[-MAX_TEXT_CHARS:] if isinstance(plain, str) else plain
        size += len(_json(plain)) + len(name)
        if size > MAX_FIELDS_BYTES:
            return values | {"more_fields": "not kept"}
        values[str(name)[:100]] = plain
    return values


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(str(value))


@lru_cache
def _write_sql(dialect: str) -> sa.TextClause:
    names = "fence, attempt, at, level, logger, event, fields"
    picked = ", ".join(f"v.{name}" for name in names.split(", "))
    # A job that was deleted since then has no log.
    return sa.text(
        f"INSERT INTO job_log (job_id, {names}) SELECT job.id, {picked} "
        f"FROM {sql.rows(dialect, _COLUMNS)} JOIN job ON job.id = v.key_id WHERE true ORDER BY v.number"
    )


def write(session: Session, lines: Sequence[Mapping[str, Any]]) -> None:
    """Store these lines in their order; lines of deleted jobs are dropped."""
    dialect = sql.dialect_of(session)
    numbered = [{**line, "number": number} for number, line in enumerate(lines)]
    session.execute(_write_sql(dialect), {"rows": sql.encode_rows(dialect, numbered)})


def read_lines(
    session: Session,
    job_id: str,
    *,
    limit: int,
    level: str | None = None,
    attempt: int | None = None,
    after: int | None = None,
) -> list[JobLogRow]:
    """Return lines from `level` up, oldest first; `after` is the last id of the previous page."""
    query = sa.select(JobLogRow).where(JobLogRow.job_id == job_id).order_by(JobLogRow.id).limit(limit)
    if level is not None:
        query = query.where(JobLogRow.level.in_(LEVELS[LEVELS.index(level) :]))
    if attempt is not None:
        query = query.where(JobLogRow.attempt == attempt)
    if after is not None:
        query = query.where(JobLogRow.id > after)
    return list(session.scalars(query))


def line_view(row: JobLogRow) -> dict[str, Any]:
    """Return a line as the API shows it."""
    return {
        "id": str(row.id),
        "at": clock.moment(row.at),
        "level": row.level,
        "attempt": row.attempt,
        "fence": row.fence,
        "logger": row.logger,
        "event": row.event,
        "fields": row.fields,
    }


def prune(session: Session, before: datetime, limit: int) -> int:
    """Delete up to `limit` lines older than `before`; return their number."""
    old = sa.select(JobLogRow.id).where(JobLogRow.at < before).order_by(JobLogRow.at).limit(limit).cte("old")
    deleted = session.execute(sa.delete(JobLogRow).where(JobLogRow.id.in_(sa.select(old.c.id))).returning(JobLogRow.id))
    return len(deleted.all())
