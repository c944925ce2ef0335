"""Bulk actions over HTTP: cancel, retry or discard all jobs that match a filter, in a background job."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.access.kinds import unmanageable_kinds
from app.api.http.audit import note
from app.api.http.auth import Caller, Identity
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.responses import answer_of, answered
from app.api.http.times import utc
from app.api.models.base import documented
from app.api.models.jobs import AcceptedJob, BulkPreview
from app.core import clock
from app.core.db import read
from app.jobs.inspect import bulk
from app.jobs.inspect.bulk import Action, Bulk, BulkFilter
from app.jobs.ledger.enqueue import enqueue

router = APIRouter(prefix="/api", tags=["jobs"])


class BulkRequest(BaseModel):
    """One action for all jobs that match the filter."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"action": "retry", "filter": {"kind": "documents.ingest"}, "dry_run": True}]},
    )

    action: Action
    filter: BulkFilter
    dry_run: bool = Field(False, description="Only return the jobs that would change.")

    def job(self, caller: Identity) -> Bulk:
        """Return the job that does it. Raises InvalidInput for a filter without conditions or with wrong states."""
        times = {name: utc(getattr(self.filter, name), name) for name in ("created_after", "created_before")}
        job_filter = bulk.check_filter(self.action, self.filter.model_copy(update=times))
        except_kinds = unmanageable_kinds(caller)
        return Bulk(action=self.action, wanted=job_filter, asked_at=clock.now(), except_kinds=except_kinds)


@router.post(
    "/jobs:bulk",
    summary="Cancel, retry or discard all jobs that match a filter",
    status_code=202,
    responses={
        202: documented(AcceptedJob, "The job that does it."),
        200: documented(BulkPreview | AcceptedJob, "With `dry_run`, the jobs that would change; else the ended job."),
    },
)
async def bulk_update_jobs(request: Request, caller: Caller, once: Idempotent, body: BulkRequest) -> Response:
    """A background job does it and reports progress. It changes only jobs that match at the time of the request.

    Jobs of kinds that the caller may not start, since they are for administrators or operators, stay as they are.
    `retry` without states means failed jobs that are not discarded.
    """
    job = body.job(caller)
    if body.dry_run:
        return JSONResponse({"action": job.action, **await read(bulk.preview, caller.tenant, job)})

    def work(session: Session) -> Answer:
        row = enqueue(session, job, tenant=caller.tenant, request_id=caller.request_id)
        conditions = job.wanted.model_dump(mode="json", exclude_none=True)
        note(session, caller, f"jobs.bulk.{job.action}", row.id, tenant=caller.tenant, filter=conditions)
        return answer_of(row)

    return await answered(request, caller.tenant, await once.run(caller, work))
