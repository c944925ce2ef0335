"""Answers about workers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.api.models.base import ListPage, ResponseModel, Timestamp

WorkerState = Literal["running", "paused", "draining", "stopped", "dead"]


class WorkerSummary(ResponseModel):
    """A worker process."""

    id: str
    state: WorkerState
    host: str
    pid: int
    queues: list[str]
    threads: int = Field(..., description="Jobs that it can run at once.")
    running: int = Field(..., description="Jobs that it has claimed.")
    version: str | None
    started_at: Timestamp
    beat_at: Timestamp | None = Field(..., description="Time of the last heartbeat.")
    silent_s: float | None = Field(..., description="Seconds since the last heartbeat.")
    health_url: str | None


class WorkerPage(ListPage):
    """A page of workers, the newest first."""

    data: list[WorkerSummary]
