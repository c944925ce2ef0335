"""The answer to a request for work: 202 with the job, or its end where the caller would rather wait."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.api.deps import hub_of, preferred_wait_s
from app.api.sse import EndWaiter
from app.core.db import read
from app.core.errors import ConfigError, NotFound, Unavailable
from app.core.logging import get_logger
from app.jobs import view
from app.jobs.models import JobRow
from app.jobs.states import ENDED

log = get_logger(__name__)


def detail(session: Session, tenant: str, job_id: str) -> dict[str, Any]:
    """The job alone, with payload, result and attempts. Raises NotFound."""
    return view.job_detail(session, view.get(session, tenant, job_id))


async def accepted(request: Request, job: JobRow, extra: dict[str, Any] | None = None) -> Response:
    """202, `Location` and the job, whose keys `extra` adds to or replaces; 200 and the ended job after a wait.

    Call it after the commit. It never fails: the work is accepted, whatever happens to the waiting.
    """
    headers = {"Location": f"/api/jobs/{job.id}"}
    body, status = view.job_view(job), 202
    wait_s = preferred_wait_s(request)
    if wait_s:
        headers["Preference-Applied"] = f"wait={wait_s:g}"
        try:
            body = await wait_for_end(request, job.tenant, job.id, wait_s)
            status = 200 if body["state"] in ENDED else 202
        except (Unavailable, ConfigError, NotFound) as error:
            log.info("wait_given_up", job_id=job.id, reason=error.message)
    return JSONResponse(body | (extra or {}), status_code=status, headers=headers)


async def wait_for_end(request: Request, tenant: str, job_id: str, wait_s: float) -> dict[str, Any]:
    """The job when it has ended, or as it is after wait_s. Raises NotFound, Unavailable."""
    if wait_s:
        await EndWaiter(hub_of(request), job_id).wait(tenant, wait_s)
    return await read(detail, tenant, job_id)
