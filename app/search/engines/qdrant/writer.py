"""One collection in Qdrant for its writer: created, filled, marked, and put in use under its alias."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Self

from qdrant_client import models

from app.clients.qdrant import SCHEMA_TIMEOUT_S, WRITE_TIMEOUT_S, qdrant
from app.core.errors import NotFound
from app.core.settings import get_settings
from app.search.engines.base import Model
from app.search.engines.qdrant import points as shape
from app.search.engines.qdrant.reader import QdrantReader, name_of
from app.search.engines.source import IndexedDocument

# A request body may have 32 MiB; a point of 1,024 numbers is about 20 KB of JSON.
POINTS_AT_ONCE = 256


class QdrantWriter:
    """Writes one collection. `change` is the last change read, `next` the document after which a build continues.

    `analyzer` is the version that made all its terms, 0 if they may be of several.
    Each call raises Unavailable if Qdrant does not answer; all can be repeated.
    """

    def __init__(self, alias: str, name: str, marker: dict[str, Any]) -> None:
        self.alias, self.name = alias, name
        self.change, self.next = int(marker.get("change", 0)), int(marker.get("next", 0))
        self.done, self.analyzer = bool(marker.get("done")), int(marker.get("analyzer", 0))
        self.written = 0

    @classmethod
    async def in_use(cls, model: Model) -> Self | None:
        """Return the collection in use; None if there is none, or it has no marker."""
        alias = name_of(model)
        return await cls._open(alias, await _aliased(alias))

    @classmethod
    async def unfinished(cls, model: Model, pruned: int) -> Self | None:
        """Return an unfinished build that has not missed pruned changes."""
        alias = name_of(model)
        for name in await _collections_of(alias):
            build = await cls._open(alias, name)
            if build is not None and not build.done and build.change >= pruned:
                return build
        return None

    @classmethod
    async def begin(cls, model: Model, *, change: int) -> Self:
        """Create an empty collection that will have read all up to this change once it is filled."""
        settings, alias = get_settings(), name_of(model)
        build = cls(alias, f"{alias}-{random.getrandbits(32):08x}", {"change": change})
        await qdrant().call(
            "create_collection",
            collection_name=build.name,
            vectors_config={
                "dense": models.VectorParams(size=model.dimension, distance=models.Distance.COSINE, on_disk=True)
            },
            sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
            # Graphs by tenant: every search has one.
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
            shard_number=settings.qdrant_shards,
            replication_factor=settings.qdrant_replicas,
            # Half of them, so that two replicas accept writes while one is down.
            write_consistency_factor=(settings.qdrant_replicas + 1) // 2,
            timeout=SCHEMA_TIMEOUT_S,
        )
        for field, kind in shape.FIELDS.items():
            await build._do("create_payload_index", field_name=field, field_schema=kind, wait=True)
        await build.save_marker()
        return build

    async def put(self, ids: Sequence[int], documents: Sequence[IndexedDocument], average: float) -> int:
        """Write these documents and delete other points of `ids`; return the number written.

        New points are written before old ones are deleted, so that a document is never missing. `average`: see points.
        """
        this = random.getrandbits(48)
        points = [point for document in documents for point in shape.points(document, average, this)]
        for first in range(0, len(points), POINTS_AT_ONCE):
            await self._do("upsert", points=points[first : first + POINTS_AT_ONCE], wait=True)
        if ids:
            old = models.Filter(must=[shape.has_any("document", ids)], must_not=[shape.has("round", this)])
            await self._do("delete", points_selector=models.FilterSelector(filter=old), wait=True)
        self.written += len(documents)
        return len(documents)

    async def save_marker(self, **now: int | bool) -> None:
        """Store the marker; called after the writes that it describes."""
        for name, value in now.items():
            setattr(self, name, value)
        marker = {"change": self.change, "next": self.next, "done": self.done, "analyzer": self.analyzer}
        point = models.PointStruct(id=shape.MARKER, vector={}, payload=marker)
        await self._do("upsert", points=[point], wait=True)

    async def take_over(self) -> None:
        """Point the alias to this collection, in one step."""
        await self.save_marker(done=True)
        before = await _aliased(self.alias)
        create = models.CreateAlias(collection_name=self.name, alias_name=self.alias)
        change: list[Any] = [models.CreateAliasOperation(create_alias=create)]
        if before is not None:
            delete = models.DeleteAlias(alias_name=self.alias)
            change.insert(0, models.DeleteAliasOperation(delete_alias=delete))
        await qdrant().call("update_collection_aliases", change_aliases_operations=change, timeout=SCHEMA_TIMEOUT_S)
        await self.tidy()

    @classmethod
    async def forget(cls, model: Model) -> None:
        """Delete all collections of this model."""
        alias = name_of(model)
        if await _aliased(alias) is not None:
            delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            await qdrant().call(
                "update_collection_aliases", change_aliases_operations=[delete], timeout=SCHEMA_TIMEOUT_S
            )
        for name in await _collections_of(alias):
            await qdrant().call("delete_collection", collection_name=name, timeout=SCHEMA_TIMEOUT_S)

    async def tidy(self) -> None:
        """Delete the other collections of this alias: older ones and abandoned builds."""
        for name in await _collections_of(self.alias):
            if name != self.name:
                await qdrant().call("delete_collection", collection_name=name, timeout=SCHEMA_TIMEOUT_S)

    @classmethod
    async def _open(cls, alias: str, name: str | None) -> Self | None:
        if name is None:
            return None
        try:
            marker = await QdrantReader(name).marker()
        except NotFound:
            return None
        return None if marker is None else cls(alias, name, marker)

    async def _do(self, call: str, **arguments: Any) -> Any:
        return await qdrant().call(call, collection_name=self.name, timeout=WRITE_TIMEOUT_S, **arguments)


async def _aliased(alias: str) -> str | None:
    """Return the collection behind the alias."""
    aliases = (await qdrant().call("get_aliases")).aliases
    return next((alias_.collection_name for alias_ in aliases if alias_.alias_name == alias), None)


async def _collections_of(alias: str) -> list[str]:
    """Return the collections created for this alias."""
    collections = (await qdrant().call("get_collections")).collections
    return sorted(collection.name for collection in collections if collection.name.startswith(f"{alias}-"))
