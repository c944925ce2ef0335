"""Answers about this process."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.api.models.base import ResponseModel, Timestamp
from app.api.models.search import IndexLag


class ServiceInfo(ResponseModel):
    """Name and version of the service, and addresses of its pages."""

    service: str
    version: str
    status: Literal["running"]
    docs: str
    health: str


class Liveness(ResponseModel):
    """The answer of a live process."""

    status: Literal["ok"]


class Readiness(ResponseModel):
    """The answer of a process whose services are all usable."""

    status: Literal["ready"]
    services: dict[str, str] = Field(..., description="Service to `healthy`.")


class SearchHealth(ResponseModel):
    """The search engine and its lag; null for an engine that reads SQL."""

    engine: str
    behind: IndexLag | None


class HealthDetail(ResponseModel):
    """The state of the services and numbers of this process."""

    status: Literal["healthy", "degraded"]
    services: dict[str, str] = Field(..., description="Service to `healthy`, or to the fault.")
    timestamp: Timestamp
    search: SearchHealth
    role: str
    version: str
    threads: int
    loop_lag_ms: float = Field(..., description="The worst delay of the event loop in the last seconds.")
    streams: int = Field(..., description="Open event streams.")
