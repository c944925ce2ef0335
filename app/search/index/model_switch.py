"""From one model to the next while everything is searched: built beside, compared, swapped in, swapped back, dropped.

Each is a job that can be killed and run again at any step: what it has done stands in rows.
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
from app.search.engines.base import Ask, Found, Model
from app.search.index import generations
from app.search.index.write import NewChunk, pack_vectors, touch_document
from app.search.jobs import CompareGenerations, SwapGeneration
from app.search.models import Chunk, ChunkVector, IndexGeneration, document

CHUNKS_AT_ONCE = 64
ROWS_AT_ONCE = 2_000
QUERIES = 50
TENANT_QUERIES = 200


async def build(progress: Progress) -> dict[str, Any]:
    """{generation, vectors, embedded}: the next embedder's vectors for all chunks, and an index of them.

    Raises InvalidInput where the settings name no next embedder, Conflict where it is the one that is searched.
    """
    made = await asyncio.to_thread(next_embedder)
    if made is None:
        raise InvalidInput("MILLRACE_NEXT_EMBEDDER names no embedder", code="no_next_embedder")
    model = Model(made.name, made.dimension)
    await in_transaction(_begin, progress.claim, model)
    embedded = await _fill(model, progress)
    # What an earlier try may have left is not told of what has been filled in since.
    await (await asyncio.to_thread(engine)).forget(model)
    await _follow(model, progress)
    await in_transaction(_ready, progress.claim, model.generation)
    vectors = await read(generations.counted, model.generation)
    return {"generation": model.generation, "vectors": vectors, "embedded": embedded}


async def compare(job: CompareGenerations, progress: Progress) -> dict[str, Any]:
    """{queries, limit, overlap, same_first, seconds {first, second}} of semantic searches in both.

    overlap: the mean share of documents that both show; same_first: of queries whose best document is the same.
    Raises NotFound for a generation that is not there, or that no embedder of the settings makes.
    """
    models = [await read(_model, name) for name in (job.first, job.second)]
    tenant = progress.claim.tenant
    queries = list(job.queries) or await read(_titles, tenant)
    shared, same, took = 0.0, 0, [0.0, 0.0]
    for number, text in enumerate(queries, start=1):
        found: list[list[int]] = []
        for place, model in enumerate(models):
            began = clock.monotonic()
            vector = await generations.embedder_of(model).embed_query(text)
            ask = Ask(tenant, text, vector, model, mode="semantic", limit=job.limit)
            found.append(await engine().search(ask, _ids))
            took[place] += clock.monotonic() - began
        most = max(len(ids) for ids in found)
        shared += len(set(found[0]) & set(found[1])) / most if most else 1.0
        same += found[0][:1] == found[1][:1]
        progress.report(number, len(queries), unit="queries")
    count = len(queries) or 1
    seconds = {"first": round(took[0] / count, 4), "second": round(took[1] / count, 4)}
    told = {"overlap": round(shared / count, 4), "same_first": round(same / count, 4), "seconds": seconds}
    return {"queries": len(queries), "limit": job.limit, **told}


async def swap(job: SwapGeneration, progress: Progress) -> dict[str, Any]:
    """{searched, kept}: which generation is searched from now on, and which was.

    What was written while its embedder was away is filled in first. Raises NotFound, Conflict for one not built yet.
    """
    before = (await read(generations.live))[0].generation
    name = job.name if job.name is not None else await read(generations.last_kept)
    model = await read(_model, name)
    if name != before:
        await read(generations.swappable, name)
        while True:
            await _fill(model, progress)
            await _follow(model, progress)
            if await in_transaction(_swap, progress.claim, name):
                break
    return {"searched": name, "kept": before if name != before else None}


async def drop(name: str, progress: Progress) -> dict[str, Any]:
    """{dropped, vectors}: how many vectors are gone. Raises NotFound, Conflict for the one that is searched."""
    await in_transaction(_held, progress.claim, generations.droppable, name)
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
    """Make the vectors that chunks have not; how many. The last look is at all of them: ids may be committed out of
    their order."""
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
    """Have an index outside of SQL ready for it."""
    await (await asyncio.to_thread(engine)).follow(model, progress)


def _begin(session: Session, claim: Claim, model: Model) -> None:
    claims.hold(session, claim)
    generations.begin(session, model)


def _ready(session: Session, claim: Claim, name: str) -> None:
    claims.hold(session, claim)
    row = generations.get(session, name, lock=True)
    if row.state == "building":
        generations.ready(row)


def _swap(session: Session, claim: Claim, name: str) -> bool:
    """False where something was written meanwhile that has no vector of it; from here on nothing is."""
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
    raise NotFound(f"There is no generation {name}", code="generation_not_found")


def _ids(session: Session, found: Found) -> list[int]:
    return [hit.document_id for hit in found.hits]


def _titles(session: Session, tenant: str) -> list[str]:
    query = sa.select(document.c.title).where(document.c.tenant == tenant, document.c.title.is_not(None))
    some = session.scalars(query.order_by(document.c.id.desc()).limit(TENANT_QUERIES)).all()
    return list(dict.fromkeys(some))[:QUERIES]


def _count(session: Session) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Chunk)) or 0


def _without(session: Session, name: str, after: int) -> list[tuple[int, str]]:
    """Chunks behind that id that have no vector of the generation, and what of them is embedded."""
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
    """Write the vectors of those chunks that are still there, and how far it is."""
    claims.hold(session, claim)
    row = generations.get(session, name, lock=True)  # before the chunks, as writers of documents have it
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
    if row.state != "building":  # an index of it may be followed already
        ids = [one["chunk_id"] for one in rows]
        query = sa.select(Chunk.tenant, Chunk.document_id).where(Chunk.id.in_(ids)).distinct()
        for tenant, document_id in session.execute(query.order_by(Chunk.document_id)).all():
            touch_document(session, tenant=tenant, document_id=document_id)


def _move_home(session: Session, name: str, *, searched: str) -> int:
    """Put the vectors that are searched into the rows of chunks that still have those of the dropped one."""
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
