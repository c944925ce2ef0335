"""Keep Qdrant up to date: a job that writes the changes of SQL, or rebuilds the whole index.

The last change read is stored in the collection itself, so that a restored or lost collection is noticed. A collection
is built next to the one in use and takes over its alias when complete; an interrupted build continues.
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
from app.search.engines.qdrant.writer import QdrantWriter
from app.search.engines.source import IndexedDocument, changed, counter, documents, has_outdated
from app.search.models import Chunk, document
from app.search.text.analyzer import ANALYZER_VERSION, unpack

DOCUMENTS_AT_ONCE = 100
CHANGES_AT_ONCE = 200
WAIT_S = 5.0
# The usual length of a document is measured on this many of the newest; the second is used if there are none.
SAMPLE = 200
USUAL_WORDS = 150.0

log = get_logger(__name__)


async def follow(model: Model, progress: Progress) -> dict[str, Any]:
    """Return {documents, built, change}: documents written, whether everything was rebuilt, and the last change read.

    Raises Snooze while Qdrant does not answer: the job waits without counting an attempt.
    """
    try:
        return await _follow(model, progress)
    except Unavailable as error:
        log.warning("index_waits", reason=error.message)
        raise Snooze(error.retry_after_s or WAIT_S, error.message, code=error.code) from error
    except NotFound as error:  # the collection was deleted during the run: the next run finds out what to do
        log.warning("index_gone", reason=error.message)
        raise Snooze(WAIT_S, error.message, code=error.code) from error


@dataclass(frozen=True, slots=True)
class _Step:
    """The documents to write next, read in one transaction; `last` is the change reached by writing them.

    `analyzer` is the version of all terms in SQL at the change `value`, 0 if they are of several.
    """

    analyzer: int
    value: int
    pruned: int
    last: int
    ids: list[int]
    documents: list[IndexedDocument]


async def _follow(model: Model, progress: Progress) -> dict[str, Any]:
    written, built = 0, False
    average = await read(usual_words)
    index = await QdrantWriter.in_use(model)
    while True:
        await in_transaction(claims.hold, progress.claim)
        step = await read(_next, model.generation, 0 if index is None else index.change)
        if index is None or index.change < step.pruned:
            index, built = await _build(model, progress, average), True
            written += index.written
            continue
        if index.change >= step.value:
            if index.analyzer != step.analyzer:
                await index.save_marker(analyzer=step.analyzer)
            await index.tidy()
            return {"documents": written, "built": built, "change": index.change}
        written += await index.put(step.ids, step.documents, average)
        await index.save_marker(change=step.last)
        progress.report(step.last, step.value, unit="changes", stage="follow")


async def _build(model: Model, progress: Progress, average: float) -> QdrantWriter:
    """Write all documents to a new collection, then put it in use; changes during the build are followed afterwards."""
    value, pruned = await read(counter)
    index = await QdrantWriter.unfinished(model, pruned) or await QdrantWriter.begin(model, change=value)
    log.info("index_build", collection=index.name, change=index.change, after=index.next)
    while True:
        await in_transaction(claims.hold, progress.claim)
        last, total, batch = await read(_after, model.generation, index.next)
        if last is None:
            break
        await index.put([], batch, average)
        await index.save_marker(next=last)
        progress.report(index.written, max(total, index.written), stage="build", unit="documents")
    await in_transaction(claims.hold, progress.claim)
    await index.take_over()
    log.info("index_built", collection=index.name, change=index.change, documents=index.written)
    return index


def _next(session: Session, generation: str, at: int) -> _Step:
    # Before the counter: what was analysed before this read has a smaller number.
    analyzer = 0 if has_outdated(session) else ANALYZER_VERSION
    value, pruned = counter(session)
    if at < pruned:
        return _Step(analyzer, value, pruned, at, [], [])
    ids, last = changed(session, at, most=CHANGES_AT_ONCE)
    return _Step(analyzer, value, pruned, last if ids else value, ids, list(documents(session, generation, ids=ids)))


def _after(session: Session, generation: str, after: int) -> tuple[int | None, int, list[IndexedDocument]]:
    """Return the last id of the next documents, the total, and the documents; None at the end."""
    indexed = document.c.indexed_at.is_not(None)
    query = sa.select(document.c.id).where(document.c.id > after, indexed).order_by(document.c.id)
    ids = list(session.scalars(query.limit(DOCUMENTS_AT_ONCE)))
    total = session.scalar(sa.select(sa.func.count()).select_from(document).where(indexed)) or 0
    return (ids[-1] if ids else None), total, list(documents(session, generation, ids=ids))


def usual_words(session: Session) -> float:
    """Return the usual number of searched words of a document; in a longer one each word counts a little less."""
    newest = sa.select(Chunk.document_terms).where(Chunk.document_terms.is_not(None)).order_by(Chunk.id.desc())
    sizes = [float(unpack(terms)[1].sum()) for terms in session.scalars(newest.limit(SAMPLE)) if terms]
    return sum(sizes) / len(sizes) if any(sizes) else USUAL_WORDS
