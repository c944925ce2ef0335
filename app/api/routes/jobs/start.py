"""Starting jobs over HTTP, one or a list, and the kinds that the caller may start."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic.errors import PydanticInvalidForJsonSchema
from sqlalchemy.orm import Session

from app.access.kinds import may_start, require_startable_kind
from app.api.http.auth import Identity, KindCaller
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.responses import answer_of, answered
from app.api.http.times import zoned
from app.api.models.base import documented
from app.api.models.jobs import AcceptedJob, KindPage, StartedJobs
from app.core import clock
from app.core.errors import InvalidInput
from app.deliveries.webhooks import check_url
from app.jobs.definition import Debounce, Job, Throttle, definition, kinds
from app.jobs.definition_checks import MAX_PRIORITY
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger import views
from app.jobs.ledger.enqueue import Options, enqueue_many, tries_of
from app.jobs.ledger.unique import MAX_KEY_LENGTH

router = APIRouter(prefix="/api", tags=["jobs"])

MAX_JOBS = 1000
MAX_URL_CHARS = 2000
MAX_PAYLOAD_VERSION = 2**31 - 1


class StartRequest(BaseModel):
    """One job to start."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"kind": "shop.mail", "payload": {"to": "a@example.org"}, "priority": 5}]},
    )

    kind: Annotated[str, Field(max_length=100)]
    payload: dict[str, Any] = Field({}, description="Must fit the schema of the kind, see `GET /api/kinds`.")
    payload_version: Annotated[int, Field(ge=1, le=MAX_PAYLOAD_VERSION)] | None = Field(
        None, description="Version of the payload's form; by default the newest."
    )
    due_at: datetime | None = Field(None, description="Not started before this.")
    expires_at: datetime | None = Field(None, description="Not started after this: it fails with `expired`.")
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = Field(
        None, description="Higher goes first within the queue; by default that of the kind."
    )
    unique_key: Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH)] | None = Field(
        None,
        description="If an open job of the kind has this key, it is returned. Only for kinds without keys.",
    )
    on_conflict: Literal["return", "raise"] = Field(
        "return", description="`raise`: 409 if an open job has the unique key."
    )
    webhook_url: Annotated[str, Field(max_length=MAX_URL_CHARS, pattern=r"^https?://[!-~]+$")] | None = Field(
        None, description="Receives a webhook when the job ends."
    )

    def options(self) -> Options:
        """Return the options of enqueue. Raises InvalidInput for impossible times and a forbidden webhook address."""
        if self.webhook_url is not None:
            check_url(self.webhook_url)
        expires_at = zoned(self.expires_at, "expires_at")
        if expires_at is not None and expires_at <= clock.now():
            raise InvalidInput("expires_at is in the past", code="expires_at")
        due_at = zoned(self.due_at, "due_at")
        if expires_at is not None and due_at is not None and expires_at <= due_at:
            raise InvalidInput("expires_at must be after due_at", code="expires_at")
        return {
            "due_at": due_at,
            "expires_at": expires_at,
            "priority": self.priority,
            "unique_key": self.unique_key,
            "on_conflict": self.on_conflict,
            "webhook_url": self.webhook_url,
        }


def _one_or_many(body: Any) -> str:
    return "list" if isinstance(body, list) else "job"


Starts = Annotated[
    Annotated[StartRequest, Tag("job")]
    | Annotated[list[StartRequest], Field(min_length=1, max_length=MAX_JOBS), Tag("list")],
    Discriminator(_one_or_many),
]


@router.post(
    "/jobs",
    summary="Start a job, or up to 1,000 in one transaction",
    status_code=202,
    responses={
        200: documented(AcceptedJob, "The job, which has ended: the caller waited, or a throttled key returned it."),
        202: documented(AcceptedJob | StartedJobs, "The job, with its address in `Location`; for a list, all jobs."),
    },
)
async def start_job(request: Request, caller: KindCaller, once: Idempotent, body: Starts) -> Response:
    """All jobs of a list are started, or none. For a `unique_key` in use, the open job with that key is returned."""
    starts = body if isinstance(body, list) else [body]
    ready = [_check(caller, start, place if isinstance(body, list) else None) for place, start in enumerate(starts)]

    def work(session: Session) -> Answer:
        rows = list(_start(session, caller, ready))
        if not isinstance(body, list):
            return answer_of(rows[0])
        return Answer(202, {"data": [views.job_view(row) for row in rows]})

    return await answered(request, caller.tenant, await once.run(caller, work))


def _check(caller: Identity, start: StartRequest, place: int | None) -> tuple[Job, Options]:
    """Return the typed payload and the options. Errors of a list name the `place`."""
    try:
        kind = require_startable_kind(caller, start.kind)
        if start.unique_key is not None and (kind.unique_key is not None or kind.unique is not None):
            raise InvalidInput(f"unique_key must be absent: {kind.kind} makes its unique keys", code="unique_key")
        return kind.load(start.payload, start.payload_version or kind.payload_version), start.options()
    except InvalidInput as error:
        prefix = "" if place is None else f"{place}."
        faults = [fault | {"field": f"{prefix}payload.{fault['field']}"} for fault in error.errors]
        message = error.message if place is None else f"job {place}: {error.message}"
        raise InvalidInput(message, code=error.code, errors=faults) from error


def _start(session: Session, caller: Identity, ready: list[tuple[Job, Options]]) -> Iterator[EnqueuedJob]:
    """Yield the rows in order; neighbours with the same options share their statements."""
    for _, same in groupby(ready, key=lambda pair: pair[1]):
        jobs = list(same)
        options: Options = {**jobs[0][1], "request_id": caller.request_id}
        yield from enqueue_many(session, [job for job, _ in jobs], tenant=caller.tenant, **options)


@router.get("/kinds", summary="List the kinds of job that you may start", responses={200: documented(KindPage)})
async def list_kinds(caller: KindCaller) -> dict[str, Any]:
    """Each kind as its definition describes it; `schema` is the JSON Schema of its payload."""
    startable = [kind for name in kinds() if (kind := definition(name)) is not None and may_start(caller, kind)]
    return {"data": [_kind_view(kind) for kind in startable], "next_cursor": None, "has_more": False}


def _kind_view(kind: type[Job]) -> dict[str, Any]:
    return {
        "kind": kind.kind,
        "description": (kind.__doc__ or "").strip() or None,
        "queue": kind.queue,
        "priority": kind.priority,
        "open_to": kind.open_to,
        "max_attempts": tries_of(kind),
        "time_limit_s": kind.time_limit_s,
        "payload_version": kind.payload_version,
        "unique": _uniqueness(kind),
        "stages": list(kind.stages),
        "schema": _schema(kind),
    }


@lru_cache(maxsize=1000)
def _schema(kind: type[Job]) -> dict[str, Any] | None:
    """Return the JSON Schema of the payload, None if JSON Schema cannot describe it; it is checked in any case."""
    try:
        return kind.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return None


def _uniqueness(kind: type[Job]) -> dict[str, Any] | None:
    match kind.unique:
        case Throttle(seconds):
            return {"mode": "throttle", "seconds": seconds}
        case Debounce(seconds, max_wait_s):
            return {"mode": "debounce", "seconds": seconds, "max_wait_s": max_wait_s}
    return None if kind.unique_key is None else {"mode": "while_open"}
