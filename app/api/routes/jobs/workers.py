"""Workers over HTTP: who runs jobs, and orders to one of them; for operators."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session

from app.api.http.audit import note
from app.api.http.auth import Identity, Operator
from app.api.http.paging import Page, Paging
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.core.ids import is_uuid
from app.jobs.ledger import fleet
from app.jobs.ledger.worker_rows import ALIVE

router = APIRouter(prefix="/api", tags=["workers"])

State = Literal["running", "paused", "draining", "stopped", "dead"]
WorkerId = Annotated[str, Path(max_length=64)]


@router.get("/workers", summary="List workers, the newest first")
async def list_workers(
    caller: Operator,
    paging: Paging,
    state: Annotated[list[State] | None, Query(description="By default those that live.")] = None,
) -> dict[str, Any]:
    return await read(_page_of_workers, paging, tuple(state or ALIVE))


def _page_of_workers(session: Session, paging: Page, states: tuple[str, ...]) -> dict[str, Any]:
    match paging.after:
        case None:
            before_id = None
        case [str(before_id)] if is_uuid(before_id):
            pass
        case _:
            raise InvalidInput("the cursor is not one of ours", code="cursor")
    found = fleet.list_workers(session, states=states, limit=paging.limit + 1, before_id=before_id)
    return paging.cut(found, lambda worker: worker, lambda worker: [worker["id"]])


@router.post("/workers/{worker_id}/pause", summary="Let a worker take no more jobs")
async def pause_worker(caller: Operator, worker_id: WorkerId) -> dict[str, Any]:
    """It finishes what runs; what it has claimed and not begun goes to others at once."""
    return await in_transaction(_order, caller, worker_id, "pause")


@router.post("/workers/{worker_id}/resume", summary="Let a paused worker take jobs again")
async def resume_worker(caller: Operator, worker_id: WorkerId) -> dict[str, Any]:
    return await in_transaction(_order, caller, worker_id, "resume")


@router.post("/workers/{worker_id}/drain", summary="Let a worker finish what runs, and then end")
async def drain_worker(caller: Operator, worker_id: WorkerId) -> dict[str, Any]:
    """It waits for its jobs however long they take; a supervisor that keeps workers alive then starts a fresh one."""
    return await in_transaction(_order, caller, worker_id, "drain")


def _order(session: Session, caller: Identity, worker_id: str, what: fleet.Order) -> dict[str, Any]:
    worker = fleet.order(session, worker_id, what)
    note(session, caller, f"worker.{what}", worker_id, tenant=caller.tenant)
    return worker
