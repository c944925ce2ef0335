"""Documents over HTTP: give one, list, show, delete; and the two index routes of the old service."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import Caller, CollectionCaller, Identity, Page, Paging
from app.api.http.idempotency import OnceOnly
from app.api.http.responses import answer_of, answered, wait_for_end
from app.api.http.times import utc
from app.api.routes.documents.collections import reach, reach_of, target
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.documents import catalog, collections
from app.documents.accept.accept import About, Accepted, Content, accept
from app.documents.accept.quota import within
from app.documents.accept.request import DocumentRequest
from app.documents.catalog import DocumentFilter, document_view
from app.documents.text import scrub_text
from app.jobs.idempotency import Answer
from app.sources.pages import accept_page
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["documents"])

TEST_WAIT_S = 30.0
LARGEST_ID = 2**63 - 1
JOB: dict[int | str, dict[str, Any]] = {
    200: {"description": "The ended job, where the caller waited."},
    202: {"description": "Accepted: the job, and its address in `Location`."},
}


def _alias(name: str, old: str, default: Any = None) -> Any:
    return Field(default, validation_alias=AliasChoices(old, name))


class IndexRequest(BaseModel):
    """A scraped page as the old service took it, or the short form: url and markdown or html."""

    model_config = ConfigDict(populate_by_name=True)

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
        """Raises InvalidInput where neither body has text."""
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


@router.post("/index", summary="Index a scraped page", responses=JOB, status_code=202)
async def index(request: Request, caller: Caller, once: OnceOnly, body: IndexRequest) -> Response:
    about, content = body.split()

    def work(session: Session) -> Answer:
        job = accept(session, about, content, tenant=caller.tenant, request_id=caller.request_id).job
        old = {"job_id": job.id, "status": "queued", "message": f"Document queued for indexing: {body.url}"}
        return answer_of(job, _sayable(old))

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


@router.post("/test-index", summary="Index a page and wait for it, step by step")
async def test_index(request: Request, caller: Caller, body: IndexRequest) -> dict[str, Any]:
    started = clock.monotonic()
    taken = await _accept(caller, *body.split())
    job = await wait_for_end(request, caller.tenant, taken.job.id, TEST_WAIT_S)
    took_ms = round(1000 * (clock.monotonic() - started), 2)
    return _test_report(job) | _sayable({"url": body.url, "total_duration_ms": took_ms, "job_id": taken.job.id})


@router.post("/documents", summary="Give a document, or the url of one", responses=JOB, status_code=202)
async def add_document(request: Request, caller: CollectionCaller, once: OnceOnly, body: DocumentRequest) -> Response:
    about, content = replace(body.about(), collection=target(caller, body.collection)), body.content()

    def work(session: Session) -> Answer:
        given: Any = {"tenant": caller.tenant, "request_id": caller.request_id}
        given["reach"] = reach(session, caller, scopes.WRITE)
        if content is None:
            return answer_of(accept_page(session, about, **given))
        return answer_of(accept(session, about, content, **given).job)

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


@router.get("/documents", summary="List documents, the newest first")
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
    given: dict[str, Any] = {name: scrub_text(value) for name, value in exact.items() if value is not None}
    wanted = DocumentFilter(
        **given,
        tags=tuple(scrub_text(value) for value in tag or ()),
        indexed=indexed,
        created_after=utc(created_after, "created_after"),
        created_before=utc(created_before, "created_before"),
        before_id=_before(paging),
    )
    return await read(_page_of_documents, caller, wanted, tuple(collection or ()), paging)


@router.get("/documents/{document_id}", summary="One document with text, versions and its last job")
async def show_document(caller: CollectionCaller, document_id: str) -> dict[str, Any]:
    return await read(_document, caller, document_id)


class DocumentChange(BaseModel):
    """Only what is given changes. `collection`: the name of the one it goes to; null takes it out."""

    model_config = ConfigDict(extra="forbid")

    collection: Annotated[str, Field(max_length=100)] | None = None


@router.patch("/documents/{document_id}", summary="Put a document into a collection, or take it out")
async def change_document(caller: CollectionCaller, document_id: str, body: DocumentChange) -> dict[str, Any]:
    return await in_transaction(_change, caller, document_id, body)


@router.delete("/documents/{document_id}", summary="Forget a document", status_code=204)
async def delete_document(caller: CollectionCaller, document_id: str) -> None:
    """Its open jobs are cancelled; no search finds it any more."""
    await in_transaction(_delete, caller, document_id)


def _document(session: Session, caller: Identity, document_id: str) -> dict[str, Any]:
    return catalog.document_detail(session, caller.tenant, document_id, reach(session, caller, scopes.READ))


def _delete(session: Session, caller: Identity, document_id: str) -> None:
    catalog.delete(session, caller.tenant, document_id, reach(session, caller, scopes.WRITE))


def _change(session: Session, caller: Identity, document_id: str, body: DocumentChange) -> dict[str, Any]:
    within = reach(session, caller, scopes.WRITE)
    document = catalog.get(session, caller.tenant, document_id, lock=True, reach=within)
    if "collection" in body.model_fields_set:
        name = target(caller, body.collection)
        catalog.move(session, document, None if name is None else collections.find(session, caller.tenant, name).id)
        session.flush()
        session.refresh(document)
    return document_view(document)


async def _accept(caller: Caller, about: About, content: Content) -> Accepted:
    return await in_transaction(
        within, caller.tenant, accept, about, content, tenant=caller.tenant, request_id=caller.request_id
    )


def _page_of_documents(
    session: Session, caller: Identity, wanted: DocumentFilter, names: tuple[str, ...], paging: Page
) -> dict[str, Any]:
    wanted = replace(wanted, collection_ids=reach_of(session, caller, scopes.READ, names))
    rows = catalog.list_documents(session, caller.tenant, wanted, paging.limit + 1)
    return paging.cut(rows, document_view, lambda row: [row.id])


def _test_report(job: dict[str, Any]) -> dict[str, Any]:
    """The old service's report, from the job's result."""
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
        report["error"] = error.get("message") or f"the job has not ended within {TEST_WAIT_S:g} s"
        report["error_type"] = error.get("type") or "Pending"
    return report


def _sayable(answer: dict[str, Any]) -> dict[str, Any]:
    """Without halves of surrogate pairs, which JSON in UTF-8 cannot say."""
    return {name: scrub_text(value) if isinstance(value, str) else value for name, value in answer.items()}


def _before(paging: Page) -> int | None:
    match paging.after:
        case None:
            return None
        case [int(document_id)] if 0 < document_id <= LARGEST_ID:
            return document_id
    raise InvalidInput("the cursor is not one of ours", code="cursor")
