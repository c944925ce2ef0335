"""Answers about queues, pauses and limits."""

from __future__ import annotations

from pydantic import Field

from app.api.models.base import ResponseModel, Timestamp


class PauseInfo(ResponseModel):
    """The time, author and reason of a pause."""

    at: Timestamp | None
    by: str | None
    reason: str | None


class QueueStats(ResponseModel):
    """Depth, age, workers and limits of a queue."""

    name: str
    queued: int
    oldest_s: float = Field(..., description="Age of the oldest queued job in seconds; 0 for an empty queue.")
    running: int
    scheduled: int
    retrying: int
    workers: int
    slots: int = Field(..., description="Jobs that its workers can run at once.")
    paused: PauseInfo | None
    running_cap: int | None


class QueueList(ResponseModel):
    """All queues, in the order in which workers serve them."""

    data: list[QueueStats]


class LimitState(ResponseModel):
    """Pause and running cap of a queue or kind, and its running jobs."""

    name: str
    paused: PauseInfo | None
    running_cap: int | None = Field(..., description="Maximum number of running jobs; null: no limit.")
    running: int


class TenantLimitState(LimitState):
    """Pause, running cap and weight of a tenant, and its running jobs."""

    weight: int = Field(..., description="Share of workers relative to the weights of other tenants.")
