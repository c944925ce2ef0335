"""Delete many documents by a filter, or take them out of their collection, in batches, as a job.

Only documents that existed when the job was requested are changed. A job that runs again continues with the rest.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.documents import catalog
from app.documents.catalog import DocumentFilter
from app.documents.jobs import DeleteDocuments, DocumentSelection
from app.documents.models import Collection, Document
from app.jobs.ledger import child_counts, claims
from app.jobs.ledger.claims import Claim
from app.jobs.models import BulkRow, JobRow
from app.jobs.states import OPEN
from app.jobs.worker.progress import Progress

BATCH = 50
SAMPLE = 10


def check_selection(selection: DocumentSelection) -> DocumentSelection:
    """Return the selection. Raises InvalidInput if it names no condition."""
    if not selection.model_dump(exclude_defaults=True):
        raise InvalidInput("filter: name at least one condition", code="filter")
    return selection


def preview(session: Session, tenant: str, job: DeleteDocuments) -> dict[str, Any]:
    """Count the documents that the job would change, and show a sample of them."""
    conditions = _matching(session, tenant, job)
    some = session.scalars(sa.select(Document).where(*conditions).order_by(Document.id).limit(SAMPLE))
    return {"matched": _left(session, conditions), "sample": [catalog.document_view(row) for row in some]}


async def delete_documents(job: DeleteDocuments, progress: Progress) -> dict[str, Any]:
    """Return {deleted} or {kept}: the number of documents."""
    done, left = await read(_so_far, progress.claim, job)
    total = done + left
    progress.report(done, total, unit="documents")
    more = True
    while more:
        done, more = await in_transaction(_step, progress.claim, job)
        progress.report(done, max(total, done), unit="documents")
    return {"kept" if job.keep else "deleted": done}


def _matching(session: Session, tenant: str, job: DeleteDocuments) -> list[sa.ColumnElement[bool]]:
    filter_ = DocumentFilter(**job.wanted.model_dump())
    return [*catalog.conditions(session, tenant, filter_), Document.created_at <= job.asked_at]


def _left(session: Session, conditions: list[sa.ColumnElement[bool]]) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Document).where(*conditions)) or 0


def _so_far(session: Session, claim: Claim, job: DeleteDocuments) -> tuple[int, int]:
    row = session.get(BulkRow, claim.id)
    return (row.done if row else 0), _left(session, _matching(session, claim.tenant, job))


def _step(session: Session, claim: Claim, job: DeleteDocuments) -> tuple[int, bool]:
    """Process one batch and its count in one transaction; return the total, and True if there may be more."""
    query = sa.select(Document.id).where(*_matching(session, claim.tenant, job)).order_by(Document.id).limit(BATCH)
    ids = list(session.scalars(query))
    open_jobs = sa.select(JobRow.id).where(
        JobRow.tenant == claim.tenant, JobRow.document_id.in_(ids), JobRow.state.in_(OPEN)
    )
    # In the order of their ids, this job's id included: all code that locks jobs uses this order.
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
    """Delete the collection, unless documents were added to it after the request."""
    held = sa.exists().where(Document.tenant == tenant, Document.collection_id == collection_id)
    mine = (Collection.tenant == tenant, Collection.id == collection_id)
    session.execute(sa.delete(Collection).where(*mine, ~held))
