"""Routes that add, list, read, change and delete documents, and the two index routes of the old service."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import Caller, CollectionCaller, Identity
from app.api.http.collection_access import reachable_collections, select_collections, target_collection
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.paging import ListQuery, Paging
from app.api.http.responses import answer_of, answered
from app.api.http.times import utc
from app.api.http.waiting import wait_for_end
from app.api.models.base import documented
from app.api.models.documents import DocumentDetail, DocumentPage, DocumentSummary, IndexedPage, IndexReport
from app.api.models.jobs import JOB_ACCEPTED
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.documents import catalog, collections
from app.documents.accept.accept import About, Accepted, Content, accept
from app.documents.accept.quota import within
from app.documents.accept.request import DocumentRequest
from app.documents.catalog import DocumentFilter, document_view
from app.documents.text import scrub_text
from app.sources.pages import accept_page
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["documents"])

TEST_WAIT_S = 30.0


def _alias(name: str, old: str, default: Any = None) -> Any:
    return Field(default, validation_alias=AliasChoices(old, name))


class IndexRequest(BaseModel):
    """A scraped page in the shape of the old service, or the short form: url, and markdown or html."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra={
            "examples": [
                {
                    "url": "https://docs.example.org/keys",
                    "title": "Keys",
                    "markdown": "# Keys\n\nRotate keys once a year.",
                    "statusCode": 200,
                    "language": "en",
                }
            ]
        },
    )

    url: str
    resolved_url: str | None = _alias("resolved_url", "resolvedUrl")
    markdown: str | None = None
    html: str | None = None
    status_code: Annotated[int, Field(ge=0, le=999)] | None = _alias("status_code", "statusCode")
    title: str | None = None
    description: str | None = None
    gcs_path: str | None = _alias("gcs_path", "gcsPath")
    screenshot_url: str | None = _alias("screenshot_url", "screenshotUrl")
    language: str | None = None
    country: str | None = None
    is_mobile: bool | None = _alias("is_mobile", "isMobile", False)

    def split(self) -> tuple[About, Content]:
        """Return the description and the content. Raises InvalidInput if neither markdown nor html has text."""
        markdown, html = self.markdown or "", self.html or ""
        if not markdown.strip() and not html.strip():
            faults = [
                {"type": "missing", "loc": ["body", name], "msg": "markdown or html must have text", "input": None}
                for name in ("markdown", "html")
            ]
            raise InvalidInput("markdown or html must have text", code="empty_document", errors=faults)
        extra = {"gcs_path": self.gcs_path, "screenshot_url": self.screenshot_url}
        about = About(
            url=self.url,
            title=self.title,
            description=self.description,
            language=self.language,
            country=self.country,
            is_mobile=bool(self.is_mobile),
            metadata={name: value for name, value in extra.items() if value is not None},
            source="index",
        )
        resolved, status = self.resolved_url or self.url, self.status_code or 200
        if markdown.strip():
            return about, Content("markdown", markdown, html=html or None, resolved_url=resolved, status_code=status)
        return about, Content("html", html, resolved_url=resolved, status_code=status)


@router.post(
    "/index",
    summary="Index a scraped page",
    status_code=202,
    responses={
        202: documented(IndexedPage, "The job. `Location` has its address."),
        200: documented(IndexedPage, "The job, which has ended."),
    },
)
async def index_page(request: Request, caller: Caller, once: Idempotent, body: IndexRequest) -> Response:
    about, content = body.split()

    def work(session: Session) -> Answer:
        job = accept(session, about, content, tenant=caller.tenant, request_id=caller.request_id).job
        receipt = {"job_id": job.id, "status": "queued", "message": f"Document queued for indexing: {body.url}"}
        return answer_of(job, _encodable(receipt))

    return await answered(request, caller.tenant, await once.run(caller, work))


@router.post(
    "/test-index",
    summary="Index a page, wait for the end and report each step",
    responses={200: documented(IndexReport)},
)
async def test_index(request: Request, caller: Caller, body: IndexRequest) -> dict[str, Any]:
    started = clock.monotonic()
    accepted = await _accept(caller, *body.split())
    job = await wait_for_end(request, caller.tenant, accepted.job.id, TEST_WAIT_S)
    took_ms = round(1000 * (clock.monotonic() - started), 2)
    return _test_report(job) | _encodable({"url": body.url, "total_duration_ms": took_ms, "job_id": accepted.job.id})


@router.post("/documents", summary="Add a document, or the page at a URL", responses=JOB_ACCEPTED, status_code=202)
async def add_document(request: Request, caller: CollectionCaller, once: Idempotent, body: DocumentRequest) -> Response:
    about, content = replace(body.about(), collection=target_collection(caller, body.collection)), body.content()

    def work(session: Session) -> Answer:
        reach = reachable_collections(session, caller, scopes.WRITE)
        origin: Any = {"tenant": caller.tenant, "request_id": caller.request_id, "reach": reach}
        if content is None:
            return answer_of(accept_page(session, about, **origin))
        return answer_of(accept(session, about, content, **origin).job)

    return await answered(request, caller.tenant, await once.run(caller, work))


