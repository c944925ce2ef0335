"""Kinds as users write them by mistake or by need; loaded by MILLRACE_MODULES."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import Field, computed_field

from actors.runtime import job_actor
from app.jobs.definition import Job
from app.jobs.worker.progress import Progress


class SlowDown(Exception):
    def __init__(self) -> None:
        super().__init__("slow down")
        self.retry_after_s = "soon"


class OddError(Job, kind="odd.error", open_to="write", max_tries=1):
    """Raises an error that cannot be handled as others are."""

    name: str


@job_actor(OddError)
async def odd_error(job: OddError, progress: Progress) -> None:
    raise make_error(job.name)


class OddErrorInSandbox(Job, kind="odd.error_in_sandbox", open_to="write", max_tries=1):
    """The same in a child process."""

    name: str


@job_actor(OddErrorInSandbox)
def odd_error_in_sandbox(job: OddErrorInSandbox, progress: Progress) -> None:
    raise make_error(job.name)


def make_error(name: str) -> BaseException:
    if name == "delay":
        return SlowDown()
    if name == "syntax":
        return SyntaxError("bad json5", ("f", 1, 1, b"bytes text"))  # type: ignore[arg-type]
    return RecursionError("deep")


class DeepResult(Job, kind="odd.deep_result", open_to="write", max_tries=1):
    levels: int


@job_actor(DeepResult)
async def deep_result(job: DeepResult, progress: Progress) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(job.levels - 1):
        value = {"x": value}
    return value


class Aliased(Job, kind="odd.alias", open_to="write", max_tries=1):
    order_id: int = Field(alias="orderId")


@job_actor(Aliased)
async def aliased(job: Aliased, progress: Progress) -> dict[str, Any]:
    return {"order": job.order_id}


class Computed(Job, kind="odd.computed", open_to="write", max_tries=1):
    net: Decimal

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> Decimal:
        return self.net * Decimal("1.19")


@job_actor(Computed)
def computed(job: Computed, progress: Progress) -> dict[str, Any]:
    return {"gross": str(job.gross)}


class Ratio(Job, kind="odd.ratio", open_to="write", max_tries=1):
    ratio: float = 1
    extra: Any = None


@job_actor(Ratio)
async def ratio(job: Ratio, progress: Progress) -> dict[str, Any]:
    return {"ratio": job.ratio}
