"""The log lines of jobs, kept beside them: collected in the worker, written in batches nobody waits for, bounded.

A job that logs nothing costs nothing. What cannot be kept is dropped with a word about it, never waited for.
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
# Of one run; the run's next line says that there were more.
MOST_LINES = 1000
LONGEST_TEXT = 4000
LARGEST_FIELDS_BYTES = 16 * 1024
# While SQL is away; then the newest are dropped.
MOST_HELD = 10_000
BATCH = 500
LINGER_S = 0.5
RETRY_S = 1.0
# Runs whose lines are counted at once; the one longest silent is forgotten first.
MOST_RUNS = 4096
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
    """One a worker process, with a thread that writes."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._counts: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="job-log", daemon=True)

    def start(self) -> None:
        """From here on every line that a job's code logs in this process, or in its lanes, is kept."""
        global _current
        _current = self
        logging.send_lines(self.take)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Keep nothing more, and write what there is if that can be done in time."""
        global _current
        logging.send_lines(None)
        _current = None
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def take(self, line: Mapping[str, Any]) -> None:
        """A line of the run that is bound to this thread or task; never blocks for long."""
        bound = logging.bound()
        job_id, fence = str(bound["job_id"]), int(bound["fence"])
        with self._changed:
            count = self._counts[job_id, fence] = self._counts.pop((job_id, fence), 0) + 1
            if len(self._counts) > MOST_RUNS:
                self._counts.popitem(last=False)
            if count > MOST_LINES + 1 or len(self._lines) >= MOST_HELD:
                return
            row = _row(line) if count <= MOST_LINES else _row({**line, "level": "warning", "event": MORE, "fields": {}})
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
                    self._lines[:0] = lines[: max(0, MOST_HELD - len(self._lines))]
                threading.Event().wait(RETRY_S)

    def _write(self, lines: list[dict[str, Any]]) -> bool:
        """Whether they are done with; False while SQL is away."""
        try:
            database().transaction(write, lines)
        except AppError as error:
            log.warning("job_log_waits_for_sql", lines=len(lines), reason=error.message)
            return False
        except SQLAlchemyError:
            log.exception("job_log_lines_refused", lines=len(lines))
        return True


_current: JobLog | None = None


def keep(line: Any) -> None:
    """A line from a lane, for the log of the job that is bound here; what is none is passed over."""
    current = _current
    if current is not None and isinstance(line, dict) and "job_id" in logging.bound():
        current.take(line)


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that the line itself fills; foreign frames may lack any of them."""
    at, level = line.get("at"), line.get("level")
    return {
        "at": datetime.fromtimestamp(at, UTC) if isinstance(at, float) else clock.now(),
        "level": level if level in LEVELS else "info",
        "logger": str(line.get("logger", ""))[:100],
        "event": str(line.get("event", ""))[:LONGEST_TEXT],
        "fields": _fields(line.get("fields")),
    }


def _fields(given: Any) -> dict[str, Any]:
    """As JSON holds them, long texts cut at their beginning (a traceback says most at its end)."""
    kept: dict[str, Any] = {}
    size = 0
    for name, value in given.items() if isinstance(given, dict) else ():
        plain = value if value is None or isinstance(value, (bool, int, str)) else json.loads(_json(value))
        plain = plain[-LONGEST_TEXT:] if isinstance(plain, str) else plain
        size += len(_json(plain)) + len(name)
        if size > LARGEST_FIELDS_BYTES:
            return kept | {"more_fields": "not kept"}
        kept[str(name)[:100]] = plain
    return kept


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(str(value))


@lru_cache
def _write_sql(dialect: str) -> sa.TextClause:
    names = "fence, attempt, at, level, logger, event, fields"
    picked = ", ".join(f"v.{name}" for name in names.split(", "))
    # A job that was deleted meanwhile has no log to write to.
    return sa.text(
        f"INSERT INTO job_log (job_id, {names}) SELECT job.id, {picked} "
        f"FROM {sql.rows(dialect, _COLUMNS)} JOIN job ON job.id = v.key_id WHERE true ORDER BY v.number"
    )


def write(session: Session, lines: Sequence[Mapping[str, Any]]) -> None:
    """Keep these lines in their order; those of jobs that are gone are dropped."""
    dialect = sql.dialect_of(session)
    numbered = [{**line, "number": number} for number, line in enumerate(lines)]
    session.execute(_write_sql(dialect), {"rows": sql.encode_rows(dialect, numbered)})


def lines_of(
    session: Session,
    job_id: str,
    *,
    limit: int,
    level: str | None = None,
    attempt: int | None = None,
    after: int | None = None,
) -> list[JobLogRow]:
    """The oldest first, from `level` up; `after` is the last id of the page before."""
    query = sa.select(JobLogRow).where(JobLogRow.job_id == job_id).order_by(JobLogRow.id).limit(limit)
    if level is not None:
        query = query.where(JobLogRow.level.in_(LEVELS[LEVELS.index(level) :]))
    if attempt is not None:
        query = query.where(JobLogRow.attempt == attempt)
    if after is not None:
        query = query.where(JobLogRow.id > after)
    return list(session.scalars(query))


def line_view(row: JobLogRow) -> dict[str, Any]:
    """A line as the API shows it."""
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
    """Forget up to `limit` lines that are older; how many there were."""
    old = sa.select(JobLogRow.id).where(JobLogRow.at < before).order_by(JobLogRow.at).limit(limit).cte("old")
    done = session.execute(sa.delete(JobLogRow).where(JobLogRow.id.in_(sa.select(old.c.id))).returning(JobLogRow.id))
    return len(done.all())
