"""Analyse again the documents whose terms another version of the analyzer made, after an update of the program.

Queries are analysed by this version only, so a search that may miss such documents says so until the job has ended.
Texts, vectors and versions stay; only terms are written, with a change of each document for the engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.core.logging import get_logger
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.enqueue import enqueue
from app.jobs.schedules.store import DEFAULT_TENANT
from app.jobs.worker.progress import Progress
from app.search.engines.source import has_outdated, outdated
from app.search.index.write import NewChunk, touch_document
from app.search.jobs import ReanalyzeDocuments
from app.search.models import Chunk, document, document_version
from app.search.text.analyzer import ANALYZER_VERSION, packed_terms, primary

DOCUMENTS_AT_ONCE = 20

log = get_logger(__name__)


def count_outdated(session: Session) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Chunk).where(outdated())) or 0


def request_reanalysis(session: Session) -> None:
    """Queue the job if it has something to do."""
    if has_outdated(session):
        enqueue(session, ReanalyzeDocuments(), tenant=DEFAULT_TENANT)


@dataclass(frozen=True, slots=True)
class _Outdated:
    """A document to analyse: the searched text of each chunk by its id, and the text of its version with the title."""

    id: int
    tenant: str
    version_id: int
    language: str | None
    chunks: dict[int, str]
    text: str


@dataclass(frozen=True, slots=True)
class _Analyzed:
    """The packed terms of a document and of its chunks, in the order of the chunks."""

    document: _Outdated
    chunks: list[bytes]
    whole: bytes


async def reanalyze(progress: Progress) -> dict[str, Any]:
    """Return {analyzer, documents, chunks}: what was analysed again. Can be killed and repeated."""
    documents, chunks, after = 0, 0, 0
    total = await read(count_outdated)
    progress.report(0, total, unit="chunks")
    while True:
        batch = await read(_next, after)
        if not batch and not after:
            log.info("documents_reanalyzed", analyzer=ANALYZER_VERSION, documents=documents)
            return {"analyzer": ANALYZER_VERSION, "documents": documents, "chunks": chunks}
        if not batch:  # once more from the first: ids may be committed out of order
            after = 0
            continue
        after = batch[-1].id
        analyzed = await asyncio.to_thread(lambda some: [_analyze(each) for each in some], batch)
        done = await in_transaction(_write, progress.claim, analyzed)
        documents, chunks = documents + len(analyzed), chunks + done
        progress.report(chunks, max(total, chunks))


def _next(session: Session, after: int) -> list[_Outdated]:
    ids = sa.select(Chunk.document_id).where(outdated(), Chunk.document_id > after).distinct()
    some = session.scalars(ids.order_by(Chunk.document_id).limit(DOCUMENTS_AT_ONCE)).all()
    return [_load(session, document_id) for document_id in some]


def _load(session: Session, document_id: int) -> _Outdated:
    query = sa.select(Chunk).where(Chunk.document_id == document_id).order_by(Chunk.ordinal)
    rows = session.scalars(query).all()
    first = rows[0]
    title = session.scalar(sa.select(document.c.title).where(document.c.id == document_id))
    text = session.scalar(sa.select(document_version.c.text).where(document_version.c.id == first.version_id))
    searched = {
        row.id: NewChunk.within(row.text, row.span_start, row.span_end, tuple(row.headings), title).searched
        for row in rows
    }
    text = "\n".join(row.text for row in rows) if text is None else text
    whole = f"{title}\n{text}" if title else text
    return _Outdated(document_id, first.tenant, first.version_id, first.language, searched, whole)


def _analyze(row: _Outdated) -> _Analyzed:
    chunks = [packed_terms(text, row.language) for text in row.chunks.values()]
    return _Analyzed(row, chunks, packed_terms(row.text, row.language))


def _write(session: Session, claim: Claim, analyzed: Sequence[_Analyzed]) -> int:
    """Write the terms of the documents that were not replaced since; return the number of chunks."""
    claims.hold(session, claim)
    # Before the chunks and the counter: the lock order of writers of documents.
    ids = [each.document.id for each in analyzed]
    session.execute(sa.select(document.c.id).where(document.c.id.in_(ids)).order_by(document.c.id).with_for_update())
    changed, count = [], 0
    for each in analyzed:
        written = 0
        for ordinal, (chunk_id, terms) in enumerate(zip(each.document.chunks, each.chunks, strict=True)):
            values: dict[str, Any] = {"terms": terms, "analyzer": ANALYZER_VERSION}
            values["language"] = primary(each.document.language)
            if ordinal == 0:
                values["document_terms"] = each.whole
            same = (Chunk.id == chunk_id, Chunk.version_id == each.document.version_id, outdated())
            updated = session.execute(sa.update(Chunk).where(*same).values(**values))
            written += updated.rowcount  # type: ignore[attr-defined]
        if written:
            changed.append(each.document)
            count += written
    for row in changed:
        touch_document(session, tenant=row.tenant, document_id=row.id)
    return count
