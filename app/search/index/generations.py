"""Index generations: the vectors of one model over all chunks. One is searched; others are built beside it, or kept.

What is written while there are several gets the vectors of each. The one searched when a chunk was written lies in the
chunk's own row, the others beside it.
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

# building: some chunks have no vector of it yet; ready: all have; active: it is searched; kept: it was.
State = Literal["building", "ready", "active", "kept"]
# A process may go by what it read so long ago: both generations are whole while one takes over.
BELIEF_S = 1.0

_believed: WeakKeyDictionary[sa.Engine, tuple[float, list[Model]]] = WeakKeyDictionary()
_reading = threading.Lock()


def rows(session: Session, *, lock: bool = False) -> list[IndexGeneration]:
    """All there are, the oldest first; none where there has only ever been the settings' own."""
    query = sa.select(IndexGeneration).order_by(IndexGeneration.created_at, IndexGeneration.name)
    return list(session.scalars(query.with_for_update() if lock else query))


def live(session: Session) -> list[Model]:
    """The models whose vectors are kept, the one that is searched first."""
    found = rows(session)
    active = [row for row in found if row.state == "active"]
    if not active:
        return [_own(), *(Model(row.name, row.dimension) for row in found if row.name != embedder().name)]
    return [Model(row.name, row.dimension) for row in (*active, *(row for row in found if row.state != "active"))]


def followed(session: Session) -> list[Model]:
    """Those that an index outside of SQL is kept for: whole ones."""
    building = {row.name for row in rows(session) if row.state == "building"}
    return [model for model in live(session) if model.generation not in building]


async def believed() -> list[Model]:
    """The same, up to a second old."""
    engine = database().engine
    found = _believed.get(engine)
    if found is None or clock.monotonic() - found[0] > BELIEF_S:
        found = _believed[engine] = clock.monotonic(), await read(live)
    return found[1]


async def active() -> Model:
    """Which vectors are searched."""
    return (await believed())[0]


def embedder_of(model: Model) -> Embedder:
    """The settings' embedder that makes this generation's vectors. Raises NotFound where neither does."""
    for one in (embedder(), next_embedder()):
        if one is not None and one.name == model.generation:
            return one
    raise NotFound(f"no embedder of the settings makes {model.generation}", code="generation_embedder")


def begin(session: Session, wanted: Model) -> IndexGeneration:
    """The row of a generation to be built; the one in use gets its own with it. Raises Conflict for that one."""
    found = {row.name: row for row in rows(session, lock=True)}
    if not any(row.state == "active" for row in found.values()):
        _insert(session, _own(), "active")
    here = found.get(wanted.generation)
    if here is None and wanted.generation == _own().generation and not found:
        raise Conflict(f"{wanted.generation} is what is searched", code="generation_active")
    if here is None:
        here = _insert(session, wanted, "building")
    elif here.state == "active":
        raise Conflict(f"{wanted.generation} is what is searched", code="generation_active")
    forget_after_commit(session)
    return here


def get(session: Session, name: str, *, lock: bool = False) -> IndexGeneration:
    """Raises NotFound."""
    row = session.get(IndexGeneration, name, with_for_update=lock)
    if row is None:
        raise NotFound(f"There is no generation {name}", code="generation_not_found")
    return row


def swap(session: Session, name: str) -> IndexGeneration:
    """Have this generation be searched, and the one before kept. Raises Conflict where it is not whole."""
    rows(session, lock=True)
    swappable(session, name)
    row = get(session, name)
    for other in rows(session):
        if other.state == "active" and other.name != name:
            _move(other, "kept")
    _move(row, "active")
    session.flush()
    forget_after_commit(session)
    return row


def hold_searched(session: Session) -> str:
    """The name of the generation that is searched, which stays so until this transaction ends."""
    query = sa.select(IndexGeneration.name).where(IndexGeneration.state == "active")
    return session.scalar(query.with_for_update(read=True)) or _own().generation


def swappable(session: Session, name: str) -> None:
    """Raises NotFound, or Conflict where it is not built yet."""
    if get(session, name).state == "building":
        raise Conflict(f"{name} is not built yet", code="generation_building")


def last_kept(session: Session) -> str:
    """The one that was searched before. Raises NotFound."""
    kept = sorted((row for row in rows(session) if row.state == "kept"), key=lambda row: row.changed_at)
    if not kept:
        raise NotFound("no generation was searched before this one", code="generation_not_found")
    return kept[-1].name


def droppable(session: Session, name: str) -> IndexGeneration:
    """Raises NotFound, or Conflict for the one that is searched."""
    row = get(session, name, lock=True)
    if row.state == "active":
        raise Conflict(f"{name} is what is searched; swap to another one first", code="generation_active")
    return row


def counted(session: Session, name: str) -> int:
    """How many vectors lie beside the chunks' own."""
    return session.scalar(sa.select(sa.func.count()).where(ChunkVector.generation == name)) or 0


def forget_after_commit(session: Session) -> None:
    after_commit(session, "generations", lambda: _believed.clear)


def ready(row: IndexGeneration) -> None:
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
