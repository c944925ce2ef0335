"""Jobs: the list, one job with its attempts, log, children and explanation, and what may be done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from app.access.kinds import require_manageable_kind
from app.core.db import in_transaction, read
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ids import is_uuid
from app.dashboard.frame import page
from app.dashboard.listing import PAGE_ROWS, address, before_uuid, chips_of, cut
from app.dashboard.routing import router as make_router
from app.dashboard.routing import see_other
from app.dashboard.visitor import Reader, Visitor, Writer
from app.documents.accept.quota import within
from app.jobs.inspect import explain, reason
from app.jobs.inspect.reason import Services
from app.jobs.ledger import commands, edit, views
from app.jobs.models import JobRow
from app.jobs.sandbox import job_log
from app.jobs.states import ENDED, STATES

router = make_router()

MAX_LOG_LINES = 500
MAX_CHILDREN = 50
TABS = (
    ("", "All"),
    ("running", "Running"),
    ("queued", "Queued"),
    ("scheduled,retrying,waiting", "Waiting"),
    ("succeeded", "Succeeded"),
    ("failed", "Failed"),
    ("cancelled", "Cancelled"),
)


@router.get("/jobs")
async def show_jobs(
    request: Request,
    visitor: Reader,
    state: Annotated[str, Query(max_length=100)] = "",
    kind: Annotated[str, Query(max_length=100)] = "",
    queue: Annotated[str, Query(max_length=32)] = "",
    error_code: Annotated[str, Query(max_length=100)] = "",
    fingerprint: Annotated[str, Query(max_length=32)] = "",
    document_id: Annotated[str, Query(max_length=18, pattern="^[0-9]*$")] = "",
) -> Response:
    states = [name for name in state.split(",") if name]
    unknown = [name for name in states if name not in STATES]
    if unknown:
        raise InvalidInput(f"state {unknown[0]!r} must be one of {', '.join(STATES)}", code="state")
    criteria = views.JobFilter(
        states=states or None,
        kind=kind or None,
        queue=queue or None,
        error_code=error_code or None,
        fingerprint=fingerprint or None,
        document_id=int(document_id) if document_id else None,
        before_id=before_uuid(request),
    )
    services = await asyncio.to_thread(reason.check_services)
    rows = await read(_rows, visitor.tenant, criteria, services)
    chips = {"kind": kind, "queue": queue, "error_code": error_code, "fingerprint": fingerprint} | {
        "document_id": document_id
    }
    return page(
        request,
        "jobs.html",
        visitor=visitor,
        listing=cut(request, rows, lambda row: row, lambda row: row["id"]),
        tabs=[(label, address(request, state=value or None, before=None), value == state) for value, label in TABS],
        chips=chips_of(request, chips),
        state=state,
        chosen=chips,
    )


def _rows(session: Session, tenant: str, criteria: views.JobFilter, services: Services) -> list[dict[str, Any]]:
    rows = views.list_jobs(session, tenant, criteria, PAGE_ROWS + 1)
    return [views.job_view(row) | {"why": _why(session, row, services)} for row in rows]


def _why(session: Session, row: JobRow, services: Services) -> str:
    """Return the reason of an open job that does not run, or the error of a failed one, as one line."""
    if row.state in ("queued", "scheduled", "waiting", "retrying"):
        return explain.reason_of(session, row, services).message
    return (row.error_message or "").partition("\n")[0][:200]


@router.get("/jobs/{job_id}")
async def show_job(
    request: Request, visitor: Reader, job_id: str, level: Annotated[str, Query(max_length=10)] = ""
) -> Response:
    services = await asyncio.to_thread(reason.check_services)
    data = await read(_detail, visitor.tenant, job_id, services, level or None)
    return page(request, "job.html", visitor=visitor, level=level, **data)


def _detail(session: Session, tenant: str, job_id: str, services: Services, level: str | None) -> dict[str, Any]:
    row = views.get(session, tenant, job_id)
    children = views.JobFilter(parent_id=row.id)
    lines = job_log.read_lines(session, row.id, limit=MAX_LOG_LINES, level=level, attempt=None, after=None)
    return {
        "job": views.job_detail(session, row),
        "explanation": explain.explain(session, tenant, row.id, services),
        "children": [views.job_view(child) for child in views.list_jobs(session, tenant, children, MAX_CHILDREN)],
        "lines": [job_log.line_view(line) for line in lines],
        "has_ended": row.state in ENDED,
    }


@router.get("/go")
async def go_to(request: Request, visitor: Reader, q: Annotated[str, Query(max_length=500)] = "") -> Response:
    """Open what the text names: a job by its id, a document by its number; else search."""
    text = q.strip()
    if is_uuid(text):
        return see_other(f"/ui/jobs/{text}")
    if text.isascii() and text.isdecimal() and len(text) < 19:
        return see_other(f"/ui/documents/{text}")
    return see_other(address(request, q=text).replace("/ui/go", "/ui/search", 1))


Act = Callable[[Session, str, str], JobRow]


def _cancel(session: Session, tenant: str, job_id: str) -> JobRow:
    row = commands.cancel(session, tenant, job_id)
    if row.state in ("succeeded", "failed"):
        raise Conflict(f"The job had {row.state} before; nothing was changed", code="job_state")
    return row


def _retry(session: Session, tenant: str, job_id: str) -> JobRow:
    return within(session, tenant, commands.retry, tenant, job_id)


ACTS: dict[str, tuple[Act, str]] = {
    "cancel": (_cancel, "The job is cancelled; if it was running, its worker stops it."),
    "retry": (_retry, "The job is queued again."),
    "run-now": (edit.run_now, "The job is due now."),
    "discard": (commands.discard, "The job has left the failures."),
}


@router.post("/jobs/{job_id}/{act}")
async def act_on_job(visitor: Writer, job_id: str, act: str) -> Response:
    if act not in ACTS:
        raise NotFound(f"{act} is not an act on a job", code="act_not_found")
    run, message = ACTS[act]
    await in_transaction(_act, visitor, run, act, job_id)
    return see_other(f"/ui/jobs/{job_id}", message)


def _act(session: Session, visitor: Visitor, run: Act, act: str, job_id: str) -> None:
    require_manageable_kind(visitor.identity, views.get(session, visitor.tenant, job_id).kind)
    run(session, visitor.tenant, job_id)
    visitor.note(session, f"job.{act}", job_id)
