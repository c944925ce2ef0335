"""Verify that an index equals SQL: rows, vectors and postings of every document, compared one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.search.engine import engine
from app.search.engines.base import Engine, IndexedState, Model
from app.search.engines.source import counter, documents
from app.search.index.generations import active
from app.search.index.write import touch_document
from app.search.models import document
from app.search.text.analyzer import unpack

DOCUMENTS_AT_ONCE = 200
# An index may lag for a moment: differences are checked this many times before they are reported.
ATTEMPTS, PAUSE_S = 5, 1.0
MAX_REPORTED_IDS = 100
# The last range of ids extends beyond SQL's: an index may hold extra documents.
MAX_ID = 2**62


async def verify(progress: Progress, *, repair: bool = False) -> dict[str, Any]:
    """Return {engine, change, documents, chunks, vectors, postings, missing, extra, different, repaired, ok}.

    The counts are SQL's; missing, extra and different are ids of documents, the first hundred of each. A document is
    different if its chunks, its chunks with a vector, or its number of terms differ. `repair` writes these documents
    again. Raises Unavailable if the engine does not answer.
    """
    opened, searched = await asyncio.to_thread(engine), await active()
    value, _ = await read(counter)
    report: dict[str, Any] = {"engine": opened.name, "change": value, "documents": 0, "chunks": 0, "vectors": 0}
    report |= {"postings": 0, "missing": [], "extra": [], "different": [], "repaired": 0}
    places = await read(_tenants)
    total = sum(count for _, count in places)
    for tenant, _ in places:
        last = -1
        while last < MAX_ID:
            first, last, rows = await read(_rows, searched, tenant, last + 1)
            faults = await _faults(opened, searched, tenant, first, last, rows)
            report["documents"] += len(rows)
            report["chunks"] += sum(len(held.chunks) for held in rows.values())
            report["vectors"] += sum(len(held.vectors) for held in rows.values())
            report["postings"] += sum(held.terms for held in rows.values())
            for name, ids in faults.items():
                report[name] += ids
            wrong = [document_id for ids in faults.values() for document_id in ids]
            report["repaired"] += await in_transaction(_repair, progress.claim, tenant, wrong if repair else [])
            progress.report(report["documents"], max(total, report["documents"]), unit="documents")
    report["ok"] = not (report["missing"] or report["extra"] or report["different"])
    samples = {
        name: [str(key) for key in report[name][:MAX_REPORTED_IDS]] for name in ("missing", "extra", "different")
    }
    return report | samples


async def _faults(
    opened: Engine, searched: Model, tenant: str, first: int, last: int, rows: Mapping[int, IndexedState]
) -> dict[str, list[int]]:
    for look in range(ATTEMPTS):
        if look:
            await asyncio.sleep(PAUSE_S)
            rows = (await read(_rows, searched, tenant, first, last))[2]
        there = await opened.held(tenant, searched, first, last)
        faults = {
            "missing": sorted(rows.keys() - there.keys()),
            "extra": sorted(there.keys() - rows.keys()),
            "different": sorted(key for key in rows.keys() & there.keys() if rows[key] != there[key]),
        }
        if not any(faults.values()):
            break
    return faults


def _tenants(session: Session) -> list[tuple[str, int]]:
    """Return each tenant with its number of documents that have chunks."""
    query = sa.select(document.c.tenant, sa.func.count(document.c.indexed_at)).group_by(document.c.tenant)
    return [(tenant, count) for tenant, count in session.execute(query.order_by(document.c.tenant))]


def _rows(
    session: Session, searched: Model, tenant: str, first: int, last: int | None = None
) -> tuple[int, int, dict[int, IndexedState]]:
    """Return the first and last id of the range, and the state of its documents in SQL."""
    query = sa.select(document.c.id).where(document.c.tenant == tenant, document.c.id >= first)
    if last is None:
        ids = list(session.scalars(query.order_by(document.c.id).limit(DOCUMENTS_AT_ONCE)))
        last = ids[-1] if len(ids) == DOCUMENTS_AT_ONCE else MAX_ID
    else:
        ids = list(session.scalars(query.where(document.c.id <= last)))
    return (
        first,
        last,
        {
            row.id: IndexedState(
                frozenset(chunk.id for chunk in row.chunks),
                frozenset(chunk.id for chunk in row.chunks if chunk.vector is not None and any(chunk.vector)),
                len(unpack(row.terms)[0]),
            )
            for row in documents(session, searched.generation, tenant=tenant, ids=ids)
        },
    )


def _repair(session: Session, claim: Claim, tenant: str, wrong: list[int]) -> int:
    """Record a change of these documents, so that engines write them again; return their number."""
    claims.hold(session, claim)
    for document_id in wrong:
        touch_document(session, tenant=tenant, document_id=document_id)
    return len(wrong)
