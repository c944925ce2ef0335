"""Starting jobs over HTTP: any kind whose definition is open to callers, one or a list; and which kinds there are."""

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

from app.api.http.auth import Identity, KindCaller
from app.api.http.idempotency import OnceOnly
from app.api.http.responses import answer_of, answered
from app.api.http.times import utc
from app.core import clock
from app.core.errors import InvalidInput, NotAllowed
from app.deliveries.webhooks import check_url
from app.jobs.definition import MAX_PRIORITY, Debounce, Job, Throttle, definition, kinds
from app.jobs.enqueued import EnqueuedJob
from app.jobs.idempotency import Answer
from app.jobs.ledger import views
from app.jobs.ledger.enqueue import Options, enqueue_many, tries_of
from app.jobs.ledger.unique import MAX_KEY_LENGTH
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["jobs"])

MOST_AT_ONCE = 1000
LONGEST_URL = 2000
LARGEST_VERSION = 2**31 - 1


class StartRequest(BaseModel):
    """One job to start."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, Field(max_length=100)]
    payload: dict[str, Any] = Field({}, description="What the kind's schema says; `GET /api/kinds` shows it.")
    payload_version: Annotated[int, Field(ge=1, le=LARGEST_VERSION)] | None = Field(
        None, description="Of an older form of the payload; by default the newest."
    )
    due_at: datetime | None = Field(None, description="Not before this.")
    expires_at: datetime | None = Field(None, description="Not after this; then it fails as `expired`.")
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = Field(
        None, description="Higher goes first within the queue; by default the kind's own."
    )
    unique_key: Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH)] | None = Field(
        None,
        description="While a job of the kind with this key is open, that one is returned; only for kinds without one.",
    )
    on_conflict: Literal["return", "raise"] = Field("return", description="`raise`: 409 where the key is held.")
    webhook_url: Annotated[str, Field(max_length=LONGEST_URL, pattern=r"^https?://[!-~]+$")] | None = Field(
        None, description="Where the job's end is told."
    )

    def options(self) -> Options:
        """Raises InvalidInput for times that make no sense and for an address that webhooks may not go to."""
        if self.webhook_url is not None:
            check_url(self.webhook_url)
        expires_at = utc(self.expires_at, "expires_at")
        if expires_at is not None and expires_at <= clock.now():
            raise InvalidInput("expires_at: this time is over", code="expires_at")
        due_at = utc(self.due_at, "due_at")
        if expires_at is not None and due_at is not None and expires_at <= due_at:
            raise InvalidInput("expires_at: is not after due_at", code="expires_at")
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
    | Annotated[list[StartRequest], Field(min_length=1, max_length=MOST_AT_ONCE), Tag("list")],
    Discriminator(_one_or_many),
]


@router.post(
    "/jobs",
    summary="Start a job, or up to 1,000 in one transaction",
    status_code=202,
    responses={
        200: {"description": "The ended job: of a throttled key, or where the caller waited."},
        202: {"description": "The job, and its address in `Location`; for a list `{data: [job, …]}` in its order."},
    },
)
async def start_jobs(request: Request, caller: KindCaller, once: OnceOnly, body: Starts) -> Response:
    """All of a list are started, or none. A job whose `unique_key` is held is the one that holds it."""
    asked = body if isinstance(body, list) else [body]
    ready = [_checked(caller, one, number if isinstance(body, list) else None) for number, one in enumerate(asked)]

    def work(session: Session) -> Answer:
        rows = list(_start(session, caller, ready))
        if not isinstance(body, list):
            return answer_of(rows[0])
        return Answer(202, {"data": [views.job_view(row) for row in rows]})

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


def _checked(caller: Identity, asked: StartRequest, place: int | None) -> tuple[Job, Options]:
    """The payload as its definition has it, and the options. `place` is named in faults of a list."""
    try:
        kind = open_kind(caller, asked.kind)
        if asked.unique_key is not None and (kind.unique_key is not None or kind.unique is not None):
            raise InvalidInput(f"unique_key: {kind.kind} has one of its own", code="unique_key")
        return kind.load(asked.payload, asked.payload_version or kind.payload_version), asked.options()
    except InvalidInput as error:
        prefix = "" if place is None else f"{place}."
        faults = [fault | {"field": f"{prefix}payload.{fault['field']}"} for fault in error.errors]
        message = error.message if place is None else f"job {place}: {error.message}"
        raise InvalidInput(message, code=error.code, errors=faults) from error


def open_kind(caller: Identity, name: str) -> type[Job]:
    """Raises InvalidInput for a kind that is unknown here, NotAllowed for one that this caller may not start."""
    kind = definition(name)
    if kind is None:
        raise InvalidInput(f"kind: {name!r} is unknown here; GET /api/kinds lists them", code="kind_unknown")
    if kind.open_to is None:
        raise NotAllowed(f"{name} is started by the program alone", code="kind_closed")
    if not may_start(caller, kind):
        raise NotAllowed(f"this key may not start jobs of kind {name}", code="scope_missing")
    return kind


def may_start(caller: Identity, kind: type[Job]) -> bool:
    """Whether the caller has the scope that the definition asks for, or one for this kind."""
    if kind.open_to is None:
        return False
    return caller.may(kind.open_to) or scopes.among(kind.kind, scopes.names(caller.scopes, "kind"))


def _start(session: Session, caller: Identity, ready: list[tuple[Job, Options]]) -> Iterator[EnqueuedJob]:
    """The rows in order; neighbours with the same options share their statements."""
    for _, same in groupby(ready, key=lambda one: one[1]):
        jobs = list(same)
        options: Options = {**jobs[0][1], "request_id": caller.request_id}
        yield from enqueue_many(session, [job for job, _ in jobs], tenant=caller.tenant, **options)


@router.get("/kinds", summary="The kinds of job that you may start, with their JSON schemas")
async def list_kinds(caller: KindCaller) -> dict[str, Any]:
    """What its definition says of each: `schema` is that of its payload."""
    found = [kind for name in kinds() if (kind := definition(name)) is not None and may_start(caller, kind)]
    return {"data": [_kind_view(kind) for kind in found], "next_cursor": None, "has_more": False}


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
    """None for a payload that JSON Schema cannot describe; it is checked all the same."""
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
