"""Deletion of all documents that a filter selects, in one job."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.audit import note
from app.api.http.auth import CollectionCaller, Identity
from app.api.http.collection_access import select_collections
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.responses import answer_of, answered
from app.api.http.times import utc
from app.api.models.base import documented
from app.api.models.documents import DeletePreview
from app.api.models.jobs import AcceptedJob
from app.core import clock
from app.core.db import read
from app.documents import bulk
from app.documents.jobs import DeleteDocuments, DocumentSelection
from app.documents.text import scrub_text
from app.jobs.ledger.enqueue import enqueue
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["documents"])

Tag = Annotated[str, Field(max_length=100)]


class DeleteFilter(BaseModel):
    """Conditions that a document must meet, at least one; it must have all of the tags."""

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

    def selection(self) -> DocumentSelection:
        """Return the filter of the job. Raises InvalidInput for a filter without a condition."""
        texts = ("domain", "language", "country", "source")
        exact = {name: scrub_text(value) for name in texts if (value := getattr(self, name)) is not None}
        selection = DocumentSelection(
            **exact,
            tags=tuple(scrub_text(tag) for tag in self.tags),
            indexed=self.indexed,
            created_after=utc(self.created_after, "created_after"),
            created_before=utc(self.created_before, "created_before"),
        )
        return selection if self.collection is not None else bulk.check_selection(selection)


class DeleteDocumentsRequest(BaseModel):
    """The documents to delete."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"filter": {"domain": "docs.example.org", "tags": ["old"]}, "dry_run": True}]},
    )

    filter: DeleteFilter
    dry_run: bool = Field(False, description="Return the selected documents and delete nothing.")


@router.post(
    "/documents:delete",
    summary="Delete all documents that a filter selects",
    status_code=202,
    responses={
        202: documented(AcceptedJob, "The job. `Location` has its address."),
        200: documented(DeletePreview | AcceptedJob, "With `dry_run`: the selected documents. Else the ended job."),
    },
)
async def delete_documents(
    request: Request, caller: CollectionCaller, once: Idempotent, body: DeleteDocumentsRequest
) -> Response:
    """Starts a job with progress. It deletes only documents that exist at the time of the request."""
    selection = body.filter.selection()
    if body.dry_run:
        return JSONResponse(await read(_preview, caller, body, selection))

    def work(session: Session) -> Answer:
        job = _job(session, caller, body, selection)
        row = enqueue(session, job, tenant=caller.tenant, request_id=caller.request_id)
        conditions = body.filter.model_dump(mode="json", exclude_defaults=True)
        note(session, caller, "documents.delete", row.id, tenant=caller.tenant, filter=conditions)
        return answer_of(row)

    return await answered(request, caller.tenant, await once.run(caller, work))


def _preview(
    session: Session, caller: Identity, body: DeleteDocumentsRequest, selection: DocumentSelection
) -> dict[str, object]:
    return bulk.preview(session, caller.tenant, _job(session, caller, body, selection))


def _job(
    session: Session, caller: Identity, body: DeleteDocumentsRequest, selection: DocumentSelection
) -> DeleteDocuments:
    names = () if body.filter.collection is None else (body.filter.collection,)
    within = select_collections(session, caller, scopes.WRITE, names)
    return DeleteDocuments(wanted=selection.model_copy(update={"collection_ids": within}), asked_at=clock.now())
