"""What keeps Qdrant up to date: a job that reads what has changed in SQL and puts it there, or builds all of it anew.

How far it has read is kept in the collection itself, so that a restored or a lost one is noticed. A collection is built
beside the one in use and takes over its name when it is whole; a build that was interrupted goes on where it stood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.core.errors import NotFound, Snooze, Unavailable
from app.core.logging import get_logger
from app.jobs.ledger import claims
from app.jobs.worker.progress import Progress
from app.search.engines.base import Model
from app.search.engines.qdrant.writer import Building
from app.search.engines.source import IndexedDocument, changed, counter, documents
from app.search.models import Chunk, document
from app.search.text.analyzer import unpack

DOCUMENTS_AT_ONCE = 100
CHANGES_AT_ONCE = 200
WAIT_S = 5.0
# The usual length of a document is taken from so many, the newest; this where there are none.
SAMPLE = 200
USUAL_WORDS = 150.0

log = get_logger(__name__)


async def follow(model: Model, progress: Progress) -> dict[str, Any]:
    """{documents, built, change}: how many were written, whether all anew, and what the index has read now.

    Raises Snooze while Qdrant does not answer: the job waits, uncounted, and finishes when it is back.
    """
    try:
        return await _follow(model, progress)
    except Unavailable as error:
        log.warning("index_waits", reason=error.message)
        raise Snooze(error.retry_after_s or WAIT_S, error.message, code=error.code) from error
    except NotFound as error:  # somebody deleted the collection meanwhile: the next look finds what to do
        log.warning("index_gone", reason=error.message)
        raise Snooze(WAIT_S, error.message, code=error.code) from error


@dataclass(frozen=True, slots=True)
class _Step:
    """What is to be written next, read in one moment; `last` is the change it leads to."""

    value: int
    pruned: int
    last: int
    ids: list[int]
    documents: list[IndexedDocument]


async def _follow(model: Model, progress: Progress) -> dict[str, Any]:
    written, built = 0, False
    average = await read(usual_words)
    index = await Building.in_use(model)
    while True:
        await in_transaction(claims.hold, progress.claim)
        step = await read(_next, model.generation, 0 if index is None else index.change)
        if index is None or index.change < step.pruned:
            index, built = await _build(model, progress, average), True
            written += index.written
            continue
        if index.change >= step.value:
            await index.tidy()
            return {"documents": written, "built": built, "change": index.change}
        written += await index.put(step.ids, step.documents, average)
        await index.tell(change=step.last)
        progress.report(step.last, step.value, unit="changes", stage="follow")


async def _build(model: Model, progress: Progress, average: float) -> Building:
    """All documents in a new collection, which is then the one in use; what came meanwhile is followed after."""
    value, pruned = await read(counter)
    index = await Building.unfinished(model, pruned) or await Building.begin(model, change=value)
    log.info("index_build", collection=index.name, change=index.change, after=index.next)
    while True:
        await in_transaction(claims.hold, progress.claim)
        last, total, found = await read(_after, model.generation, index.next)
        if last is None:
            break
        await index.put([], found, average)
        await index.tell(next=last)
        progress.report(index.written, max(total, index.written), stage="build", unit="documents")
    await in_transaction(claims.hold, progress.claim)
    await index.take_over()
    log.info("index_built", collection=index.name, change=index.change, documents=index.written)
    return index


def _next(session: Session, generation: str, at: int) -> _Step:
    value, pruned = counter(session)
    if at < pruned:
        return _Step(value, pruned, at, [], [])
    ids, last = changed(session, at, most=CHANGES_AT_ONCE)
    return _Step(value, pruned, last if ids else value, ids, list(documents(session, generation, ids=ids)))


def _after(session: Session, generation: str, after: int) -> tuple[int | None, int, list[IndexedDocument]]:
    """The last of the next documents, how many there are in all, and these; None where there are no more."""
    indexed = document.c.indexed_at.is_not(None)
    query = sa.select(document.c.id).where(document.c.id > after, indexed).order_by(document.c.id)
    ids = list(session.scalars(query.limit(DOCUMENTS_AT_ONCE)))
    total = session.scalar(sa.select(sa.func.count()).select_from(document).where(indexed)) or 0
    return (ids[-1] if ids else None), total, list(documents(session, generation, ids=ids))


def usual_words(session: Session) -> float:
    """How many words a document has that are searched; what is longer counts each of them a little less."""
    newest = sa.select(Chunk.document_terms).where(Chunk.document_terms.is_not(None)).order_by(Chunk.id.desc())
    sizes = [float(unpack(terms)[1].sum()) for terms in session.scalars(newest.limit(SAMPLE)) if terms]
    return sum(sizes) / len(sizes) if sizes else USUAL_WORDS
