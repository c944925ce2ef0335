"""The embedded engine: indexes in memory that follow the `change` table; only SQL is shared.

An index is opened by the first query of its tenant, and brought up to date before each query. It is rebuilt when it is
older than the pruned changes, or when most of it is dead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import read
from app.core.logging import get_logger
from app.jobs.worker.progress import Progress
from app.search.engines.base import EngineRequest, IndexedState, Lag, Model, SearchResult, Size
from app.search.engines.memory.tenant_index import MemoryIndex
from app.search.engines.source import changed, counter, documents

T = TypeVar("T")

DOCUMENTS_AT_ONCE = 200
DEAD_ALLOWED = 5_000

log = get_logger(__name__)


class TenantFollower:
    """The index of one tenant and generation, and the last change it has read."""

    def __init__(self, tenant: str, model: Model) -> None:
        self.lock = threading.Lock()
        self.tenant, self.model = tenant, model
        self.index = MemoryIndex(model.dimension)
        self.at = -1

    def follow(self, session: Session) -> None:
        """Read the changes since the last call; usually one short statement returns none."""
        value, pruned = counter(session)
        if self.at < pruned or self.index.dead > self.index.chunks + DEAD_ALLOWED:
            self._build(session, value)
        elif self.at < value:
            self._catch_up(session, value)

    def _build(self, session: Session, value: int) -> None:
        started = clock.monotonic()
        index = MemoryIndex(self.model.dimension)
        index.put(documents(session, self.model.generation, tenant=self.tenant))
        # Changes committed during the read have numbers above `value` and are read again by the next follow.
        self.index, self.at = index, value
        took_ms = round(1000 * (clock.monotonic() - started))
        log.info("index_built", tenant=self.tenant, chunks=index.chunks, change=value, took_ms=took_ms)

    def _catch_up(self, session: Session, value: int) -> None:
        ids, last = changed(session, self.at, tenant=self.tenant)
        for first in range(0, len(ids), DOCUMENTS_AT_ONCE):
            some = ids[first : first + DOCUMENTS_AT_ONCE]
            by_id = {row.id: row for row in documents(session, self.model.generation, tenant=self.tenant, ids=some)}
            self.index.put(by_id.values())
            for document_id in some:
                if document_id not in by_id:
                    self.index.drop(document_id)
        self.at = max(value, last)


class EmbeddedEngine:
    """Followers of all tenants, each opened at its first use."""

    name = "embedded"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[tuple[str, Model], TenantFollower] = {}

    async def search(self, ask: EngineRequest, then: Callable[[Session, SearchResult], T]) -> T:
        return await read(lambda session: then(session, self.search_now(session, ask)))

    async def matching(self, ask: EngineRequest, most: int) -> list[int]:
        def find(session: Session) -> list[int]:
            with self._follow_tenant(session, ask.tenant, ask.model) as follower:
                return follower.index.matching(ask, most)

        return await read(find)

    async def known(self, tenant: str, model: Model, hashes: Sequence[int]) -> dict[int, int]:
        def find(session: Session) -> dict[int, int]:
            with self._follow_tenant(session, tenant, model) as follower:
                counts = ((value, follower.index.bm25.document_frequency(value)) for value in hashes)
                return {value: count for value, count in counts if count}

        return await read(find)

    async def languages(self, tenant: str, model: Model) -> list[str]:
        def find(session: Session) -> list[str]:
            with self._follow_tenant(session, tenant, model) as follower:
                return follower.index.list_languages()

        return await read(find)

    async def size(self, tenant: str, model: Model) -> Size:
        def measure(session: Session) -> Size:
            with self._follow_tenant(session, tenant, model) as follower:
                index = follower.index
                return Size(self.name, index.documents, index.chunks, index.vectors, follower.at)

        return await read(measure)

    async def lag(self, model: Model) -> Lag:
        """Return no lag: the engine follows before each answer."""
        return Lag(0, 0.0)

    async def held(self, tenant: str, model: Model, first: int, last: int) -> dict[int, IndexedState]:
        def look(session: Session) -> dict[int, IndexedState]:
            with self._follow_tenant(session, tenant, model) as follower:
                return follower.index.held(first, last)

        return await read(look)

    async def follow(self, model: Model, progress: Progress) -> dict[str, Any]:
        return {}

    async def forget(self, model: Model) -> None:
        with self._lock:
            self._followers = {key: follower for key, follower in self._followers.items() if key[1] != model}

    async def close(self) -> None:
        """Do nothing: no connection is open."""

    def search_now(self, session: Session, ask: EngineRequest) -> SearchResult:
        """Search in the session's own state of SQL."""
        with self._follow_tenant(session, ask.tenant, ask.model) as follower:
            return follower.index.search(ask, as_of=follower.at)

    @contextmanager
    def _follow_tenant(self, session: Session, tenant: str, model: Model) -> Iterator[TenantFollower]:
        """Yield the follower, locked and up to date for the length of the block."""
        with self._lock:
            follower = self._followers.setdefault((tenant, model), TenantFollower(tenant, model))
        with follower.lock:
            follower.follow(session)
            yield follower
