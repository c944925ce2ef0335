"""The engine inside the searching process: indexes in memory that follow `change`; nothing is shared but SQL.

An index is opened by the first question of its tenant, and brought up to date before each. It can always be thrown
away and built anew, and is when it is older than what has been pruned, or more dead than alive.
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
from app.search.engines.base import Ask, Found, Held, Lag, Model, Size
from app.search.engines.memory.tenant_index import MemoryIndex
from app.search.engines.source import changed, counter, documents

T = TypeVar("T")

DOCUMENTS_AT_ONCE = 200
DEAD_ALLOWED = 5_000

log = get_logger(__name__)


class Follower:
    """The index of one tenant and generation, and how far it has read."""

    def __init__(self, tenant: str, model: Model) -> None:
        self.lock = threading.Lock()
        self.tenant, self.model = tenant, model
        self.index = MemoryIndex(model.dimension)
        self.at = -1

    def follow(self, session: Session) -> None:
        """Read what has changed since the last time; usually one short statement says: nothing."""
        value, pruned = counter(session)
        if self.at < pruned or self.index.dead > self.index.chunks + DEAD_ALLOWED:
            self._build(session, value)
        elif self.at < value:
            self._catch_up(session, value)

    def _build(self, session: Session, value: int) -> None:
        started = clock.monotonic()
        index = MemoryIndex(self.model.dimension)
        index.put(documents(session, self.model.generation, tenant=self.tenant))
        # What was committed while reading has numbers above `value` and is read again by the next follow.
        self.index, self.at = index, value
        took_ms = round(1000 * (clock.monotonic() - started))
        log.info("index_built", tenant=self.tenant, chunks=index.chunks, change=value, took_ms=took_ms)

    def _catch_up(self, session: Session, value: int) -> None:
        ids, last = changed(session, self.at, tenant=self.tenant)
        for first in range(0, len(ids), DOCUMENTS_AT_ONCE):
            some = ids[first : first + DOCUMENTS_AT_ONCE]
            found = {row.id: row for row in documents(session, self.model.generation, tenant=self.tenant, ids=some)}
            self.index.put(found.values())
            for document_id in some:
                if document_id not in found:
                    self.index.drop(document_id)
        self.at = max(value, last)


class EmbeddedEngine:
    """Every tenant's follower, opened when somebody asks for it."""

    name = "embedded"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[tuple[str, Model], Follower] = {}

    async def search(self, ask: Ask, then: Callable[[Session, Found], T]) -> T:
        return await read(lambda session: then(session, self.search_now(session, ask)))

    async def matching(self, ask: Ask, most: int) -> list[int]:
        def find(session: Session) -> list[int]:
            with self._followed(session, ask.tenant, ask.model) as follower:
                return follower.index.matching(ask, most)

        return await read(find)

    async def known(self, tenant: str, model: Model, hashes: Sequence[int]) -> dict[int, int]:
        def find(session: Session) -> dict[int, int]:
            with self._followed(session, tenant, model) as follower:
                found = ((value, follower.index.bm25.document_frequency(value)) for value in hashes)
                return {value: count for value, count in found if count}

        return await read(find)

    async def languages(self, tenant: str, model: Model) -> list[str]:
        def find(session: Session) -> list[str]:
            with self._followed(session, tenant, model) as follower:
                return follower.index.spoken()

        return await read(find)

    async def size(self, tenant: str, model: Model) -> Size:
        def measure(session: Session) -> Size:
            with self._followed(session, tenant, model) as follower:
                index = follower.index
                return Size(self.name, index.documents, index.chunks, index.vectors, follower.at)

        return await read(measure)

    async def lag(self, model: Model) -> Lag:
        """None, ever: it follows before each answer."""
        return Lag(0, 0.0)

    async def held(self, tenant: str, model: Model, first: int, last: int) -> dict[int, Held]:
        def look(session: Session) -> dict[int, Held]:
            with self._followed(session, tenant, model) as follower:
                return follower.index.held(first, last)

        return await read(look)

    async def follow(self, model: Model, progress: Progress) -> dict[str, Any]:
        return {}

    async def forget(self, model: Model) -> None:
        with self._lock:
            self._followers = {key: one for key, one in self._followers.items() if key[1] != model}

    async def close(self) -> None:
        """Nothing is open."""

    def search_now(self, session: Session, ask: Ask) -> Found:
        """The answer from the session's own state of SQL."""
        with self._followed(session, ask.tenant, ask.model) as follower:
            return follower.index.search(ask, as_of=follower.at)

    @contextmanager
    def _followed(self, session: Session, tenant: str, model: Model) -> Iterator[Follower]:
        """The follower, locked and up to date for the length of a block."""
        with self._lock:
            follower = self._followers.setdefault((tenant, model), Follower(tenant, model))
        with follower.lock:
            follower.follow(session)
            yield follower
