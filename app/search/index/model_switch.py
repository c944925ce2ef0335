"""Switch from one embedding model to the next while search runs: build, compare, swap, swap back, drop.

Each step is a job that can be killed and repeated: its progress is stored in rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput, NotFound
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.search.embedders import next_embedder
from app.search.engine import engine
from app.search.engines.base import EngineRequest, Model, SearchResult
from app.search.index import generations
from app.search.index.write import NewChunk, pack_vectors, touch_document
from app.search.jobs import CompareGenerations, SwapGeneration
from app.search.models import Chunk, ChunkVector, IndexGeneration, document

CHUNKS_AT_ONCE = 64
ROWS_AT_ONCE = 2_000
QUERIES = 50
TENANT_QUERIES = 200


async def build(progress: Progress) -> dict[str, Any]:
    """Make the next embedder's vectors for all chunks, and an index of them: {generation, vectors, embedded}.

    Raises InvalidInput if the settings name no next embedder, Conflict if it is the searched one.
    """
    made = await asyncio.to_thread(next_embedder)
    if made is None:
        raise InvalidInput("MILLRACE_NEXT_EMBEDDER is not set", code="no_next_embedder")
    model = Model(made.name, made.dimension)
    await in_transaction(_begin, progress.claim, model)
    embedded = await _fill(model, progress)
    # An index left by an earlier attempt misses the vectors filled in since.
    await (await asyncio.to_thread(engine)).forget(model)
    await _follow(model, progress)
    await in_transaction(_ready, progress.claim, model.generation)
    vectors = await read(generations.count_vectors, model.generation)
    return {"generation": model.generation, "vectors": vectors, "embedded": embedded}


async def compare(job: CompareGenerations, progress: Progress) -> dict[str, Any]:
    """Compare semantic searches in both: {queries, limit, overlap, same_first, seconds {first, second}}.

    overlap: the mean share of documents that both show; same_first: the share of queries with the same best document.
    Raises NotFound for an unknown generation, or one that no embedder of the settings makes.
    """
    models = [await read(_model, name) for name in (job.first, job.second)]
    tenant = progress.claim.tenant
    queries = list(job.queries) or await read(_titles, tenant)
    shared, same, took = 0.0, 0, [0.0, 0.0]
    for number, text in enumerate(queries, start=1):
        document_ids: list[list[int]] = []
        for place, model in enumerate(models):
            began = clock.monotonic()
            vector = await generations.embedder_of(model).embed_query(text)
            ask = EngineRequest(tenant, text, vector, model, mode="semantic", limit=job.limit)
            document_ids.append(await engine().search(ask, _ids))
            took[place] += clock.monotonic() - began
        most = max(len(ids) for ids in document_ids)
        shared += len(set(document_ids[0]) & set(document_ids[1])) / most if most else 1.0
        same += document_ids[0][:1] == document_ids[1][:1]
        progress.report(number, len(queries), unit="queries")
    count = len(queries) or 1
    seconds = {"first": round(took[0] / count, 4), "second": round(took[1] / count, 4)}
    agreement = {"overlap": round(shared / count, 4), "same_first": round(same / count, 4), "seconds": seconds}
    return {"queries": len(queries), "limit": job.limit, **agreement}


async def swap(job: SwapGeneration, progress: Progress) -> dict[str, Any]:
    """Return {searched, kept}: the generation searched from now on, and the previous one.

    Vectors missing because the embedder was unavailable are filled in first. Raises NotFound, or Conflict if not built
    yet.
    """
    before = (await read(generations.live))[0].generation
    name = job.name if job.name is not None else await read(generations.last_kept)
    model = await read(_model, name)
    if name != before:
        await read(generations.check_swappable, name)
        while True:
            await _fill(model, progress)
            await _follow(model, progress)
            if await in_transaction(_swap, progress.claim, name):
                break
    return {"searched": name, "kept": before if name != before else None}


async def drop(name: str, progress: Progress) -> dict[str, Any]:
    """Return {dropped, vectors}: the number of deleted vectors. Raises NotFound, or Conflict for the searched one."""
    await in_transaction(_held, progress.claim, generations.get_droppable, name)
    searched = (await read(generations.live))[0].generation
    gone = 0
    for step in (partial(_move_home, searched=searched), _delete_some):
        while done := await in_transaction(_held, progress.claim, step, name):
            gone += done
            progress.report(gone, unit="vectors")
    model = await read(_model, name)
    await (await asyncio.to_thread(engine)).forget(model)
    await in_transaction(_held, progress.claim, _forget, name)
    return {"dropped": name, "vectors": gone}


async def _fill(model: Model, progress: Progress) -> int:
    """Make the missing vectors of chunks; return their number.

    The last pass looks at all chunks: ids may be committed out of order.
    """
    makes, made, after = await asyncio.to_thread(generations.embedder_of, model), 0, 0
    row = await read(generations.get, model.generation)
    after = row.after_chunk if row.state == "building" else 0
    total = await read(_count)
    progress.report(0, total, stage="embed", unit="chunks")
    while True:
        some = await read(_without, model.generation, after)
        if not some and not after:
            return made
        if not some:
            after = 0
            continue
        vectors = await makes.embed_documents([text for _, text in some])
        packed = dict(zip((chunk_id for chunk_id, _ in some), pack_vectors(vectors), strict=True))
        after = some[-1][0]
        await in_transaction(_put, progress.claim, model.generation, packed, after)
        made += len(some)
        progress.report(min(made, total), total)


async def _follow(model: Model, progress: Progress) -> None:
    """Prepare an index outside of SQL for the model."""
    await (await asyncio.to_thread(engine)).follow(model, progress)


def _begin(session: Session, claim: Claim, model: Model) -> None:
    claims.hold(session, claim)
    generations.begin(session, model)


def _ready(session: Session, claim: Claim, name: str) -> None:
    claims.hold(session, claim)
    row = generations.get(session, name, lock=True)
    if row.state == "building":
        generations.set_ready(row)


def _swap(session: Session, claim: Claim, name: str) -> bool:
    """Return False if a chunk without a vector was written since; otherwise no such chunk can be written any more."""
    claims.hold(session, claim)
    generations.rows(session, lock=True)
    if _without(session, name, 0):
        return False
    generations.swap(session, name)
    return True


def _held(session: Session, claim: Claim, step: Any, name: str) -> Any:
    claims.hold(session, claim)
    return step(session, name)


def _model(session: Session, name: str) -> Model:
    for model in generations.live(session):
        if model.generation == name:
            return model
    raise NotFound(f"Generation {name} not found", code="generation_not_found")


def _ids(session: Session, result: SearchResult) -> list[int]:
    return [hit.document_id for hit in result.hits]


def _titles(session: Session, tenant: str) -> list[str]:
    query = sa.select(document.c.title).where(document.c.tenant == tenant, document.c.title.is_not(None))
    some = session.scalars(query.order_by(document.c.id.desc()).limit(TENANT_QUERIES)).all()
    return list(dict.fromkeys(some))[:QUERIES]


def _count(session: Session) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Chunk)) or 0


def _without(session: Session, name: str, after: int) -> list[tuple[int, str]]:
    """Return chunks after that id without a vector of the generation, and their embedded text."""
    beside = sa.exists().where(ChunkVector.chunk_id == Chunk.id, ChunkVector.generation == name)
    query = (
        sa.select(Chunk.id, Chunk.text, Chunk.span_start, Chunk.span_end, Chunk.headings, document.c.title)
        .join(document, document.c.id == Chunk.document_id)
        .where(Chunk.id > after, Chunk.generation != name, ~beside)
        .order_by(Chunk.id)
        .limit(CHUNKS_AT_ONCE)
    )
    return [
        (row.id, NewChunk.within(row.text, row.span_start, row.span_end, tuple(row.headings), row.title).searched)
        for row in session.execute(query)
    ]


def _put(session: Session, claim: Claim, name: str, packed: Mapping[int, bytes], after: int) -> None:
    """Write the vectors of the chunks that still exist, and the progress."""
    claims.hold(session, claim)
    row = generations.get(session, name, lock=True)  # before the chunks, the lock order of writers of documents
    there = (
        sa.select(Chunk.id).where(Chunk.id.in_(packed)).order_by(Chunk.id).with_for_update(key_share=True, read=True)
    )
    beside = sa.select(ChunkVector.chunk_id).where(ChunkVector.chunk_id.in_(packed), ChunkVector.generation == name)
    known = set(session.scalars(beside))
    rows = [
        {"chunk_id": chunk_id, "generation": name, "vector": packed[chunk_id]}
        for chunk_id in session.scalars(there)
        if chunk_id not in known
    ]
    if rows:
        session.execute(sa.insert(ChunkVector), rows)
    row.after_chunk = max(row.after_chunk, after)
    if row.state != "building":  # an index of it may already be maintained
        ids = [added["chunk_id"] for added in rows]
        query = sa.select(Chunk.tenant, Chunk.document_id).where(Chunk.id.in_(ids)).distinct()
        for tenant, document_id in session.execute(query.order_by(Chunk.document_id)).all():
            touch_document(session, tenant=tenant, document_id=document_id)


def _move_home(session: Session, name: str, *, searched: str) -> int:
    """Move the searched vectors into the rows of chunks that still have vectors of the dropped generation."""
    query = sa.select(Chunk.id, ChunkVector.vector).join(
        ChunkVector, sa.and_(ChunkVector.chunk_id == Chunk.id, ChunkVector.generation == searched), isouter=True
    )
    some = session.execute(query.where(Chunk.generation == name).order_by(Chunk.id).limit(ROWS_AT_ONCE)).all()
    for row in some:
        session.execute(sa.update(Chunk).where(Chunk.id == row.id).values(generation=searched, vector=row.vector))
    _delete(session, searched, [row.id for row in some])
    return len(some)


def _delete_some(session: Session, name: str) -> int:
    query = sa.select(ChunkVector.chunk_id).where(ChunkVector.generation == name).limit(ROWS_AT_ONCE)
    ids = list(session.scalars(query))
    _delete(session, name, ids)
    return len(ids)


def _delete(session: Session, name: str, ids: Sequence[int]) -> None:
    for first in range(0, len(ids), 500):
        some = ids[first : first + 500]
        gone = sa.delete(ChunkVector).where(ChunkVector.generation == name, ChunkVector.chunk_id.in_(some))
        session.execute(gone)


def _forget(session: Session, name: str) -> None:
    session.execute(sa.delete(IndexGeneration).where(IndexGeneration.name == name))
    generations.forget_after_commit(session)
