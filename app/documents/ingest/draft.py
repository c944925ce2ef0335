"""A version while it is being indexed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from app.core import clock
from app.documents.accept.accept import Original
from app.documents.fields import DocumentFields
from app.search.index.chunk_vectors import ChunkVectors
from app.search.index.write import NewChunk


@dataclass(slots=True)
class Draft:
    """Text, fields, chunks and vectors of a version, and the duration of each step."""

    text: str = ""
    fields: DocumentFields = field(default_factory=DocumentFields)
    pages: list[tuple[int, int]] = field(default_factory=list)  # the start of each page, and its number
    # The name of a file, by which it is found if it has no text.
    file_name: str | None = None
    attachments: list[Original] = field(default_factory=list)
    chunks: list[NewChunk] = field(default_factory=list)
    terms: list[bytes] = field(default_factory=list)
    document_terms: bytes = b""
    vectors: ChunkVectors = field(default_factory=ChunkVectors)
    tokens: int = 0
    embedded: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the duration of a stage."""
        started = clock.monotonic()
        yield
        self.timings_ms[stage] = round(1000 * (clock.monotonic() - started), 2)


def result_of(status: str, document_id: int, version_id: int, draft: Draft) -> dict[str, Any]:
    """Return the result of an indexing job."""
    return {
        "status": status,
        "document_id": str(document_id),
        "version_id": str(version_id),
        "chunks": len(draft.chunks),
        "embedded": draft.embedded,
        "tokens": draft.tokens,
        "timings_ms": draft.timings_ms,
    }
