"""Proof that an index holds what SQL says: every document's rows, vectors and postings, compared one by one."""

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
from app.search.engines.base import Engine, Held, Model
from app.search.engines.source import counter, documents
from app.search.index.generations import active
from app.search.index.write import touch_document
from app.search.models import document
from app.search.text.analyzer import unpack

DOCUMENTS_AT_ONCE = 200
# An index that follows is behind for a moment: what differs is looked at again so often before it is told.
LOOKS, PAUSE_S = 5, 1.0
MOST_TOLD = 100
# The last range of ids ends above all that SQL has: an index may have more.
LARGEST_ID = 2**62


async def verify(progress: Progress, *, repair: bool = False) -> dict[str, Any]:
    """{engine, change, documents, chunks, vectors, postings, missing, extra, different, repaired, ok}.

    The counts are SQL's; missing, extra and different are ids of documents, the first hundred of each. A document is
    different where its chunks, those with a vector, or the number of its terms are not the same. `repair` has those
    written again. Raises Unavailable where the engine does not answer.
    """
    opened, searched = await asyncio.to_thread(engine), await active()
    value, _ = await read(counter)
    said: dict[str, Any] = {"engine": opened.name, "change": value, "documents": 0, "chunks": 0, "vectors": 0}
    said |= {"postings": 0, "missing": [], "extra": [], "different": [], "repaired": 0}
    places = await read(_tenants)
    total = sum(count for _, count in places)
    for tenant, _ in places:
        last = -1
        while last < LARGEST_ID:
            first, last, rows = await read(_rows, searched, tenant, last + 1)
            faults = await _faults(opened, searched, tenant, first, last, rows)
            said["documents"] += len(rows)
            said["chunks"] += sum(len(held.chunks) for held in rows.values())
            said["vectors"] += sum(len(held.vectors) for held in rows.values())
            said["postings"] += sum(held.terms for held in rows.values())
            for name, ids in faults.items():
                said[name] += ids
            wrong = [document_id for ids in faults.values() for document_id in ids]
            said["repaired"] += await in_transaction(_held, progress.claim, tenant, wrong if repair else [])
            progress.report(said["documents"], max(total, said["documents"]), unit="documents")
    said["ok"] = not (said["missing"] or said["extra"] or said["different"])
    told = {name: [str(key) for key in said[name][:MOST_TOLD]] for name in ("missing", "extra", "different")}
    return said | told


async def _faults(
    opened: Engine, searched: Model, tenant: str, first: int, last: int, rows: Mapping[int, Held]
) -> dict[str, list[int]]:
    for look in range(LOOKS):
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
    """Each tenant, and how many documents with chunks it has."""
    query = sa.select(document.c.tenant, sa.func.count(document.c.indexed_at)).group_by(document.c.tenant)
    return [(tenant, count) for tenant, count in session.execute(query.order_by(document.c.tenant))]


def _rows(
    session: Session, searched: Model, tenant: str, first: int, last: int | None = None
) -> tuple[int, int, dict[int, Held]]:
    """From which id to which, and the documents between as SQL has them."""
    query = sa.select(document.c.id).where(document.c.tenant == tenant, document.c.id >= first)
    if last is None:
        ids = list(session.scalars(query.order_by(document.c.id).limit(DOCUMENTS_AT_ONCE)))
        last = ids[-1] if len(ids) == DOCUMENTS_AT_ONCE else LARGEST_ID
    else:
        ids = list(session.scalars(query.where(document.c.id <= last)))
    return (
        first,
        last,
        {
            one.id: Held(
                frozenset(chunk.id for chunk in one.chunks),
                frozenset(chunk.id for chunk in one.chunks if chunk.vector is not None and any(chunk.vector)),
                len(unpack(one.terms)[0]),
            )
            for one in documents(session, searched.generation, tenant=tenant, ids=ids)
        },
    )


def _held(session: Session, claim: Claim, tenant: str, wrong: list[int]) -> int:
    """Say of these documents that they have changed, so that they are written again; how many."""
    claims.hold(session, claim)
    for document_id in wrong:
        touch_document(session, tenant=tenant, document_id=document_id)
    return len(wrong)
