"""Answers about schedules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.api.models.base import JsonObject, ListPage, Number, ResponseModel, Timestamp


class ScheduleSummary(ResponseModel):
    """A schedule, as lists show it."""

    id: Number
    name: str
    tenant: str
    kind: str
    payload: JsonObject
    cron: str | None
    every_s: int | None
    timezone: str
    catch_up: Literal["skip", "once", "all"]
    catch_up_limit: int
    overlap: Literal["skip", "queue", "replace"]
    source: Literal["code", "api"] = Field(..., description="`code`: declared by the program; the API cannot edit it.")
    next_at: Timestamp | None
    last_at: Timestamp | None
    paused_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class SchedulePage(ListPage):
    """A page of schedules, the oldest first."""

    data: list[ScheduleSummary]


class ScheduleTick(ResponseModel):
    """One time at which the schedule was due, and the outcome."""

    at: Timestamp
    outcome: str
    job_id: str | None
    note: str | None


class ScheduleDetail(ScheduleSummary):
    """A schedule with its next times, its open jobs and its last ticks."""

    next: list[Timestamp]
    open_jobs: list[str] = Field(..., description="Ids of its jobs that have not ended.")
    ticks: list[ScheduleTick] = Field(..., description="The newest first.")
