"""Many documents at once over HTTP: deleted by a filter, as a job of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import CollectionCaller, Identity
from app.api.http.idempotency import OnceOnly
from app.api.http.responses import answer_of, answered
from app.api.http.times import utc
from app.api.routes.admin.keys import note
from app.api.routes.documents.collections import reach_of
from app.core import clock
from app.core.db import read
from app.documents import bulk
from app.documents.jobs import DeleteDocuments, DocumentSelection
from app.documents.text import scrub_text
from app.jobs.idempotency import Answer
from app.jobs.ledger.enqueue import enqueue
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["documents"])

Tag = Annotated[str, Field(max_length=100)]


class DocumentsFilter(BaseModel):
    """All that is named must hold, and something must be named; a document has each of the tags."""

    model_config = ConfigDict(extra="forbid")

    collection: Annotated[str, Field(max_length=100)] | None = None
    domain: Annotated[str, Field(max_length=300)] | None = None
    language: Annotated[str, Field(max_length=35)] | None = None
    country: Annotated[str, Field(max_length=64)] | None = None
    source: Annotated[str, Field(max_length=64)] | None = None
    tags: Annotated[list[Tag], Field(max_length=20)] = []
    indexed: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def wanted(self) -> DocumentSelection:
        """Raises InvalidInput for a filter that means everything."""
        texts = ("domain", "language", "country", "source")
        exact = {name: scrub_text(value) for name in texts if (value := getattr(self, name)) is not None}
        wanted = DocumentSelection(
            **exact,
            tags=tuple(scrub_text(tag) for tag in self.tags),
            indexed=self.indexed,
            created_after=utc(self.created_after, "created_after"),
            created_before=utc(self.created_before, "created_before"),
        )
        return wanted if self.collection is not None else bulk.check_selection(wanted)


class DeleteRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    filter: DocumentsFilter
    dry_run: bool = Field(False, description="Say what would be deleted, and delete nothing.")


@router.post(
    "/documents:delete",
    summary="Delete all documents that a filter finds",
    status_code=202,
    responses={200: {"description": "With `dry_run`: what would be deleted."}, 202: {"description": "The job."}},
)
async def delete_documents(request: Request, caller: CollectionCaller, once: OnceOnly, body: DeleteRequest) -> Response:
    """A job of its own does it, with progress; only documents that are there now are deleted."""
    wanted = body.filter.wanted()
    if body.dry_run:
        return JSONResponse(await read(_preview, caller, body, wanted))

    def work(session: Session) -> Answer:
        job = _job(session, caller, body, wanted)
        row = enqueue(session, job, tenant=caller.tenant, request_id=caller.request_id)
        asked = body.filter.model_dump(mode="json", exclude_defaults=True)
        note(session, caller, "documents.delete", row.id, tenant=caller.tenant, filter=asked)
        return answer_of(row)

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


def _preview(session: Session, caller: Identity, body: DeleteRequest, wanted: DocumentSelection) -> dict[str, object]:
    return bulk.preview(session, caller.tenant, _job(session, caller, body, wanted))


def _job(session: Session, caller: Identity, body: DeleteRequest, wanted: DocumentSelection) -> DeleteDocuments:
    names = () if body.filter.collection is None else (body.filter.collection,)
    within = reach_of(session, caller, scopes.WRITE, names)
    return DeleteDocuments(wanted=wanted.model_copy(update={"collection_ids": within}), asked_at=clock.now())
