"""Search, documents and collections."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.dashboard.frame import page
from app.dashboard.listing import PAGE_ROWS, address, before_number, chips_of, cut
from app.dashboard.routing import router as make_router
from app.dashboard.routing import see_other
from app.dashboard.visitor import Reader, Visitor, Writer
from app.documents import catalog, collections, versions
from app.jobs.ledger import views
from app.search.engines.base import Facet, Filters, Mode
from app.search.query import search as engine
from app.search.query.question import Question

router = make_router()

FACETS: tuple[Facet, ...] = ("source", "domain", "language", "collection", "tags")
HITS = 10
MAX_TEXT_CHARS = 200_000
TextFilter = Annotated[str, Query(max_length=300)]


@router.get("/search")
async def show_search(
    request: Request,
    visitor: Reader,
    q: Annotated[str, Query(max_length=4096)] = "",
    mode: Mode = "hybrid",
    cursor: Annotated[str, Query(max_length=500)] = "",
    source: TextFilter = "",
    domain: TextFilter = "",
    language: TextFilter = "",
    collection: TextFilter = "",
    tags: TextFilter = "",
) -> Response:
    chosen = {"source": source, "domain": domain, "language": language, "collection": collection, "tags": tags}
    answer = await _answer(visitor, q, mode, cursor, chosen) if q.strip() else None
    return page(
        request,
        "search.html",
        visitor=visitor,
        q=q,
        mode=mode,
        answer=answer,
        hits=[hit | {"parts": highlight(hit)} for hit in answer["results"]] if answer else [],
        chosen={name: value for name, value in chosen.items() if value},
        more=address(request, cursor=answer["next_cursor"]) if answer and answer["next_cursor"] else None,
        link=lambda **changes: address(request, **{"cursor": None} | changes),
    )


async def _answer(visitor: Visitor, q: str, mode: Mode, cursor: str, chosen: dict[str, str]) -> dict[str, Any]:
    ids = await read(_collection_ids, visitor.tenant, chosen["collection"])
    filters = Filters(
        domain=chosen["domain"] or None,
        language=chosen["language"] or None,
        source=chosen["source"] or None,
        tags=(chosen["tags"],) if chosen["tags"] else (),
        collection_ids=ids,
    )
    question = Question(query=q, mode=mode, filters=filters, limit=HITS, cursor=cursor or None, facets=FACETS)
    answer = await engine.search(visitor.tenant, question)
    counts = answer["facets"].get("collection", [])
    names = await read(collections.names, [int(count["value"]) for count in counts])
    answer["facets"]["collection"] = [
        count | {"value": names[int(count["value"])]} for count in counts if int(count["value"]) in names
    ]
    return answer


def _collection_ids(session: Session, tenant: str, name: str) -> tuple[int, ...] | None:
    return collections.ids(session, tenant, [name]) if name else None


def highlight(hit: dict[str, Any]) -> list[tuple[str, bool]]:
    """Return the snippet in parts, each with True if it matches the query."""
    text, parts, end = hit["snippet"], [], 0
    for start, stop in hit["highlights"]:
        if start > end:
            parts.append((text[end:start], False))
        parts.append((text[max(start, end) : stop], True))
        end = max(end, stop)
    return [(part, is_match) for part, is_match in [*parts, (text[end:], False)] if part]


@router.get("/documents")
async def show_documents(
    request: Request,
    visitor: Reader,
    collection: TextFilter = "",
    domain: TextFilter = "",
    language: TextFilter = "",
    source: TextFilter = "",
    tag: TextFilter = "",
    indexed: Literal["", "yes", "no"] = "",
) -> Response:
    chosen = {"collection": collection, "domain": domain, "language": language, "source": source, "tag": tag}
    rows = await read(_documents, visitor.tenant, chosen, indexed, before_number(request))
    return page(
        request,
        "documents.html",
        visitor=visitor,
        listing=cut(request, rows, lambda row: row, lambda row: row["id"]),
        chips=chips_of(request, chosen),
        chosen=chosen,
        indexed=indexed,
    )


def _documents(
    session: Session, tenant: str, chosen: dict[str, str], indexed: str, before_id: int | None
) -> list[dict[str, Any]]:
    ids = _collection_ids(session, tenant, chosen["collection"])
    conditions = catalog.DocumentFilter(
        domain=chosen["domain"] or None,
        language=chosen["language"] or None,
        source=chosen["source"] or None,
        tags=(chosen["tag"],) if chosen["tag"] else (),
        indexed={"yes": True, "no": False}.get(indexed),
        collection_ids=ids,
        before_id=before_id,
    )
    return [catalog.document_view(row) for row in catalog.list_documents(session, tenant, conditions, PAGE_ROWS + 1)]


@router.get("/documents/{document_id}")
async def show_document(request: Request, visitor: Reader, document_id: str) -> Response:
    document, jobs = await read(_document, visitor.tenant, document_id)
    text = document["text"] or ""
    return page(
        request, "document.html", visitor=visitor, document=document, jobs=jobs, text=text[:MAX_TEXT_CHARS],
        is_cut=len(text) > MAX_TEXT_CHARS,
    )  # fmt: skip


def _document(session: Session, tenant: str, document_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    document = catalog.document_detail(session, tenant, document_id)
    of_document = views.JobFilter(document_id=int(document_id))
    return document, [views.job_view(row) for row in views.list_jobs(session, tenant, of_document, HITS)]


@router.get("/documents/{document_id}/similar")
async def show_similar(request: Request, visitor: Reader, document_id: str) -> Response:
    document = await read(_view, visitor.tenant, document_id)
    hits = await engine.similar(visitor.tenant, int(document["id"]), limit=HITS)
    return page(request, "similar.html", visitor=visitor, document=document, hits=hits)


def _view(session: Session, tenant: str, document_id: str) -> dict[str, Any]:
    return catalog.document_view(catalog.get(session, tenant, document_id))


@router.get("/documents/{document_id}/diff")
async def show_diff(
    request: Request,
    visitor: Reader,
    document_id: str,
    first: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    last: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> Response:
    document, pair = await read(_pair, visitor.tenant, document_id, first, last)
    difference = await asyncio.to_thread(versions.diff, *pair)
    return page(request, "diff.html", visitor=visitor, document=document, difference=difference)


def _pair(
    session: Session, tenant: str, document_id: str, first: int | None, last: int | None
) -> tuple[dict[str, Any], tuple[versions.VersionText, versions.VersionText]]:
    document = catalog.get(session, tenant, document_id)
    return catalog.document_view(document), versions.find_pair(session, document, first, last)


@router.post("/documents/{document_id}/delete")
async def delete_document(visitor: Writer, document_id: str) -> Response:
    await in_transaction(_delete, visitor, document_id)
    return see_other("/ui/documents", "The document was deleted.")


def _delete(session: Session, visitor: Visitor, document_id: str) -> None:
    catalog.delete(session, visitor.tenant, document_id)
    visitor.note(session, "document.delete", document_id)


@router.get("/collections")
async def show_collections(request: Request, visitor: Reader) -> Response:
    after = request.query_params.get("before")
    if after is not None and not after.isprintable():
        raise InvalidInput("before must be the name of a collection", code="cursor")
    rows = await read(_collections, visitor.tenant, after)
    listing = cut(request, rows, lambda row: row, lambda row: row["name"])
    return page(request, "collections.html", visitor=visitor, listing=listing)


def _collections(session: Session, tenant: str, after: str | None) -> list[dict[str, Any]]:
    rows = collections.list_collections(session, tenant, only=None, after=after, limit=PAGE_ROWS + 1)
    return collections.views(session, tenant, rows)
