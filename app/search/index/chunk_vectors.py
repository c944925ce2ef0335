"""The vectors of texts that are to be written: of the model that is searched, and of all others that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.core.db import read
from app.core.errors import NotFound, OutsideError, Unavailable
from app.core.logging import get_logger
from app.search.engines.base import Model
from app.search.index import generations
from app.search.index.write import kept_vectors, pack_vectors

EMBED_AT_ONCE = 64

log = get_logger(__name__)


@dataclass(slots=True)
class ChunkVectors:
    """Vectors by text hash: of `generation`, which is searched, and `beside` of others, where they could be had."""

    generation: str = ""
    own: dict[str, bytes] = field(default_factory=dict)
    beside: dict[str, dict[str, bytes]] = field(default_factory=dict)
    embedded: int = 0

    def check(self, searched: str, hashes: Sequence[str]) -> None:
        """Raises Unavailable where the model that is searched by now is one that these have no vectors of."""
        if searched != self.generation and searched not in self.others(hashes):
            raise Unavailable("the model that is searched was changed meanwhile", code="generation_changed")

    def of(self, hashes: Sequence[str]) -> list[bytes]:
        return [self.own[text_hash] for text_hash in hashes]

    def others(self, hashes: Sequence[str]) -> dict[str, list[bytes]]:
        """Of each other generation the vectors of these texts; of one that has not all of them none, to be filled."""
        whole = {name: found for name, found in self.beside.items() if all(one in found for one in hashes)}
        return {name: [found[text_hash] for text_hash in hashes] for name, found in whole.items()}


async def make_vectors(
    document_ids: Sequence[int], wanted: Mapping[str, str], report: Callable[[int, int], None] | None = None
) -> ChunkVectors:
    """A vector for each wanted text (by hash) and live generation; what these documents have already is not made again.

    Raises Unavailable or Rejected where those of the generation that is searched cannot be had; others are left out,
    and filled in before they are searched.
    """
    searched, *others = await generations.believed()
    made = ChunkVectors(searched.generation)
    made.own, made.embedded = await _of(searched, document_ids, wanted, report)
    for model in others:
        try:
            made.beside[model.generation], _ = await _of(model, document_ids, wanted, None)
        except (OutsideError, NotFound) as error:
            log.warning("generation_left_out", generation=model.generation, reason=error.message)
    return made


async def _of(
    model: Model, document_ids: Sequence[int], wanted: Mapping[str, str], report: Callable[[int, int], None] | None
) -> tuple[dict[str, bytes], int]:
    known = await read(kept_vectors, document_ids, model.generation) if document_ids else {}
    missing = [text_hash for text_hash in wanted if text_hash not in known]
    if report is not None:
        report(0, len(missing))
    for first in range(0, len(missing), EMBED_AT_ONCE):
        some = missing[first : first + EMBED_AT_ONCE]
        vectors = await generations.embedder_of(model).embed_documents([wanted[text_hash] for text_hash in some])
        known |= dict(zip(some, pack_vectors(vectors), strict=True))
        if report is not None:
            report(first + len(some), len(missing))
    return known, len(missing)
