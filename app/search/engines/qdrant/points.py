"""Documents as points in Qdrant: one point per chunk, with the chunk's id, its dense vector and the filter fields.

The first chunk's point is the document's head: it has the words of the whole document as a sparse vector and as a list
of hashes, so that keyword scores, totals and facets count documents, as in the embedded engine. Point 0 is the marker:
it stores how far the collection has followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from app.search.engines.base import EngineRequest, Facet, Filters
from app.search.engines.source import IndexedDocument
from app.search.text.analyzer import region_free, unpack

MARKER = 0
K1, B = 1.5, 0.75

FIELDS: dict[str, models.PayloadSchemaType | models.KeywordIndexParams | models.IntegerIndexParams] = {
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "document": models.PayloadSchemaType.INTEGER,
    "collection": models.PayloadSchemaType.INTEGER,
    "terms": models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False),
    "head": models.PayloadSchemaType.BOOL,
    "dense": models.PayloadSchemaType.BOOL,
    "embedded": models.PayloadSchemaType.BOOL,
    "mobile": models.PayloadSchemaType.BOOL,
    "fetched": models.PayloadSchemaType.FLOAT,
    **dict.fromkeys(
        ("domain", "sites", "language", "languages", "stem", "country", "source", "tags"),
        models.PayloadSchemaType.KEYWORD,
    ),
}
FACETS: dict[Facet, str] = {
    "source": "source", "domain": "domain", "language": "language", "tags": "tags", "collection": "collection",
}  # fmt: skip


def points(document: IndexedDocument, average: float, round_: int) -> Iterator[models.PointStruct]:
    """Yield the document's points; `average` is the usual number of words, `round_` identifies this write."""
    about = _about(document) | {"round": round_}
    dense = [_is_known(chunk.vector) for chunk in document.chunks]
    for place, (chunk, known) in enumerate(zip(document.chunks, dense, strict=True)):
        vector: dict[str, Any] = {}
        payload = about | {"dense": known}
        if known and chunk.vector is not None:
            vector["dense"] = np.frombuffer(chunk.vector, "<f4").tolist()
        if place == 0:
            hashes = unpack(document.terms)[0].tolist()
            payload |= {"head": True, "embedded": any(dense), "stem": chunk.language, "terms": hashes}
            vector["words"] = _weighed(document.terms, average)
        # Not validated: rows of our own database need no check of each number.
        yield models.PointStruct.model_construct(id=chunk.id, vector=vector, payload=payload)


def _about(document: IndexedDocument) -> dict[str, Any]:
    payload = {
        "tenant": document.tenant,
        "document": document.id,
        "collection": document.collection_id,
        "domain": document.domain,
        "sites": sites(document.domain) if document.domain else None,
        "language": document.language,
        "languages": sorted({document.language, region_free(document.language)}) if document.language else None,
        "country": document.country,
        "source": document.source,
        "tags": sorted(set(document.tags)) or None,
        "fetched": document.fetched_at.timestamp() if document.fetched_at else None,
    }
    return {name: value for name, value in payload.items() if value is not None} | {"mobile": bool(document.is_mobile)}


def sites(domain: str) -> list[str]:
    """Return the domain and all domains above it, with and without its port."""
    name = domain.casefold()
    host = name.rpartition(":")[0] or name
    result = {name}
    parts = host.split(".")
    result |= {".".join(parts[at:]) for at in range(len(parts))}
    return sorted(result)


def _is_known(vector: bytes | None) -> bool:
    return vector is not None and any(vector)


def _weighed(terms: bytes, average: float) -> models.SparseVector:
    """Return the document's side of Okapi's formula; the server adds the other, the rarity of each term."""
    hashes, counts = unpack(terms)
    frequency = np.maximum(counts.astype(np.float64), 1.0)
    norm = K1 * (1 - B + B * float(counts.sum()) / average)
    values = frequency * (K1 + 1) / (frequency + norm)
    return models.SparseVector.model_construct(indices=hashes.tolist(), values=values.tolist())


def question(terms: Mapping[int, float]) -> models.SparseVector:
    """Return the words of a query with their weights."""
    return models.SparseVector(indices=[*terms], values=[*terms.values()])


def has(key: str, value: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def has_any(key: str, values: Sequence[Any]) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))


def narrowed(ask: EngineRequest) -> tuple[list[Any], list[Any]]:
    """Return the conditions that a point must and must not meet by the filters, its tenant first."""
    filters = ask.filters
    must: list[Any] = [has("tenant", ask.tenant), *_equal(filters)]
    if filters.since is not None or filters.until is not None:
        since = filters.since.timestamp() if filters.since else None
        until = filters.until.timestamp() if filters.until else None
        must.append(models.FieldCondition(key="fetched", range=models.Range(gte=since, lt=until)))
    must += [has("tags", tag) for tag in filters.tags]
    if filters.collection_ids is not None:
        must.append(has_any("collection", filters.collection_ids))
    if filters.document_ids is not None:
        must.append(has_any("document", filters.document_ids))
    return must, [has_any("document", filters.not_ids)] if filters.not_ids else []


def _equal(filters: Filters) -> list[models.FieldCondition]:
    values = {
        "domain": filters.domain,
        "sites": filters.site.casefold() if filters.site else None,
        "languages": filters.language,
        "country": filters.country,
        "mobile": filters.is_mobile,
        "source": filters.source,
    }
    return [has(key, value) for key, value in values.items() if value is not None]
