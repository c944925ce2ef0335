"""Workers over HTTP: list them, and pause, resume or drain one; for operators."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session

from app.api.http.audit import note
from app.api.http.auth import Identity, Operator
from app.api.http.paging import ListQuery, Paging
from app.api.models.base import documented
from app.api.models.workers import WorkerPage, WorkerState, WorkerSummary
from app.core.db import in_transaction, read
from app.jobs.ledger import workers as worker_ledger
from app.jobs.ledger.workers import ALIVE

router = APIRouter(prefix="/api", tags=["workers"])

WORKER: dict[int | str, dict[str, Any]] = {200: documented(WorkerSummary)}
WorkerId = Annotated[str, Path(max_length=64)]


@router.get("/workers", summary="List workers, the newest first", responses={200: documented(WorkerPage)})
async def list_workers(
    caller: Operator,
    paging: Paging,
    state: Annotated[list[WorkerState] | None, Query(description="By default running, paused and draining.")] = None,
) -> dict[str, Any]:
    return await read(_page_of_workers, paging, tuple(state or ALIVE))


def _page_of_workers(session: Session, paging: ListQuery, states: tuple[str, ...]) -> dict[str, Any]:
    before_id = paging.after_uuid()
    workers = worker_ledger.list_workers(session, states=states, limit=paging.limit + 1, before_id=before_id)
    return paging.cut(workers, lambda worker: worker, lambda worker: [worker["id"]])


@router.post("/workers/{worker_id}/pause", summary="Stop a worker from taking jobs", responses=WORKER)
async def pause_worker(caller: Operator, worker_id: WorkerId) -> dict[str, Any]:
    """It finishes its running jobs. Jobs that it has claimed and not started go to other workers at once."""
    return await in_transaction(_order, caller, worker_id, "pause")


@router.post("/workers/{worker_id}/resume", summary="Let a paused worker take jobs again", responses=WORKER)
async def resume_worker(caller: Operator, worker_id: WorkerId) -> dict[str, Any]:
    return await in_transaction(_order, caller, worker_id, "resume")


@router.post("/workers/{worker_id}/drain", summary="Let a worker finish its jobs, and then exit", responses=WORKER)
async def drain_worker(caller: Operator, worker_id: WorkerId) -> dict[str, Any]:
    """There is no time limit for its jobs. A supervisor that keeps workers running then starts a new one."""
    return await in_transaction(_order, caller, worker_id, "drain")


def _order(session: Session, caller: Identity, worker_id: str, order: worker_ledger.Order) -> dict[str, Any]:
    worker = worker_ledger.order(session, worker_id, order)
    note(session, caller, f"worker.{order}", worker_id, tenant=caller.tenant)
    return worker
