"""Why a job is where it is, and what a person does about it: explain, run now, change, discard, dead letters."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import Caller, Page, Paging
from app.api.http.responses import accepted
from app.api.http.times import utc
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.jobs.definition import MAX_PRIORITY
from app.jobs.inspect import dead_letters, explain, reason
from app.jobs.ledger import commands, edit, views
from app.jobs.ledger.edit import UNCHANGED, Changes
from app.jobs.sandbox import job_log

router = APIRouter(prefix="/api", tags=["jobs"])

Level = Literal["debug", "info", "warning", "error", "critical"]
LARGEST_ATTEMPT = 2**31 - 1


class Patch(BaseModel):
    """What to change about a job that has not started; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    payload: dict[str, Any] | None = Field(default=None, description="The whole new payload, checked by its kind.")
    due_at: datetime | None = Field(default=None, description="Only for scheduled and retrying jobs.")
    priority: int | None = Field(default=None, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Higher goes first.")
    expires_at: datetime | None = Field(default=None, description="Not started after this; null takes it away.")

    def changes(self) -> Changes:
        given = self.model_fields_set
        nothing = [name for name in ("payload", "due_at", "priority") if name in given and getattr(self, name) is None]
        if nothing:
            raise InvalidInput(f"{nothing[0]}: a job has one, null is none", code=nothing[0])
        if not given:
            raise InvalidInput("nothing to change: send payload, due_at, priority or expires_at", code="empty")
        return Changes(
            payload=UNCHANGED if self.payload is None else self.payload,
            due_at=utc(self.due_at, "due_at") or UNCHANGED,
            priority=UNCHANGED if self.priority is None else self.priority,
            expires_at=utc(self.expires_at, "expires_at") if "expires_at" in given else UNCHANGED,
        )


@router.get("/jobs/{job_id}/explain", summary="The one reason why a job is where it is, and the fix")
async def explain_job(caller: Caller, job_id: str) -> dict[str, Any]:
    around = await asyncio.to_thread(reason.check_services)
    return await read(explain.explain, caller.tenant, job_id, around)


@router.get("/jobs/{job_id}/logs", summary="What a job's code has logged, the oldest first")
async def list_log_lines(
    caller: Caller,
    paging: Paging,
    job_id: str,
    level: Annotated[Level | None, Query(description="Lines of this level and above.")] = None,
    attempt: Annotated[int | None, Query(ge=1, le=LARGEST_ATTEMPT, description="Lines of this try alone.")] = None,
) -> dict[str, Any]:
    """Lines come here within a second, up to 1,000 a run, and stay as long as MILLRACE_LOG_DAYS says."""
    return await read(_page_of_lines, caller.tenant, job_id, paging, level, attempt)


def _page_of_lines(
    session: Session, tenant: str, job_id: str, paging: Page, level: str | None, attempt: int | None
) -> dict[str, Any]:
    row = views.get(session, tenant, job_id)
    after = _line_after(paging)
    rows = job_log.read_lines(session, row.id, limit=paging.limit + 1, level=level, attempt=attempt, after=after)
    return paging.cut(rows, job_log.line_view, lambda line: [line.id])


def _line_after(paging: Page) -> int | None:
    match paging.after:
        case None:
            return None
        case [int(number)] if 0 <= number < 2**63 and not isinstance(number, bool):
            return number
    raise InvalidInput("the cursor is not one of ours", code="cursor")


@router.post("/jobs/{job_id}/run-now", summary="Start a job now that waits for its time", status_code=202)
async def run_job_now(request: Request, caller: Caller, job_id: str) -> Response:
    """For scheduled and retrying jobs; a queued one stays as it is, any other is a 409."""
    return await accepted(request, await in_transaction(edit.run_now, caller.tenant, job_id))


@router.patch("/jobs/{job_id}", summary="Change a job that has not started")
async def edit_job(caller: Caller, job_id: str, patch: Patch) -> dict[str, Any]:
    """409 once a worker has it: an edit and a claim cannot cross."""
    return await in_transaction(_edited, caller.tenant, job_id, patch.changes())


def _edited(session: Session, tenant: str, job_id: str, changes: Changes) -> dict[str, Any]:
    return views.job_detail(session, edit.edit(session, tenant, job_id, changes))


@router.post("/jobs/{job_id}/discard", summary="Take a failed job out of the dead letters")
async def discard_job(caller: Caller, job_id: str) -> dict[str, Any]:
    """It keeps its row and may still be retried; discarding it again changes nothing."""
    return views.job_view(await in_transaction(commands.discard, caller.tenant, job_id))


@router.get("/dead-letters", summary="Failed jobs in groups of the same fault, the latest seen first")
async def list_dead_letters(
    caller: Caller,
    paging: Paging,
    kind: Annotated[str | None, Query(max_length=100)] = None,
    queue: Annotated[str | None, Query(max_length=32)] = None,
) -> dict[str, Any]:
    """The jobs of a group: `GET /api/jobs?state=failed&discarded=false&fingerprint=…`."""
    return await read(_page_of_groups, caller.tenant, paging, kind, queue)


def _page_of_groups(session: Session, tenant: str, paging: Page, kind: str | None, queue: str | None) -> dict[str, Any]:
    found = dead_letters.groups(session, tenant, limit=paging.limit + 1, kind=kind, queue=queue, after=_after(paging))
    return paging.cut(found, lambda group: group, lambda group: [group["last_seen"], group["fingerprint"]])


def _after(paging: Page) -> tuple[datetime, str] | None:
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
    raise InvalidInput("the cursor is not one of ours", code="cursor")
