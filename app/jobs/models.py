"""Tables: job, attempt, worker, gate, schedule; throttles, debounced payloads, and answers to repeated requests."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base, BigId, JsonColumn, UtcDateTime
from app.jobs.states import NOT_STARTED, OPEN, STATES

JobId = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")

_OPEN = "state IN ({})".format(", ".join(f"'{state}'" for state in OPEN))
_NOT_STARTED = "state IN ({})".format(", ".join(f"'{state}'" for state in NOT_STARTED))
_KEYED = f"unique_key IS NOT NULL AND {_OPEN}"
_FED = "state = 'queued' AND admitted_at IS NOT NULL"
_DEAD = "state = 'failed' AND discarded_at IS NULL"
_UNFED = "state = 'queued' AND admitted_at IS NULL"


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    condition = sa.text(where)
    return sa.Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


class JobRow(Base):
    """One request for work. `fence` rises at each claim and never falls; `tries` counts attempts that count."""

    __tablename__ = "job"
    __table_args__ = (
        _partial("ix_job_unfed", "queue", "priority", "tenant", "kind", "id", where=_UNFED),
        _partial("ix_job_fed", "queue", "tenant", "admitted_at", where=_FED),
        _partial("ix_job_due", "due_at", where="state IN ('scheduled', 'retrying')"),
        # Not for statements that know the ids: between two vacuums it is full of entries of ended jobs.
        _partial("ix_job_running", "worker_id", where="state = 'running' AND worker_id IS NOT NULL"),
        _partial("ix_job_expires", "expires_at", where="state = 'queued' AND expires_at IS NOT NULL"),
        _partial("ix_job_dead", "tenant", "fingerprint", "finished_at", where=_DEAD),
        _partial("ix_job_schedule", "schedule_id", where=f"schedule_id IS NOT NULL AND {_OPEN}"),
        _partial("uq_job_child", "parent_id", "child_index", where="parent_id IS NOT NULL", unique=True),
        _partial("ix_job_settled", "id", where="state = 'waiting' AND open_children = 0"),
        _partial("ix_job_cut", "id", where="cut_children"),
        _partial("ix_job_document", "document_id", where="document_id IS NOT NULL"),
        _partial("ix_job_waiting", "tenant", where=_NOT_STARTED),  # count of a tenant's jobs
        _partial("uq_job_unique_key", "tenant", "kind", "unique_key", where=_KEYED, unique=True),
        sa.Index("ix_job_tenant", "tenant", "id"),
        sa.CheckConstraint("state IN ({})".format(", ".join(f"'{state}'" for state in STATES)), name="state"),
        # SQLite: rows lie in the tree of their rising ids; a second tree would cost a page for each write.
        {"sqlite_with_rowid": False},
    )

    id: Mapped[str] = mapped_column(JobId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    kind: Mapped[str] = mapped_column(sa.String(100))
    payload_version: Mapped[int] = mapped_column(default=1)
    payload: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    queue: Mapped[str] = mapped_column(sa.String(32))
    state: Mapped[str] = mapped_column(sa.String(16))
    fence: Mapped[int] = mapped_column(default=0)
    tries: Mapped[int] = mapped_column(default=0)
    max_tries: Mapped[int] = mapped_column(default=4)
    crashes: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None] = mapped_column(JobId)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    admitted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    cancel_requested_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    parent_id: Mapped[str | None] = mapped_column(JobId)
    child_index: Mapped[int | None]
    open_children: Mapped[int] = mapped_column(default=0)
    unique_key: Mapped[str | None] = mapped_column(sa.String(200))
    schedule_id: Mapped[int | None] = mapped_column(BigId)
    document_id: Mapped[int | None] = mapped_column(BigId)
    error_type: Mapped[str | None] = mapped_column(sa.String(200))
    error_code: Mapped[str | None] = mapped_column(sa.String(100))
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    fingerprint: Mapped[str | None] = mapped_column(sa.String(32))
    result: Mapped[dict[str, Any] | None] = mapped_column(JsonColumn)
    progress: Mapped[dict[str, Any] | None] = mapped_column(JsonColumn)
    request_id: Mapped[str | None] = mapped_column(sa.String(128))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    discarded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=0, server_default="0")
    traceparent: Mapped[str | None] = mapped_column(sa.String(55))
    webhook_url: Mapped[str | None] = mapped_column(sa.Text)
    # Of a parent. `settled_` counts children that had ended when it last went on: its rule counts the rest.
    children: Mapped[int] = mapped_column(default=0, server_default="0")
    failed_children: Mapped[int] = mapped_column(default=0, server_default="0")
    settled_children: Mapped[int] = mapped_column(default=0, server_default="0")
    settled_failed: Mapped[int] = mapped_column(default=0, server_default="0")
    family_rule: Mapped[str | None] = mapped_column(sa.String(32))
    family_limit: Mapped[int | None]
    # Its open children are still to be cancelled.
    cut_children: Mapped[bool] = mapped_column(default=False, server_default=sa.false())


JOB = cast(sa.Table, JobRow.__table__)


class AttemptRow(Base):
    """One ended run of a job; the present run is in the job's row."""

    __tablename__ = "attempt"
    __table_args__ = ({"sqlite_with_rowid": False},)

    job_id: Mapped[str] = mapped_column(JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    worker_id: Mapped[str | None] = mapped_column(JobId)
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    outcome: Mapped[str] = mapped_column(sa.String(16))
    error_type: Mapped[str | None] = mapped_column(sa.String(200))
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    traceback: Mapped[str | None] = mapped_column(sa.Text)
    # Runs in a row that ended snoozed share a row: from the start of the first to the end of the last.
    repeats: Mapped[int] = mapped_column(server_default="1")


class WorkerRow(Base):
    """A worker process, alive while its beat rises."""

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(JobId, primary_key=True)
    host: Mapped[str] = mapped_column(sa.String(300))
    pid: Mapped[int]
    pid_birth: Mapped[int] = mapped_column(BigId, default=0)
    queues: Mapped[list[str]] = mapped_column(JsonColumn)
    threads: Mapped[int] = mapped_column(default=0)
    health_url: Mapped[str | None] = mapped_column(sa.String(200))
    beat: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    # For display. Only the beat decides if a worker is alive: no clock can set it back.
    beat_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(sa.String(16), default="running")
    version: Mapped[str] = mapped_column(sa.String(32))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BulkRow(Base):
    """Position of a bulk job, written with each batch, so that a second run continues there."""

    __tablename__ = "bulk"

    job_id: Mapped[str] = mapped_column(JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    last_id: Mapped[str | None] = mapped_column(JobId)
    done: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)


class JobLogRow(Base):
    """A log line of a job's code, with its try (`attempt`) and claim (`fence`)."""

    __tablename__ = "job_log"
    __table_args__ = (sa.Index("ix_job_log_job", "job_id", "id"), sa.Index("ix_job_log_at", "at"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(JobId, sa.ForeignKey("job.id", ondelete="CASCADE"))
    fence: Mapped[int]
    attempt: Mapped[int]
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    level: Mapped[str] = mapped_column(sa.String(10))
    logger: Mapped[str] = mapped_column(sa.String(100))
    event: Mapped[str] = mapped_column(sa.Text)
    fields: Mapped[dict[str, Any]] = mapped_column(JsonColumn)


class ThrottleRow(Base):
    """The last job started under a throttled key, and the time when the next may start."""

    __tablename__ = "throttle"
    __table_args__ = (sa.Index("ix_throttle_free_at", "free_at"), {"sqlite_with_rowid": False})

    tenant: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    unique_key: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    job_id: Mapped[str] = mapped_column(JobId)
    free_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DebouncedRow(Base):
    """The last payload for a debounced job that came while it ran; the job runs again with it."""

    __tablename__ = "debounced"
    __table_args__ = ({"sqlite_with_rowid": False},)

    job_id: Mapped[str] = mapped_column(JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    payload: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    payload_version: Mapped[int]
    since_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IdempotencyRow(Base):
    """A request that was answered under an Idempotency-Key, with its answer."""

    __tablename__ = "idempotency"
    __table_args__ = (sa.Index("ix_idempotency_created_at", "created_at"), {"sqlite_with_rowid": False})

    tenant: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(sa.String(64))
    status: Mapped[int | None]
    answer: Mapped[str | None] = mapped_column(sa.Text)  # JSON, byte for byte as it was sent
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ScheduleRow(Base):
    """A repeated start, and its next time. `next_at` was computed at `planned_at` by this clock."""

    __tablename__ = "schedule"
    __table_args__ = (
        sa.UniqueConstraint("tenant", "name"),
        _partial("ix_schedule_next", "next_at", where="paused_at IS NULL"),
        {"sqlite_autoincrement": True},  # jobs refer to the id
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    name: Mapped[str] = mapped_column(sa.String(100))
    # Declared in code and changed only there; people may pause it.
    in_code: Mapped[bool] = mapped_column(default=False)
    kind: Mapped[str] = mapped_column(sa.String(100))
    payload_version: Mapped[int] = mapped_column(default=1)
    payload: Mapped[dict[str, Any]] = mapped_column(JsonColumn)
    cron: Mapped[str | None] = mapped_column(sa.String(100))
    every_s: Mapped[int | None]
    timezone: Mapped[str] = mapped_column(sa.String(64), default="UTC")
    anchor_at: Mapped[datetime] = mapped_column(UtcDateTime)
    catch_up: Mapped[str] = mapped_column(sa.String(8), default="once")
    catch_up_limit: Mapped[int] = mapped_column(default=10)
    overlap: Mapped[str] = mapped_column(sa.String(8), default="skip")
    next_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    planned_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    paused_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ScheduleTickRow(Base):
    """Outcome of one tick. The row is written once, so that no tick fires twice."""

    __tablename__ = "schedule_tick"
    __table_args__ = (
        sa.Index("ix_schedule_tick_written", "written_at"),
        _partial("ix_schedule_tick_waiting", "schedule_id", "tick_at", where="outcome = 'waiting'"),
        {"sqlite_with_rowid": False},
    )

    schedule_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("schedule.id", ondelete="CASCADE"), primary_key=True)
    tick_at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    outcome: Mapped[str] = mapped_column(sa.String(16))
    job_id: Mapped[str | None] = mapped_column(JobId)
    note: Mapped[str | None] = mapped_column(sa.Text)
    written_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LimitRow(Base):
    """Limit of a queue, a kind or a tenant: a pause, a cap of running jobs, or a weight.

    running_cap, set by a person, takes precedence over declared_cap, which the definition of the kind names.
    """

    __tablename__ = "gate"
    __table_args__ = (sa.CheckConstraint("scope IN ('queue', 'kind', 'tenant')", name="scope"),)

    scope: Mapped[str] = mapped_column(sa.String(8), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    paused_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    paused_by: Mapped[str | None] = mapped_column(sa.String(128))
    pause_reason: Mapped[str | None] = mapped_column(sa.String(500))
    running_cap: Mapped[int | None]
    declared_cap: Mapped[int | None]
    weight: Mapped[int] = mapped_column(default=1)
