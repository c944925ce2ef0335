"""Index generations over HTTP: what there is, and the jobs that build, compare, swap and drop one; for operators."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.audit import note
from app.api.http.auth import Identity, Operator
from app.api.http.idempotency import Answer, Idempotent, IdempotentRequest
from app.api.http.responses import answer_of, answered
from app.core.clock import moment
from app.core.db import read
from app.jobs.definition import Job
from app.jobs.ledger.enqueue import enqueue
from app.search.index import generations
from app.search.jobs import BuildGeneration, CompareGenerations, DropGeneration, SwapGeneration

router = APIRouter(prefix="/api/index", tags=["search"])

Name = Annotated[str, Field(min_length=1, max_length=200)]


class Compared(BaseModel):
    """Two generations, and what both are asked; without queries the newest titles are."""

    model_config = ConfigDict(extra="forbid")

    first: Name
    second: Name
    queries: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=200)] = []
    limit: Annotated[int, Field(ge=1, le=100)] = 10


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name


@router.get("/generations", summary="The models whose vectors are kept, the one that is searched first")
async def list_generations(caller: Operator) -> dict[str, Any]:
    return {"data": await read(_views)}


@router.post("/generations/build", summary="Make the next embedder's vectors beside those in use", status_code=202)
async def build(request: Request, caller: Operator, once: Idempotent) -> Response:
    return await _started(request, caller, once, BuildGeneration())


@router.post("/generations/compare", summary="Ask two generations the same questions", status_code=202)
async def compare(request: Request, caller: Operator, once: Idempotent, body: Compared) -> Response:
    """The job's result: how many of the documents shown are the same, and how long each took."""
    job = CompareGenerations(first=body.first, second=body.second, queries=tuple(body.queries), limit=body.limit)
    return await _started(request, caller, once, job)


@router.post("/generations/swap", summary="Search this generation from now on", status_code=202)
async def swap(request: Request, caller: Operator, once: Idempotent, body: Named) -> Response:
    """The one before is kept, and gets the vectors of what is written, until it is dropped."""
    return await _started(request, caller, once, SwapGeneration(name=body.name))


@router.post("/generations/rollback", summary="Search the generation before again", status_code=202)
async def rollback(request: Request, caller: Operator, once: Idempotent) -> Response:
    return await _started(request, caller, once, SwapGeneration())


@router.post("/generations/drop", summary="Delete the vectors of a generation that is not searched", status_code=202)
async def drop(request: Request, caller: Operator, once: Idempotent, body: Named) -> Response:
    return await _started(request, caller, once, DropGeneration(name=body.name))


async def _started(request: Request, caller: Identity, once: IdempotentRequest, job: Job) -> Response:
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

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


def _views(session: Session) -> list[dict[str, Any]]:
    known = {row.name: row for row in generations.rows(session)}
    shown = []
    for place, model in enumerate(generations.live(session)):
        row = known.get(model.generation)
        state = row.state if row is not None else "active" if place == 0 else "building"
        changed = None if row is None else moment(row.changed_at)
        shown.append({"name": model.generation, "dimension": model.dimension, "state": state, "changed_at": changed})
    return shown
