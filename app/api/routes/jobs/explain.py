"""Diagnosis and repair of single jobs: explain, log lines, run now, edit, discard, dead letters."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.access.kinds import require_manageable_kind, require_payload_access
from app.api.http.auth import Caller, Identity
from app.api.http.paging import ListQuery, Paging, invalid_cursor
from app.api.http.responses import accepted
from app.api.http.times import utc, zoned
from app.api.models.base import documented
from app.api.models.jobs import JOB_ACCEPTED, DeadLetterPage, JobDetail, JobExplanation, JobLogPage, JobSummary
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.jobs.definition_checks import MAX_PRIORITY
from app.jobs.inspect import dead_letters, explain, reason
from app.jobs.ledger import commands, edit, views
from app.jobs.ledger.edit import UNCHANGED, Changes
from app.jobs.models import JobRow
from app.jobs.sandbox import job_log

router = APIRouter(prefix="/api", tags=["jobs"])

Level = Literal["debug", "info", "warning", "error", "critical"]
MAX_ATTEMPT = 2**31 - 1


class JobPatch(BaseModel):
    """Changes to a job that has not started; fields that are absent stay as they are."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"priority": 10, "due_at": "2027-01-31T06:00:00Z"}]}
    )

    payload: dict[str, Any] | None = Field(default=None, description="The complete new payload, checked by its kind.")
    due_at: datetime | None = Field(default=None, description="Only for scheduled and retrying jobs.")
    priority: int | None = Field(default=None, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Higher goes first.")
    expires_at: datetime | None = Field(default=None, description="Not started after this; null removes it.")

    def changes(self) -> Changes:
        fields = self.model_fields_set
        nulls = [name for name in ("payload", "due_at", "priority") if name in fields and getattr(self, name) is None]
        if nulls:
            raise InvalidInput(f"{nulls[0]} must not be null", code=nulls[0])
        if not fields:
            raise InvalidInput("the body must have payload, due_at, priority or expires_at", code="empty")
        return Changes(
            payload=UNCHANGED if self.payload is None else self.payload,
            due_at=zoned(self.due_at, "due_at") or UNCHANGED,
            priority=UNCHANGED if self.priority is None else self.priority,
            expires_at=zoned(self.expires_at, "expires_at") if "expires_at" in fields else UNCHANGED,
        )


@router.get(
    "/jobs/{job_id}/explain",
    summary="Explain the state of a job: the reason and the fix",
    responses={200: documented(JobExplanation)},
)
async def explain_job(caller: Caller, job_id: str) -> dict[str, Any]:
    around = await asyncio.to_thread(reason.check_services)
    return await read(explain.explain, caller.tenant, job_id, around)


@router.get(
    "/jobs/{job_id}/logs",
    summary="List the log lines of a job, the oldest first",
    responses={200: documented(JobLogPage)},
)
async def list_job_logs(
    caller: Caller,
    paging: Paging,
    job_id: str,
    level: Annotated[Level | None, Query(description="Lines of this level and above.")] = None,
    attempt: Annotated[int | None, Query(ge=1, le=MAX_ATTEMPT, description="Only lines of this attempt.")] = None,
) -> dict[str, Any]:
    """Lines appear within a second, up to 1,000 a run, and are kept for MILLRACE_LOG_DAYS."""
    return await read(_page_of_lines, caller.tenant, job_id, paging, level, attempt)


def _page_of_lines(
    session: Session, tenant: str, job_id: str, paging: ListQuery, level: str | None, attempt: int | None
) -> dict[str, Any]:
    row = views.get(session, tenant, job_id)
    after = paging.after_number()
    rows = job_log.read_lines(session, row.id, limit=paging.limit + 1, level=level, attempt=attempt, after=after)
    return paging.cut(rows, job_log.line_view, lambda line: [line.id])


@router.post("/jobs/{job_id}/run-now", summary="Make a delayed job due now", status_code=202, responses=JOB_ACCEPTED)
async def run_job_now(request: Request, caller: Caller, job_id: str) -> Response:
    """For scheduled and retrying jobs. A queued job stays as it is; any other state is a 409."""
    return await accepted(request, await in_transaction(_run_now, caller, job_id))


def _run_now(session: Session, caller: Identity, job_id: str) -> JobRow:
    require_manageable_kind(caller, views.get(session, caller.tenant, job_id).kind)
    return edit.run_now(session, caller.tenant, job_id)


@router.patch("/jobs/{job_id}", summary="Change a job that has not started", responses={200: documented(JobDetail)})
async def update_job(caller: Caller, job_id: str, patch: JobPatch) -> dict[str, Any]:
    """409 once a worker has claimed it: the edit and the claim lock the same row.

    A new `payload` is for callers that may start jobs of the kind.
    """
    return await in_transaction(_edit, caller, job_id, patch.changes())


def _edit(session: Session, caller: Identity, job_id: str, changes: Changes) -> dict[str, Any]:
    kind = views.get(session, caller.tenant, job_id).kind
    require_manageable_kind(caller, kind)
    if changes.payload is not UNCHANGED:
        require_payload_access(caller, kind)
    return views.job_detail(session, edit.edit(session, caller.tenant, job_id, changes))


@router.post(
    "/jobs/{job_id}/discard",
    summary="Remove a failed job from the dead letters",
    responses={200: documented(JobSummary)},
)
async def discard_job(caller: Caller, job_id: str) -> dict[str, Any]:
    """The job keeps its row and can still be retried. Discarding it again changes nothing."""
    return views.job_view(await in_transaction(_discard, caller, job_id))


def _discard(session: Session, caller: Identity, job_id: str) -> JobRow:
    require_manageable_kind(caller, views.get(session, caller.tenant, job_id).kind)
    return commands.discard(session, caller.tenant, job_id)


@router.get(
    "/dead-letters",
    summary="List failed jobs in groups of the same fault, the latest seen first",
    responses={200: documented(DeadLetterPage)},
)
async def list_dead_letters(
    caller: Caller,
    paging: Paging,
    kind: Annotated[str | None, Query(max_length=100)] = None,
    queue: Annotated[str | None, Query(max_length=32)] = None,
) -> dict[str, Any]:
    """The jobs of a group: `GET /api/jobs?state=failed&discarded=false&fingerprint=…`."""
    return await read(_page_of_groups, caller.tenant, paging, kind, queue)


def _page_of_groups(
    session: Session, tenant: str, paging: ListQuery, kind: str | None, queue: str | None
) -> dict[str, Any]:
    groups = dead_letters.list_groups(
        session, tenant, limit=paging.limit + 1, kind=kind, queue=queue, after=_group_after(paging)
    )
    return paging.cut(groups, lambda group: group, lambda group: [group["last_seen"], group["fingerprint"]])


def _group_after(paging: ListQuery) -> tuple[datetime, str] | None:
    match paging.after:
        case None:
            return None
        case [str(seen), str(fingerprint)]:
            try:
                moment = utc(datetime.fromisoformat(seen), "cursor")
            except ValueError:
                moment = None
            if moment is not None:
                return moment, fingerprint
    raise invalid_cursor()
