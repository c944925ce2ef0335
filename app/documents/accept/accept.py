"""Accept content: the document's row, a version with the body, and its indexing job, in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import CollectionNotFound, Conflict, InvalidInput
from app.core.inserts import add, add_unless_there
from app.documents import catalog, collections, urls
from app.documents.fields import DocumentFields
from app.documents.jobs import IngestDocument
from app.documents.models import MAX_URL_BYTES, Document, DocumentVersion
from app.documents.text import clean_line, scrub, scrub_text
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger.enqueue import enqueue

Format = Literal["markdown", "text", "html", "file"]
# Ids of the collections that the caller may use; None means all, and documents without a collection.
Reach = Collection[int] | None

MAX_KEY_CHARACTERS = 512
MAX_TAGS = 100
MAX_TAG_CHARACTERS = 100
_FILE_COLUMNS = ("blob_key", "size_bytes", "media_type", "file_name")
DOCUMENT = cast(sa.Table, Document.__table__)


def _by(column: sa.Column[Any]) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """Return the query for a document's id by this column, and the same with a row lock.

    Built once: building a query costs as much as running it.
    """
    same = (DOCUMENT.c.tenant == sa.bindparam("of"), column == sa.bindparam("value"))
    query = sa.select(DOCUMENT.c.id).where(*same)
    return query, query.with_for_update()


_BY_KEY, _BY_URL = _by(DOCUMENT.c.external_id), _by(DOCUMENT.c.canonical_url)


@dataclass(frozen=True, slots=True)
class About:
    """The fields that a caller sent for a document; None leaves a field to the content."""

    url: str | None = None
    external_id: str | None = None
    title: str | None = None
    description: str | None = None
    language: str | None = None
    country: str | None = None
    is_mobile: bool = False
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = "api"
    # Name of a collection; None leaves the document where it is.
    collection: str | None = None

    def fields(self) -> DocumentFields:
        """Return the cleaned fields as a version stores them."""
        return DocumentFields(
            title=clean_line(self.title),
            description=clean_line(self.description, 4000),
            language=clean_line(self.language, 35),
            country=clean_line(self.country, 64),
            is_mobile=self.is_mobile,
            tags=sorted({tag for text in self.tags if (tag := clean_line(text, MAX_TAG_CHARACTERS))})[:MAX_TAGS],
            metadata=scrub(dict(self.metadata)),
            source=clean_line(self.source, 64) or "api",
        )


@dataclass(frozen=True, slots=True)
class Original:
    """A file in the store of blobs."""

    blob_key: str
    size_bytes: int
    media_type: str
    file_name: str


@dataclass(frozen=True, slots=True)
class Content:
    """A body in one format. `html` may accompany Markdown and is stored with it.

    `original` is a file from the web: the format is then file, and the body is blank.
    """

    format: Format
    body: str
    html: str | None = None
    resolved_url: str | None = None
    status_code: int | None = None
    crawl_session: str | None = None
    fetched_at: datetime | None = None
    # Validators from the page's server.
    etag: str | None = None
    last_modified: str | None = None
    original: Original | None = None

    def content_hash(self) -> str:
        if self.original is not None:
            return self.original.blob_key
        parts = (self.format, self.body, self.html or "")
        return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class Accepted:
    job: EnqueuedJob
    document_id: int
    version_id: int


def accept(
    session: Session,
    about: About,
    content: Content,
    *,
    tenant: str,
    request_id: str | None = None,
    reach: Reach = None,
) -> Accepted:
    """Store the content as a version of its document, found by key or URL or else created, and queue its indexing.

    Raises InvalidInput for blank content or an invalid URL, NotFound for an unknown collection, Conflict if the
    document
    is in a collection outside of `reach`.
    """
    _check_text(content)  # before anything is written
    document_id, is_new = _find_and_move(session, about, tenant, reach)
    version_id = receive(session, document_id, about, content, tenant=tenant, is_new=is_new)
    job = IngestDocument(document_id=document_id, version_id=version_id)
    row = enqueue(session, job, tenant=tenant, request_id=request_id, document_id=document_id)
    return Accepted(row, document_id, version_id)


def find_or_make(session: Session, about: About, *, tenant: str, reach: Reach = None) -> int:
    """Return the id of the document with this key, else this URL, with its row locked; create a missing document.

    The document is put into the collection that `about` names. Raises as accept() does.
    """
    return _find_and_move(session, about, tenant, reach)[0]


def _find_and_move(session: Session, about: About, tenant: str, reach: Reach) -> tuple[int, bool]:
    """Like find_or_make(); also return True if the document is new."""
    document_id, is_new = _find_or_create(session, about, tenant)
    collection_id = None if about.collection is None else collections.find(session, tenant, about.collection).id
    if collection_id is None and reach is None:
        return document_id, is_new
    if collection_id is not None and reach is not None and collection_id not in reach:
        raise CollectionNotFound("Collection not found")
    document = session.get_one(Document, document_id)
    if reach is not None and document.collection_id is not None and document.collection_id not in reach:
        raise Conflict("the document is in another collection", code="other_collection")
    if reach is not None and document.collection_id is None and document.version_id is not None:
        raise Conflict("the document is in no collection", code="other_collection")
    if collection_id is not None:
        catalog.move(session, document, collection_id)
    return document_id, is_new


def _find_or_create(session: Session, about: About, tenant: str) -> tuple[int, bool]:
    url = urls.check_url(about.url) if about.url is not None else None
    key = clean_line(about.external_id, MAX_KEY_CHARACTERS)
    document_id = _find(session, tenant, key, url)
    if document_id is not None:
        return document_id, False
    created_id = add_unless_there(session, Document, _new_document(about, tenant, key, url))
    if created_id is not None:
        return created_id, True
    document_id = _find(session, tenant, key, url)  # another transaction has just created it
    if document_id is None:
        raise Conflict("another document has this url", code="url_taken")
    return document_id, False


def receive(
    session: Session, document_id: int, about: About, content: Content, *, tenant: str, is_new: bool = False
) -> int:
    """Store the content as a version until it is indexed; return the version's id.

    The same content again returns the first version while it still waits; the document's row must be locked. `is_new`:
    this
    transaction created the document, so it has no version yet.
    """
    _check_text(content)
    values = _version(document_id, about, content, tenant)
    latest = None if is_new else _latest(session, document_id)
    same = ("received", values["content_hash"], values["fields"])
    if latest is not None and (latest.state, latest.content_hash, latest.fields) == same:
        return int(latest.id)
    return add(session, DocumentVersion, values)


def _check_text(content: Content) -> None:
    if content.original is None and not content.body.strip() and not (content.html or "").strip():
        raise InvalidInput("the document has no text", code="empty_document")


def _latest(session: Session, document_id: int) -> sa.Row[Any] | None:
    """Return id, state, hash and fields of the newest version, without its text, which may be megabytes."""
    columns = (DocumentVersion.id, DocumentVersion.state, DocumentVersion.content_hash, DocumentVersion.fields)
    query = sa.select(*columns).where(DocumentVersion.document_id == document_id)
    return session.execute(query.order_by(DocumentVersion.id.desc()).limit(1)).one_or_none()


def make_version(document_id: int, about: About, content: Content, *, tenant: str) -> DocumentVersion:
    """Return a version with this content, not yet in the database."""
    return DocumentVersion(**_version(document_id, about, content, tenant))


def _version(document_id: int, about: About, content: Content, tenant: str) -> dict[str, Any]:
    now = clock.now()
    is_html = content.format == "html"
    body = None if is_html else scrub_text(content.body)
    html = scrub_text(content.body if is_html else content.html or "") or None
    original = content.original
    file = {} if original is None else {name: getattr(original, name) for name in _FILE_COLUMNS}
    if original is not None:
        body = html = None
    return {
        "tenant": tenant,
        "document_id": document_id,
        "state": "received",
        "format": content.format,
        "content_hash": content.content_hash(),
        "url": clean_line(about.url, MAX_URL_BYTES),
        "resolved_url": clean_line(content.resolved_url, MAX_URL_BYTES),
        "status_code": content.status_code,
        "crawl_session": clean_line(content.crawl_session, 255),
        "fields": about.fields().view(),
        "body": body,
        "html": html,
        "size_bytes": len((body or "").encode()) + len((html or "").encode()),
        **file,
        "etag": content.etag,
        "last_modified": content.last_modified,
        "fetched_at": content.fetched_at or now,
        "created_at": now,
    }


def known_id(session: Session, about: About, *, tenant: str) -> int | None:
    """Return the id of the document that `about` identifies, or None, without a lock."""
    return _find(session, tenant, clean_line(about.external_id, MAX_KEY_CHARACTERS), about.url, lock=False)


def _find(session: Session, tenant: str, key: str | None, url: str | None, *, lock: bool = True) -> int | None:
    if key is None and url is None:
        return None
    query, value = (_BY_KEY, key) if key is not None else (_BY_URL, urls.canonical(url or ""))
    row_id = session.connection().execute(query[lock], {"of": tenant, "value": value}).scalar_one_or_none()
    return None if row_id is None else int(row_id)


def _new_document(about: About, tenant: str, key: str | None, url: str | None) -> dict[str, Any]:
    now = clock.now()
    values = {
        "tenant": tenant,
        "external_id": key,
        "url": url,
        "created_at": now,
        "updated_at": now,
        **about.fields().view(),
    }
    return values | ({} if url is None else {"canonical_url": urls.canonical(url), "domain": urls.domain(url)})


def describe(document: Document, fields: DocumentFields) -> None:
    """Copy a version's fields to its document."""
    for name in ("title", "description", "language", "country", "is_mobile", "tags", "source"):
        setattr(document, name, getattr(fields, name))
    document.meta = fields.metadata
