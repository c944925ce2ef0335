"""Vectors for texts to be indexed: of the searched model and of all other live ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.core.db import read
from app.core.errors import NotFound, OutsideError, Unavailable
from app.core.logging import get_logger
from app.search.engines.base import Model
from app.search.index import generations
from app.search.index.write import load_vectors, pack_vectors

EMBED_AT_ONCE = 64

log = get_logger(__name__)


@dataclass(slots=True)
class ChunkVectors:
    """Vectors by text hash: of the searched `generation`; `beside` has those of other generations."""

    generation: str = ""
    own: dict[str, bytes] = field(default_factory=dict)
    beside: dict[str, dict[str, bytes]] = field(default_factory=dict)
    embedded: int = 0

    def check(self, searched: str, hashes: Sequence[str]) -> None:
        """Raises Unavailable if the searched model has changed to one without vectors here."""
        if searched != self.generation and searched not in self.others(hashes):
            raise Unavailable(
                "the searched model has changed; the vectors are of the previous one", code="generation_changed"
            )

    def of(self, hashes: Sequence[str]) -> list[bytes]:
        return [self.own[text_hash] for text_hash in hashes]

    def others(self, hashes: Sequence[str]) -> dict[str, list[bytes]]:
        """Return the vectors of these texts for each other generation; an incomplete one is left out."""
        whole = {name: vectors for name, vectors in self.beside.items() if all(key in vectors for key in hashes)}
        return {name: [vectors[text_hash] for text_hash in hashes] for name, vectors in whole.items()}


async def make_vectors(
    document_ids: Sequence[int], texts: Mapping[str, str], report: Callable[[int, int], None] | None = None
) -> ChunkVectors:
    """Return a vector for each text (by hash) and live generation; vectors that these documents have are reused.

    Raises Unavailable or Rejected if the searched generation's vectors cannot be made; others are left out, and filled
    in
    before they are searched.
    """
    searched, *others = await generations.cached()
    made = ChunkVectors(searched.generation)
    made.own, made.embedded = await _of(searched, document_ids, texts, report)
    for model in others:
        try:
            made.beside[model.generation], _ = await _of(model, document_ids, texts, None)
        except (OutsideError, NotFound) as error:
            log.warning("generation_left_out", generation=model.generation, reason=error.message)
    return made


async def _of(
    model: Model, document_ids: Sequence[int], texts: Mapping[str, str], report: Callable[[int, int], None] | None
) -> tuple[dict[str, bytes], int]:
    known = await read(load_vectors, document_ids, model.generation) if document_ids else {}
    missing = [text_hash for text_hash in texts if text_hash not in known]
    if report is not None:
        report(0, len(missing))
    for first in range(0, len(missing), EMBED_AT_ONCE):
        some = missing[first : first + EMBED_AT_ONCE]
        vectors = await generations.embedder_of(model).embed_documents([texts[text_hash] for text_hash in some])
        known |= dict(zip(some, pack_vectors(vectors), strict=True))
        if report is not None:
            report(first + len(some), len(missing))
    return known, len(missing)
