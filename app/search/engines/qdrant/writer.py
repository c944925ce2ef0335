"""One collection in Qdrant as its writer sees it: made, filled, told how far it is, and put in use under its name."""

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
from app.search.engines.qdrant.reader import Place, name_of
from app.search.engines.source import IndexedDocument

# A body may have 32 MiB; a point of 1,024 numbers is some 20 KB of JSON.
POINTS_AT_ONCE = 256


class Building:
    """`change` is the last change it has read, `next` the document after which a build goes on.

    Each call raises Unavailable where Qdrant does not answer; all can be repeated.
    """

    def __init__(self, alias: str, name: str, marker: dict[str, Any]) -> None:
        self.alias, self.name = alias, name
        self.change, self.next = int(marker.get("change", 0)), int(marker.get("next", 0))
        self.done = bool(marker.get("done"))
        self.written = 0

    @classmethod
    async def in_use(cls, model: Model) -> Self | None:
        """The one that is searched; None where there is none, or it does not say how far it is."""
        alias = name_of(model)
        return await cls._open(alias, await _aliased(alias))

    @classmethod
    async def unfinished(cls, model: Model, pruned: int) -> Self | None:
        """One that somebody began to build, and that has not missed what was pruned."""
        alias = name_of(model)
        for name in await _beside(alias):
            found = await cls._open(alias, name)
            if found is not None and not found.done and found.change >= pruned:
                return found
        return None

    @classmethod
    async def begin(cls, model: Model, *, change: int) -> Self:
        """A new and empty one, that has read all up to this change once it is filled."""
        settings, alias = get_settings(), name_of(model)
        made = cls(alias, f"{alias}-{random.getrandbits(32):08x}", {"change": change})
        await qdrant().call(
            "create_collection",
            collection_name=made.name,
            vectors_config={
                "dense": models.VectorParams(size=model.dimension, distance=models.Distance.COSINE, on_disk=True)
            },
            sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
            # Graphs by tenant: nobody searches without one.
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
            shard_number=settings.qdrant_shards,
            replication_factor=settings.qdrant_replicas,
            # Half of them, so that two replicas take writes while one is gone.
            write_consistency_factor=(settings.qdrant_replicas + 1) // 2,
            timeout=SCHEMA_TIMEOUT_S,
        )
        for field, kind in shape.FIELDS.items():
            await made._do("create_payload_index", field_name=field, field_schema=kind, wait=True)
        await made.tell()
        return made

    async def put(self, ids: Sequence[int], documents: Sequence[IndexedDocument], average: float) -> int:
        """Write these documents, and remove what else is there of `ids`; how many were written.

        New points come before the old ones go, so that a document is never missing. `average`: see points.
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

    async def tell(self, **now: int | bool) -> None:
        """Write down how far it is; said last, so that what it says is true."""
        for name, value in now.items():
            setattr(self, name, value)
        marker = {"change": self.change, "next": self.next, "done": self.done}
        point = models.PointStruct(id=shape.MARKER, vector={}, payload=marker)
        await self._do("upsert", points=[point], wait=True)

    async def take_over(self) -> None:
        """Be the one that is searched, from one moment to the next."""
        await self.tell(done=True)
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
        """Delete all that there is of this model."""
        alias = name_of(model)
        if await _aliased(alias) is not None:
            delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            await qdrant().call(
                "update_collection_aliases", change_aliases_operations=[delete], timeout=SCHEMA_TIMEOUT_S
            )
        for name in await _beside(alias):
            await qdrant().call("delete_collection", collection_name=name, timeout=SCHEMA_TIMEOUT_S)

    async def tidy(self) -> None:
        """Delete what else there is of its name: older ones, and builds that nobody needs any more."""
        for name in await _beside(self.alias):
            if name != self.name:
                await qdrant().call("delete_collection", collection_name=name, timeout=SCHEMA_TIMEOUT_S)

    @classmethod
    async def _open(cls, alias: str, name: str | None) -> Self | None:
        if name is None:
            return None
        try:
            marker = await Place(name).marker()
        except NotFound:
            return None
        return None if marker is None else cls(alias, name, marker)

    async def _do(self, call: str, **arguments: Any) -> Any:
        return await qdrant().call(call, collection_name=self.name, timeout=WRITE_TIMEOUT_S, **arguments)


async def _aliased(alias: str) -> str | None:
    """The collection behind the name."""
    found = (await qdrant().call("get_aliases")).aliases
    return next((one.collection_name for one in found if one.alias_name == alias), None)


async def _beside(alias: str) -> list[str]:
    """The collections made for this name."""
    found = (await qdrant().call("get_collections")).collections
    return sorted(one.name for one in found if one.name.startswith(f"{alias}-"))
