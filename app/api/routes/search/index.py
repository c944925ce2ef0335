"""The index of search over HTTP: how far it is, the proof that it is whole, and building it anew; for operators."""

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
from app.jobs.ledger.enqueue import enqueue
from app.jobs.schedules.store import DEFAULT_TENANT
from app.search.engine import engine
from app.search.index import write
from app.search.index.generations import active
from app.search.jobs import FollowIndex, VerifyIndex

router = APIRouter(prefix="/api/index", tags=["search"])


class VerifyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    repair: bool = Field(False, description="Write again what is not the same.")


@router.get("/state", summary="Which engine answers, and how far behind it is")
async def state(caller: Operator) -> dict[str, Any]:
    """`behind`: changes it has not read, and the age of the first of them. The embedded engine is never behind."""
    opened, model = await asyncio.to_thread(engine), await active()
    lag = await opened.lag(model)
    behind = {"changes": lag.changes, "seconds": round(lag.seconds, 1)}
    return {"engine": opened.name, "model": model.generation, "dimension": model.dimension, "behind": behind}


@router.post("/verify", summary="Prove that rows, vectors and postings are the same", status_code=202)
async def verify(request: Request, caller: Operator, once: Idempotent, body: VerifyRequest | None = None) -> Response:
    """A job whose result lists the documents that are missing, too many or different."""
    repair = body is not None and body.repair

    def work(session: Session) -> Answer:
        row = enqueue(session, VerifyIndex(repair=repair), tenant=caller.tenant, request_id=caller.request_id)
        note(session, caller, "index.verify", row.id, tenant=caller.tenant, repair=repair)
        return answer_of(row)

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


@router.post("/rebuild", summary="Build the index anew; the one in use serves until it is whole", status_code=202)
async def rebuild(request: Request, caller: Operator, once: Idempotent) -> Response:
    """The job that does it. An embedded index is built anew by each process before its next answer."""

    def work(session: Session) -> Answer:
        write.force_rebuild(session)
        row = enqueue(session, FollowIndex(), tenant=DEFAULT_TENANT, request_id=caller.request_id)
        note(session, caller, "index.rebuild", row.id, tenant=caller.tenant)
        return answer_of(row)

    return await answered(request, DEFAULT_TENANT, await once.run(caller.tenant, work))