@router.get("/documents", summary="List documents, the newest first", responses={200: documented(DocumentPage)})
async def list_documents(
    caller: CollectionCaller,
    paging: Paging,
    domain: Annotated[str | None, Query(max_length=300)] = None,
    language: Annotated[str | None, Query(max_length=35)] = None,
    country: Annotated[str | None, Query(max_length=64)] = None,
    source: Annotated[str | None, Query(max_length=64)] = None,
    url: Annotated[str | None, Query(max_length=2048)] = None,
    external_id: Annotated[str | None, Query(max_length=512)] = None,
    collection: Annotated[list[str] | None, Query(max_length=20)] = None,
    tag: Annotated[list[str] | None, Query(max_length=20)] = None,
    indexed: bool | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> dict[str, Any]:
    exact = {
        "domain": domain, "language": language, "country": country, "source": source, "url": url,
        "external_id": external_id,
    }  # fmt: skip
    conditions: dict[str, Any] = {name: scrub_text(value) for name, value in exact.items() if value is not None}
    document_filter = DocumentFilter(
        **conditions,
        tags=tuple(scrub_text(value) for value in tag or ()),
        indexed=indexed,
        created_after=utc(created_after, "created_after"),
        created_before=utc(created_before, "created_before"),
        before_id=paging.after_number(),
    )
    return await read(_page_of_documents, caller, document_filter, tuple(collection or ()), paging)


@router.get(
    "/documents/{document_id}",
    summary="Get a document with its text, its versions and its last job",
    responses={200: documented(DocumentDetail)},
)
async def get_document(caller: CollectionCaller, document_id: str) -> dict[str, Any]:
    return await read(_document, caller, document_id)


class DocumentChange(BaseModel):
    """New values; absent fields stay as they are. `collection`: null removes the document from its collection."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"collection": "handbook"}]})

    collection: Annotated[str, Field(max_length=100)] | None = None


@router.patch(
    "/documents/{document_id}",
    summary="Move a document into a collection, or out of one",
    responses={200: documented(DocumentSummary)},
)
async def update_document(caller: CollectionCaller, document_id: str, body: DocumentChange) -> dict[str, Any]:
    return await in_transaction(_update, caller, document_id, body)


@router.delete("/documents/{document_id}", summary="Delete a document and its versions", status_code=204)
async def delete_document(caller: CollectionCaller, document_id: str) -> None:
    """Cancels its open jobs; searches no longer find it."""
    await in_transaction(_delete, caller, document_id)


def _document(session: Session, caller: Identity, document_id: str) -> dict[str, Any]:
    return catalog.document_detail(
        session, caller.tenant, document_id, reachable_collections(session, caller, scopes.READ)
    )


def _delete(session: Session, caller: Identity, document_id: str) -> None:
    catalog.delete(session, caller.tenant, document_id, reachable_collections(session, caller, scopes.WRITE))


def _update(session: Session, caller: Identity, document_id: str, body: DocumentChange) -> dict[str, Any]:
    within = reachable_collections(session, caller, scopes.WRITE)
    document = catalog.get(session, caller.tenant, document_id, lock=True, reach=within)
    if "collection" in body.model_fields_set:
        name = target_collection(caller, body.collection)
        catalog.move(session, document, None if name is None else collections.find(session, caller.tenant, name).id)
        session.flush()
        session.refresh(document)
    return document_view(document)


async def _accept(caller: Caller, about: About, content: Content) -> Accepted:
    return await in_transaction(
        within, caller.tenant, accept, about, content, tenant=caller.tenant, request_id=caller.request_id
    )


def _page_of_documents(
    session: Session, caller: Identity, document_filter: DocumentFilter, names: tuple[str, ...], paging: ListQuery
) -> dict[str, Any]:
    document_filter = replace(document_filter, collection_ids=select_collections(session, caller, scopes.READ, names))
    rows = catalog.list_documents(session, caller.tenant, document_filter, paging.limit + 1)
    return paging.cut(rows, document_view, lambda row: [row.id])


def _test_report(job: dict[str, Any]) -> dict[str, Any]:
    """Return the report of the old service, from the result of the job."""
    result = job.get("result") or {}
    timings = result.get("timings_ms", {})
    done = job["state"] == "succeeded"
    error = job.get("error") or {}
    report: dict[str, Any] = {"status": "success" if done else "failed" if error else "pending"}
    parse = {"step": "parse_document", "duration_ms": timings.get("extract", 0.0)}
    rest = round(sum(timings.get(stage, 0.0) for stage in ("chunk", "embed", "index")), 2)
    report["steps"] = [
        parse | {"status": "success" if done else "failed", "details": {"outcome": result.get("status")}},
        {
            "step": "index_document",
            "duration_ms": rest,
            "status": "success" if done else "failed",
            "details": {"stages_ms": timings, "chunks_embedded": result.get("embedded", 0)},
        },
    ]
    report["summary"] = {
        "chunks_indexed": result.get("chunks", 0),
        "total_tokens": result.get("tokens", 0),
        "indexed_to_qdrant": done,
        "indexed_to_bm25": done,
    }
    if not done:
        report["error"] = error.get("message") or f"the job did not end within {TEST_WAIT_S:g} s"
        report["error_type"] = error.get("type") or "Pending"
    return report


def _encodable(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer without lone surrogates, which UTF-8 cannot encode."""
    return {name: scrub_text(value) if isinstance(value, str) else value for name, value in answer.items()}
