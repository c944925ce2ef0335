"""The answer to a request for work: 202 with the job, or its end where the caller would rather wait."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.api.http.auth import hub_of, preferred_wait_s
from app.api.streams.sse import EndWaiter
from app.core.db import read
from app.core.errors import ConfigError, NotFound, Unavailable
from app.core.logging import get_logger
from app.jobs.enqueued import EnqueuedJob
from app.jobs.idempotency import Answer
from app.jobs.ledger import views
from app.jobs.models import JobRow
from app.jobs.states import ENDED

log = get_logger(__name__)


def detail(session: Session, tenant: str, job_id: str) -> dict[str, Any]:
    """The job alone, with payload, result and attempts. Raises NotFound."""
    return views.job_detail(session, views.get(session, tenant, job_id))


async def accepted(request: Request, job: JobRow | EnqueuedJob, extra: dict[str, Any] | None = None) -> Response:
    """202, `Location` and the job, whose keys `extra` adds to or replaces; 200 and the ended job after a wait.

    Call it after the commit. It never fails: the work is accepted, whatever happens to the waiting.
    """
    return await answered(request, job.tenant, answer_of(job, extra))


def answer_of(job: JobRow | EnqueuedJob, extra: dict[str, Any] | None = None) -> Answer:
    """The same as plain values, to be made in the transaction and kept with it; 200 for a job that has ended."""
    status = 200 if job.state in ENDED else 202
    return Answer(status, views.job_view(job) | (extra or {}), job.id, extra)


async def answered(request: Request, tenant: str, answer: Answer) -> Response:
    """The answer as HTTP, after the wait that the caller asked for. Like `accepted`, it never fails."""
    headers: dict[str, str] = {}
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    if answer.job_id is None:
        return JSONResponse(answer.body, status_code=answer.status, headers=headers)
    headers["Location"] = f"/api/jobs/{answer.job_id}"
    body, status = answer.body, answer.status
    wait_s = preferred_wait_s(request)
    if wait_s:
        headers["Preference-Applied"] = f"wait={wait_s:g}"
        try:
            job = await wait_for_end(request, tenant, answer.job_id, wait_s)
            status = 200 if job["state"] in ENDED else 202
            body = job | (answer.extra or {})
        except (Unavailable, ConfigError, NotFound) as error:
            log.info("wait_given_up", job_id=answer.job_id, reason=error.message)
    return JSONResponse(body, status_code=status, headers=headers)


async def wait_for_end(request: Request, tenant: str, job_id: str, wait_s: float) -> dict[str, Any]:
    """The job when it has ended, or as it is after wait_s. Raises NotFound, Unavailable."""
    if wait_s:
        await EndWaiter(hub_of(request), job_id).wait(tenant, wait_s)
    return await read(detail, tenant, job_id)
