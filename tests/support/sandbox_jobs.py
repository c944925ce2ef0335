"""A kind of job that runs in a sandbox, and what logs in one."""

from __future__ import annotations

from app.core.logging import get_logger
from app.jobs.definition import Job
from app.jobs.sandbox.child_progress import SandboxProgress


class Add(Job, kind="tests.sandboxes.add"):
    left: int
    right: int


def add(job: Add, progress: SandboxProgress) -> dict[str, int]:
    progress.report(1, 1, stage="add")
    return {"sum": job.left + job.right}


def log(event: str) -> None:
    get_logger(__name__).info(event)
