"""Accept a file as a document: its original is stored unchanged, and a job reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import Conflict, NotFound
from app.documents import catalog
from app.documents.accept.accept import About, Reach, find_or_make
from app.documents.accept.accept import Original as Original
from app.documents.jobs import IngestDocument, ReprocessDocument
from app.documents.models import Document, DocumentVersion
from app.documents.text import clean_line
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from app.jobs.states import OPEN

Duplicates = Literal["allow", "link", "reject"]

MAX_NAME_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class AcceptedFile:
    """The document and the job that reads it; no job if the same file exists already."""

    document_id: int
    job: EnqueuedJob | None


def safe_name(name: str | None) -> str:
    """Return the last part of a file name, safe to show and to send as a header."""
    last = PurePath((name or "").replace("\\", "/")).name
    return (clean_line(last, MAX_NAME_CHARACTERS) or "file").strip(". ") or "file"


def accept_file(
    session: Session,
    about: About,
    original: Original,
    *,
    tenant: str,
    request_id: str | None = None,
    reach: Reach = None,
    duplicates: Duplicates = "allow",
    parent_id: int | None = None,
    password: str | None = None,
) -> AcceptedFile:
    """Store the file as the newest version of its document and queue the job that reads it.

    If another document of the tenant has the same bytes: `allow` makes a new document, `link` returns that document,
    `reject` raises Conflict. A file with a key or URL always belongs to the document with that key or URL. Raises as
    accept() does.
    """
    if about.url is None and about.external_id is None and duplicates != "allow":
        known = _with_these_bytes(session, tenant, original.blob_key, reach)
        if known is not None and duplicates == "reject":
            raise Conflict(f"document {known} has the same content", code="duplicate")
        if known is not None:
            return AcceptedFile(known, None)
    document_id = find_or_make(session, about, tenant=tenant, reach=reach)
    if parent_id is not None:
        session.get_one(Document, document_id).parent_id = parent_id
    version_id = receive_file(session, document_id, about, original, tenant=tenant, password=password)
    job = IngestDocument(document_id=document_id, version_id=version_id)
    row = enqueue(session, job, tenant=tenant, request_id=request_id, document_id=document_id)
    return AcceptedFile(document_id, row)


def _with_these_bytes(session: Session, tenant: str, blob_key: str, reach: Reach) -> int | None:
    # Searched, or about to be; a file that could not be read may be sent again.
    coming = sa.exists().where(JobRow.document_id == Document.id, JobRow.state.in_(OPEN))
    query = (
        sa.select(Document.id)
        .join(DocumentVersion, DocumentVersion.document_id == Document.id)
        .where(Document.tenant == tenant, DocumentVersion.blob_key == blob_key)
        .where(sa.or_(DocumentVersion.state == "current", sa.and_(DocumentVersion.state == "received", coming)))
    )
    if reach is not None:
        query = query.where(Document.collection_id.in_(reach))
    return session.scalar(query.order_by(Document.id).limit(1))


def receive_file(
    session: Session,
    document_id: int,
    about: About,
    original: Original,
    *,
    tenant: str,
    password: str | None = None,
) -> int:
    """Store a version that names this file; return its id. The same file again returns the version that still waits."""
    fields = about.fields().view()
    query = sa.select(DocumentVersion).where(DocumentVersion.document_id == document_id)
    latest = session.scalars(query.order_by(DocumentVersion.id.desc()).limit(1)).one_or_none()
    identity = None if latest is None else (latest.state, latest.content_hash, latest.fields)
    if latest is not None and identity == ("received", original.blob_key, fields):
        latest.password = password or latest.password
        return latest.id
    now = clock.now()
    version = DocumentVersion(
        tenant=tenant,
        document_id=document_id,
        state="received",
        format="file",
        content_hash=original.blob_key,
        blob_key=original.blob_key,
        media_type=original.media_type,
        file_name=original.file_name,
        password=password,
        url=about.url,
        fields=fields,
        size_bytes=original.size_bytes,
        fetched_at=now,
        created_at=now,
    )
    session.add(version)
    session.flush()
    return version.id


def accept_attachments(
    session: Session, document: Document, about: About, originals: Sequence[Original], *, request_id: str | None
) -> None:
    """Accept each attachment as a document; the same attachment again becomes a new version of it."""
    for number, original in enumerate(originals):
        key = f"{document.id}/{number}/{original.file_name}"
        key = key[:MAX_NAME_CHARACTERS]
        attachment = replace(about, external_id=key, url=None, title=original.file_name, description=None)
        accept_file(session, attachment, original, tenant=document.tenant, request_id=request_id, parent_id=document.id)


def reprocess(
    session: Session, document: Document, *, request_id: str | None, password: str | None = None
) -> EnqueuedJob:
    """Queue a job that reads the document's newest content again, from the original if there is one.

    Raises Conflict if no content is stored.
    """
    query = sa.select(DocumentVersion).where(DocumentVersion.document_id == document.id)
    # By time first: imported versions have their ids from another system.
    newest = (DocumentVersion.fetched_at.desc(), DocumentVersion.id.desc())
    latest = session.scalars(query.order_by(*newest).limit(1)).one_or_none()
    if latest is None or not (latest.blob_key or latest.body or latest.html or latest.text):
        raise Conflict("no content of this document is stored that could be read again", code="nothing_kept")
    if latest.state != "received":
        latest = _copy_version(session, latest)
    latest.password = password or latest.password
    job = ReprocessDocument(document_id=document.id, version_id=latest.id)
    return enqueue(session, job, tenant=document.tenant, request_id=request_id, document_id=document.id)


def _copy_version(session: Session, version: DocumentVersion) -> DocumentVersion:
    """Store a new version with the same content, to be read again."""
    names = ("blob_key", "media_type", "file_name", "url", "resolved_url", "status_code", "crawl_session", "html")
    same = {name: getattr(version, name) for name in (*names, "tenant", "document_id", "content_hash", "size_bytes")}
    body = None if version.blob_key or version.html else version.text or version.body
    copy = DocumentVersion(
        **same,
        format=version.format,
        state="received",
        fields=version.fields,
        body=body,
        fetched_at=version.fetched_at,
        created_at=clock.now(),
    )
    session.add(copy)
    session.flush()
    return copy


def find_original(session: Session, tenant: str, document_id: str, reach: Reach = None) -> Original:
    """Return the newest file of a document. Raises NotFound if it has none."""
    document = catalog.get(session, tenant, document_id, reach=reach)
    query = sa.select(DocumentVersion).where(
        DocumentVersion.document_id == document.id, DocumentVersion.blob_key.is_not(None)
    )
    version = session.scalars(query.order_by(DocumentVersion.id.desc()).limit(1)).one_or_none()
    if version is None or version.blob_key is None:
        raise NotFound(f"Document {document_id} came without a file", code="no_original")
    media_type, name = version.media_type or "application/octet-stream", version.file_name or "file"
    return Original(version.blob_key, version.size_bytes, media_type, name)
