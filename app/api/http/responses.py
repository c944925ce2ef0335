"""Answers to requests for work: 202 with the job, or the ended job where the caller asked to wait."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from app.api.http.idempotency import Answer
from app.api.http.waiting import preferred_wait_s, wait_for_end
from app.core.errors import ConfigError, NotFound, Unavailable
from app.core.logging import get_logger
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger import views
from app.jobs.models import JobRow
from app.jobs.states import ENDED

log = get_logger(__name__)


async def accepted(request: Request, job: JobRow | EnqueuedJob, extra: dict[str, Any] | None = None) -> Response:
    """Return 202, `Location` and the job, or 200 and the ended job after a wait. `extra` replaces or adds keys.

    Call it after the commit. It never fails: the work is accepted even if the wait fails.
    """
    return await answered(request, job.tenant, answer_of(job, extra))


def answer_of(job: JobRow | EnqueuedJob, extra: dict[str, Any] | None = None) -> Answer:
    """Return the answer as plain values, to store in the transaction of the work; 200 for a job that has ended."""
    status = 200 if job.state in ENDED else 202
    return Answer(status, views.job_view(job) | (extra or {}), job.id, extra)


async def answered(request: Request, tenant: str, answer: Answer) -> Response:
    """Return the answer as HTTP, after the wait that the caller asked for. Like `accepted`, it never fails."""
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
