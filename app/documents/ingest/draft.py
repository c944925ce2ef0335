"""A version on its way into the index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from app.core import clock
from app.documents.accept.uploads import Original
from app.search.index.chunk_vectors import Made
from app.search.index.write import NewChunk


@dataclass(slots=True)
class Draft:
    """The version on its way, and how long each step took."""

    text: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    language: str | None = None
    pages: list[tuple[int, int]] = field(default_factory=list)  # where each begins, and its number
    attachments: list[Original] = field(default_factory=list)
    chunks: list[NewChunk] = field(default_factory=list)
    terms: list[bytes] = field(default_factory=list)
    document_terms: bytes = b""
    made: Made = field(default_factory=Made)
    tokens: int = 0
    embedded: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = clock.monotonic()
        yield
        self.timings_ms[stage] = round(1000 * (clock.monotonic() - started), 2)


def result_of(status: str, document_id: int, version_id: int, draft: Draft) -> dict[str, Any]:
    """What a job that indexes returns."""
    return {
        "status": status,
        "document_id": str(document_id),
        "version_id": str(version_id),
        "chunks": len(draft.chunks),
        "embedded": draft.embedded,
        "tokens": draft.tokens,
        "timings_ms": draft.timings_ms,
    }
