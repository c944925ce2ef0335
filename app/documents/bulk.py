"""Many documents at once: deleted, or taken out of their collection, by a filter, in batches, as a job of its own.

Only what was there when it was asked for is touched; run again after a crash, it goes on with what is left.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.documents import catalog
from app.documents.catalog import DocumentFilter
from app.documents.jobs import DeleteDocuments, WantedDocuments
from app.documents.models import Collection, Document
from app.jobs.ledger import child_counts, claims
from app.jobs.ledger.claims import Claim
from app.jobs.models import BulkRow, JobRow
from app.jobs.states import OPEN
from app.jobs.worker.progress import Progress

BATCH = 50
SAMPLE = 10


def checked(wanted: WantedDocuments) -> WantedDocuments:
    """The same. Raises InvalidInput for one that names nothing."""
    if not wanted.model_dump(exclude_defaults=True):
        raise InvalidInput("filter: name at least one condition", code="filter")
    return wanted


def preview(session: Session, tenant: str, job: DeleteDocuments) -> dict[str, Any]:
    """How many it would touch, and some of them."""
    found = _matching(session, tenant, job)
    some = session.scalars(sa.select(Document).where(*found).order_by(Document.id).limit(SAMPLE))
    return {"matched": _left(session, found), "sample": [catalog.document_view(row) for row in some]}


async def delete_documents(job: DeleteDocuments, progress: Progress) -> dict[str, Any]:
    """{deleted} or {kept}: how many documents there were."""
    done, left = await read(_so_far, progress.claim, job)
    total = done + left
    progress.report(done, total, unit="documents")
    more = True
    while more:
        done, more = await in_transaction(_step, progress.claim, job)
        progress.report(done, max(total, done), unit="documents")
    return {"kept" if job.keep else "deleted": done}


def _matching(session: Session, tenant: str, job: DeleteDocuments) -> list[sa.ColumnElement[bool]]:
    wanted = DocumentFilter(**job.wanted.model_dump())
    return [*catalog.conditions(session, tenant, wanted), Document.created_at <= job.asked_at]


def _left(session: Session, found: list[sa.ColumnElement[bool]]) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Document).where(*found)) or 0


def _so_far(session: Session, claim: Claim, job: DeleteDocuments) -> tuple[int, int]:
    row = session.get(BulkRow, claim.id)
    return (row.done if row else 0), _left(session, _matching(session, claim.tenant, job))


def _step(session: Session, claim: Claim, job: DeleteDocuments) -> tuple[int, bool]:
    """One batch and the count with it, in one transaction; whether there may be more."""
    query = sa.select(Document.id).where(*_matching(session, claim.tenant, job)).order_by(Document.id).limit(BATCH)
    ids = list(session.scalars(query))
    open_jobs = sa.select(JobRow.id).where(
        JobRow.tenant == claim.tenant, JobRow.document_id.in_(ids), JobRow.state.in_(OPEN)
    )
    # In the order of their ids, this job's own among them, as everybody locks.
    child_counts.lock(session, sorted([*session.scalars(open_jobs), claim.id]))
    claims.hold(session, claim)
    row = session.get(BulkRow, claim.id)
    if row is None:
        row = BulkRow(job_id=claim.id, done=0, refused=0)
        session.add(row)
    for document_id in ids:
        if job.keep:
            catalog.move(session, catalog.get(session, claim.tenant, str(document_id), lock=True), None)
        else:
            catalog.delete(session, claim.tenant, str(document_id))
    row.done += len(ids)
    more = len(ids) == BATCH
    if not more and job.collection_id is not None:
        _drop_collection(session, claim.tenant, job.collection_id)
    session.flush()
    return row.done, more


def _drop_collection(session: Session, tenant: str, collection_id: int) -> None:
    """Forget it, unless somebody has put a document there since it was asked for."""
    held = sa.exists().where(Document.tenant == tenant, Document.collection_id == collection_id)
    mine = (Collection.tenant == tenant, Collection.id == collection_id)
    session.execute(sa.delete(Collection).where(*mine, ~held))
