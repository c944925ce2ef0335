"""Index generations: the vectors of one model over all chunks. One is searched; others are being built or kept.

Documents written while several exist get vectors of each. The chunk's own row holds the vector of the generation
searched when it was written; chunk_vector holds the others.
"""

from __future__ import annotations

import threading
from typing import Literal
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import after_commit, database, read
from app.core.errors import Conflict, NotFound
from app.search.embedders import Embedder, embedder, next_embedder
from app.search.engines.base import Model
from app.search.models import ChunkVector, IndexGeneration

# building: some chunks lack vectors; ready: all have them; active: searched; kept: searched before.
State = Literal["building", "ready", "active", "kept"]
# Maximum age of a process's cached generations: both are complete while one takes over.
MAX_CACHE_AGE_S = 1.0

_cached: WeakKeyDictionary[sa.Engine, tuple[float, list[Model]]] = WeakKeyDictionary()
_reading = threading.Lock()


def rows(session: Session, *, lock: bool = False) -> list[IndexGeneration]:
    """Return all generations, oldest first; empty if only the settings' own has ever existed."""
    query = sa.select(IndexGeneration).order_by(IndexGeneration.created_at, IndexGeneration.name)
    return list(session.scalars(query.with_for_update() if lock else query))


def live(session: Session) -> list[Model]:
    """Return the models whose vectors are stored, the searched one first."""
    generations = rows(session)
    active = [row for row in generations if row.state == "active"]
    if not active:
        return [_own(), *(Model(row.name, row.dimension) for row in generations if row.name != embedder().name)]
    return [Model(row.name, row.dimension) for row in (*active, *(row for row in generations if row.state != "active"))]


def followed(session: Session) -> list[Model]:
    """Return the complete models, for which an index outside of SQL is maintained."""
    building = {row.name for row in rows(session) if row.state == "building"}
    return [model for model in live(session) if model.generation not in building]


async def cached() -> list[Model]:
    """Return the live models from a cache of at most a second."""
    engine = database().engine
    cached_models = _cached.get(engine)
    if cached_models is None or clock.monotonic() - cached_models[0] > MAX_CACHE_AGE_S:
        cached_models = _cached[engine] = clock.monotonic(), await read(live)
    return cached_models[1]


async def active() -> Model:
    """Return the model that is searched."""
    return (await cached())[0]


def embedder_of(model: Model) -> Embedder:
    """Return the settings' embedder that makes this generation's vectors. Raises NotFound if none does."""
    for candidate in (embedder(), next_embedder()):
        if candidate is not None and candidate.name == model.generation:
            return candidate
    raise NotFound(f"no embedder of the settings makes {model.generation}", code="generation_embedder")


def begin(session: Session, model: Model) -> IndexGeneration:
    """Return the row of a generation to build; also creates the active one's row. Raises Conflict if it is active."""
    existing = {row.name: row for row in rows(session, lock=True)}
    if not any(row.state == "active" for row in existing.values()):
        _insert(session, _own(), "active")
    here = existing.get(model.generation)
    if here is None and model.generation == _own().generation and not existing:
        raise Conflict(f"{model.generation} is the searched generation", code="generation_active")
    if here is None:
        here = _insert(session, model, "building")
    elif here.state == "active":
        raise Conflict(f"{model.generation} is the searched generation", code="generation_active")
    forget_after_commit(session)
    return here


def get(session: Session, name: str, *, lock: bool = False) -> IndexGeneration:
    """Raises NotFound."""
    row = session.get(IndexGeneration, name, with_for_update=lock)
    if row is None:
        raise NotFound(f"Generation {name} not found", code="generation_not_found")
    return row


def swap(session: Session, name: str) -> IndexGeneration:
    """Make this generation the searched one and keep the previous one. Raises Conflict if it is incomplete."""
    rows(session, lock=True)
    check_swappable(session, name)
    row = get(session, name)
    for other in rows(session):
        if other.state == "active" and other.name != name:
            _move(other, "kept")
    _move(row, "active")
    session.flush()
    forget_after_commit(session)
    return row


def hold_searched(session: Session) -> str:
    """Return the name of the searched generation, locked until this transaction ends."""
    query = sa.select(IndexGeneration.name).where(IndexGeneration.state == "active")
    return session.scalar(query.with_for_update(read=True)) or _own().generation


def check_swappable(session: Session, name: str) -> None:
    """Raises NotFound, or Conflict if it is not built yet."""
    if get(session, name).state == "building":
        raise Conflict(f"{name} is not built yet", code="generation_building")


def last_kept(session: Session) -> str:
    """Return the generation searched before. Raises NotFound."""
    rows_kept = sorted((row for row in rows(session) if row.state == "kept"), key=lambda row: row.changed_at)
    if not rows_kept:
        raise NotFound("no generation was searched before this one", code="generation_not_found")
    return rows_kept[-1].name


def get_droppable(session: Session, name: str) -> IndexGeneration:
    """Return the generation. Raises NotFound, or Conflict if it is the searched one."""
    row = get(session, name, lock=True)
    if row.state == "active":
        raise Conflict(f"{name} is the searched generation; swap to another one first", code="generation_active")
    return row


def count_vectors(session: Session, name: str) -> int:
    """Count the generation's vectors in chunk_vector."""
    return session.scalar(sa.select(sa.func.count()).where(ChunkVector.generation == name)) or 0


def forget_after_commit(session: Session) -> None:
    after_commit(session, "generations", lambda: _cached.clear)


def set_ready(row: IndexGeneration) -> None:
    _move(row, "ready")


def _own() -> Model:
    return Model(embedder().name, embedder().dimension)


def _insert(session: Session, model: Model, state: State) -> IndexGeneration:
    now = clock.now()
    row = IndexGeneration(
        name=model.generation, dimension=model.dimension, state=state, after_chunk=0, created_at=now, changed_at=now
    )
    session.add(row)
    session.flush()
    return row


def _move(row: IndexGeneration, state: State) -> None:
    if row.state != state:
        row.state, row.changed_at = state, clock.now()
