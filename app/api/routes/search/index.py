"""Routes for operators: the state of the search index, its verification and its rebuild."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.audit import note
from app.api.http.auth import Operator
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.responses import answer_of, answered
from app.api.models.base import documented
from app.api.models.jobs import JOB_ACCEPTED
from app.api.models.search import IndexStatus
from app.core.db import read
from app.jobs.ledger.enqueue import enqueue
from app.jobs.schedules.store import DEFAULT_TENANT
from app.search.engine import engine
from app.search.index import write
from app.search.index.generations import active
from app.search.index.reanalysis import count_outdated
from app.search.jobs import FollowIndex, VerifyIndex

router = APIRouter(prefix="/api/index", tags=["search"])


class VerifyRequest(BaseModel):
    """Options of the verification."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"repair": True}]})

    repair: bool = Field(False, description="Write the documents that differ again.")


@router.get(
    "/state", summary="Get the engine of the search index and its lag", responses={200: documented(IndexStatus)}
)
async def get_index_state(caller: Operator) -> dict[str, Any]:
    """`behind`: the number of unread changes and the age of the oldest. The embedded engine is never behind.

    `outdated`: the number of chunks that another version of the program analysed, and a job will analyse again.
    """
    opened, model = await asyncio.to_thread(engine), await active()
    lag = await opened.lag(model)
    behind = {"changes": lag.changes, "seconds": round(lag.seconds, 1)}
    return {
        "engine": opened.name,
        "model": model.generation,
        "dimension": model.dimension,
        "behind": behind,
        "outdated": await read(count_outdated),
    }


@router.post(
    "/verify",
    summary="Verify that rows, vectors and postings agree",
    status_code=202,
    responses=JOB_ACCEPTED,
)
async def verify_index(
    request: Request, caller: Operator, once: Idempotent, body: VerifyRequest | None = None
) -> Response:
    """Starts a job. Its result lists the documents that are missing, superfluous or different."""
    repair = body is not None and body.repair

    def work(session: Session) -> Answer:
        row = enqueue(session, VerifyIndex(repair=repair), tenant=caller.tenant, request_id=caller.request_id)
        note(session, caller, "index.verify", row.id, tenant=caller.tenant, repair=repair)
        return answer_of(row)

    return await answered(request, caller.tenant, await once.run(caller, work))


@router.post("/rebuild", summary="Rebuild the search index", status_code=202, responses=JOB_ACCEPTED)
async def rebuild_index(request: Request, caller: Operator, once: Idempotent) -> Response:
    """Starts a job; searches use the current index until the new one is complete. With the embedded engine, each
    process rebuilds its index before its next answer."""

    def work(session: Session) -> Answer:
        write.force_rebuild(session)
        row = enqueue(session, FollowIndex(), tenant=DEFAULT_TENANT, request_id=caller.request_id)
        note(session, caller, "index.rebuild", row.id, tenant=caller.tenant)
        return answer_of(row)

    return await answered(request, DEFAULT_TENANT, await once.run(caller, work))
