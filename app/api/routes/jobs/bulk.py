"""Many jobs at once over HTTP: cancelled, tried again or discarded by a filter, as a job of its own."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import Caller
from app.api.http.idempotency import OnceOnly
from app.api.http.responses import answer_of, answered
from app.api.http.times import utc
from app.api.routes.admin.keys import note
from app.core import clock
from app.core.db import read
from app.jobs.idempotency import Answer
from app.jobs.inspect import bulk
from app.jobs.inspect.bulk import Action, Bulk, BulkFilter
from app.jobs.ledger.enqueue import enqueue

router = APIRouter(prefix="/api", tags=["jobs"])


class BulkRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    action: Action
    filter: BulkFilter
    dry_run: bool = Field(False, description="Say what would be touched, and touch nothing.")

    def job(self) -> Bulk:
        """Raises InvalidInput for a filter that means nothing or everything."""
        times = {name: utc(getattr(self.filter, name), name) for name in ("created_after", "created_before")}
        wanted = bulk.check_filter(self.action, self.filter.model_copy(update=times))
        return Bulk(action=self.action, wanted=wanted, asked_at=clock.now())


@router.post(
    "/jobs:bulk",
    summary="Cancel, retry or discard all jobs that a filter finds",
    status_code=202,
    responses={200: {"description": "With `dry_run`: what would be touched."}, 202: {"description": "The job."}},
)
async def bulk_jobs(request: Request, caller: Caller, once: OnceOnly, body: BulkRequest) -> Response:
    """A job of its own does it, with progress; only what is so now is touched. `retry` without states means failed
    jobs that are not discarded."""
    job = body.job()
    if body.dry_run:
        return JSONResponse({"action": job.action, **await read(bulk.preview, caller.tenant, job)})

    def work(session: Session) -> Answer:
        row = enqueue(session, job, tenant=caller.tenant, request_id=caller.request_id)
        wanted = job.wanted.model_dump(mode="json", exclude_none=True)
        note(session, caller, f"jobs.bulk.{job.action}", row.id, tenant=caller.tenant, filter=wanted)
        return answer_of(row)

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))
