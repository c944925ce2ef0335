"""Read files again whose pictures could not be read: tesseract may have been installed since."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import in_transaction
from app.documents.accept import uploads
from app.documents.extract import ocr
from app.documents.models import Document
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.models import JobRow
from app.jobs.states import OPEN
from app.jobs.worker.progress import Progress

DOCUMENTS_AT_ONCE = 100


async def read_scans(progress: Progress) -> dict[str, Any]:
    """Return {documents}: the number of files that are read again; none if this worker has no tesseract."""
    count, after = 0, 0
    while ocr.is_installed():
        ids = await in_transaction(_reprocess, progress.claim, after)
        if not ids:
            break
        count, after = count + len(ids), ids[-1]
        progress.report(count, unit="documents")
    return {"documents": count}


def _reprocess(session: Session, claim: Claim, after: int) -> list[int]:
    """Queue one batch of documents above this id; return their ids. A document with an open job is left out."""
    claims.hold(session, claim)
    is_open = sa.exists().where(JobRow.document_id == Document.id, JobRow.state.in_(OPEN))
    query = (
        sa.select(Document)
        .where(
            Document.id > after, Document.version_id.is_not(None), Document.meta["ocr_missing"].as_boolean(), ~is_open
        )
        .order_by(Document.id)
        .limit(DOCUMENTS_AT_ONCE)
        .with_for_update()
    )
    documents = list(session.scalars(query))
    for document in documents:
        uploads.reprocess(session, document, request_id=claim.request_id)
    return [document.id for document in documents]
