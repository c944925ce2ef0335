"""Routes for operators: index generations, and the jobs that build, compare, swap and drop one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.audit import note
from app.api.http.auth import Identity, Operator
from app.api.http.idempotency import Answer, Idempotent, IdempotentRequest
from app.api.http.responses import answer_of, answered
from app.api.models.base import documented
from app.api.models.jobs import JOB_ACCEPTED
from app.api.models.search import GenerationList
from app.core.clock import moment
from app.core.db import read
from app.jobs.definition import Job
from app.jobs.ledger.enqueue import enqueue
from app.search.index import generations
from app.search.jobs import BuildGeneration, CompareGenerations, DropGeneration, SwapGeneration

router = APIRouter(prefix="/api/index", tags=["search"])

Name = Annotated[str, Field(min_length=1, max_length=200)]


class CompareRequest(BaseModel):
    """Two generations and the queries for both; by default the newest titles are the queries."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"first": "wordllama/256", "second": "tei/model/1024", "queries": ["rotate a key"], "limit": 10}
            ]
        },
    )

    first: Name
    second: Name
    queries: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=200)] = []
    limit: Annotated[int, Field(ge=1, le=100)] = 10


class GenerationRequest(BaseModel):
    """A generation by name."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "wordllama/256"}]})

    name: Name


@router.get(
    "/generations",
    summary="List the generations of the index, the one in use first",
    responses={200: documented(GenerationList)},
)
async def list_generations(caller: Operator) -> dict[str, Any]:
    return {"data": await read(_views)}


@router.post(
    "/generations/build",
    summary="Build a generation with the next embedder, next to the one in use",
    status_code=202,
    responses=JOB_ACCEPTED,
)
async def build_generation(request: Request, caller: Operator, once: Idempotent) -> Response:
    return await _start(request, caller, once, BuildGeneration())


@router.post(
    "/generations/compare",
    summary="Run the same queries on two generations",
    status_code=202,
    responses=JOB_ACCEPTED,
)
async def compare_generations(request: Request, caller: Operator, once: Idempotent, body: CompareRequest) -> Response:
    """Starts a job. Its result has the share of equal documents and the duration of each query."""
    job = CompareGenerations(first=body.first, second=body.second, queries=tuple(body.queries), limit=body.limit)
    return await _start(request, caller, once, job)


@router.post(
    "/generations/swap",
    summary="Switch searches to a generation",
    status_code=202,
    responses=JOB_ACCEPTED,
)
async def swap_generation(request: Request, caller: Operator, once: Idempotent, body: GenerationRequest) -> Response:
    """The previous generation stays up to date until it is dropped."""
    return await _start(request, caller, once, SwapGeneration(name=body.name))


@router.post(
    "/generations/rollback",
    summary="Switch searches back to the previous generation",
    status_code=202,
    responses=JOB_ACCEPTED,
)
async def roll_back_generation(request: Request, caller: Operator, once: Idempotent) -> Response:
    return await _start(request, caller, once, SwapGeneration())


@router.post(
    "/generations/drop",
    summary="Delete the vectors of a generation that is not in use",
    status_code=202,
    responses=JOB_ACCEPTED,
)
async def drop_generation(request: Request, caller: Operator, once: Idempotent, body: GenerationRequest) -> Response:
    return await _start(request, caller, once, DropGeneration(name=body.name))


async def _start(request: Request, caller: Identity, once: IdempotentRequest, job: Job) -> Response:
    def work(session: Session) -> Answer:
        row = enqueue(session, job, tenant=caller.tenant, request_id=caller.request_id)
        note(
            session,
            caller,
            job.kind,
            row.id,
            tenant=caller.tenant,
            **job.model_dump(mode="json", exclude_defaults=True),
        )
        return answer_of(row)

    return await answered(request, caller.tenant, await once.run(caller, work))


def _views(session: Session) -> list[dict[str, Any]]:
    known = {row.name: row for row in generations.rows(session)}
    views = []
    for position, model in enumerate(generations.live(session)):
        row = known.get(model.generation)
        state = row.state if row is not None else "active" if position == 0 else "building"
        changed = None if row is None else moment(row.changed_at)
        views.append({"name": model.generation, "dimension": model.dimension, "state": state, "changed_at": changed})
    return views
