"""Content to a document: its row, a version with the body, and the job that will index it, in one transaction."""

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
from app.documents.jobs import IngestDocument
from app.documents.models import LONGEST_URL, Document, DocumentVersion
from app.documents.text import clean_line, scrub, scrub_text
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger.enqueue import enqueue

Format = Literal["markdown", "text", "html"]
# The ids of the collections that the caller may touch; None is all, and what is in none.
Reach = Collection[int] | None

LONGEST_KEY = 512
MOST_TAGS = 100
LONGEST_TAG = 100
DOCUMENT = cast(sa.Table, Document.__table__)


def _by(column: sa.Column[Any]) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """The id of a tenant's document by this column; and the same with its row locked. Built once: it costs as much as
    asking."""
    same = (DOCUMENT.c.tenant == sa.bindparam("of"), column == sa.bindparam("value"))
    query = sa.select(DOCUMENT.c.id).where(*same)
    return query, query.with_for_update()


_BY_KEY, _BY_URL = _by(DOCUMENT.c.external_id), _by(DOCUMENT.c.canonical_url)


@dataclass(frozen=True, slots=True)
class About:
    """What a caller says of a document; None says nothing, and leaves it to the content."""

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
    # The name of a collection; None leaves the document where it is.
    collection: str | None = None

    def fields(self) -> dict[str, Any]:
        """What a version keeps of it, clean."""
        return {
            "title": clean_line(self.title),
            "description": clean_line(self.description, 4000),
            "language": clean_line(self.language, 35),
            "country": clean_line(self.country, 64),
            "is_mobile": self.is_mobile,
            "tags": sorted({tag for given in self.tags if (tag := clean_line(given, LONGEST_TAG))})[:MOST_TAGS],
            "metadata": scrub(dict(self.metadata)),
            "source": clean_line(self.source, 64) or "api",
        }


@dataclass(frozen=True, slots=True)
class Content:
    """A body in one format. `html` may come along with Markdown and is kept with it."""

    format: Format
    body: str
    html: str | None = None
    resolved_url: str | None = None
    status_code: int | None = None
    crawl_session: str | None = None
    fetched_at: datetime | None = None
    # What its server called it.
    etag: str | None = None
    last_modified: str | None = None

    def content_hash(self) -> str:
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
    """The document (the page's own, if its URL or key is known), a version to be indexed, and the job for it.

    Raises InvalidInput where the content is blank or the URL is none, NotFound for an unknown collection, Conflict
    where the document is in a collection outside of `reach`.
    """
    _check_text(content)  # before anything is written
    document_id, is_new = _placed(session, about, tenant, reach)
    version_id = receive(session, document_id, about, content, tenant=tenant, is_new=is_new)
    job = IngestDocument(document_id=document_id, version_id=version_id)
    row = enqueue(session, job, tenant=tenant, request_id=request_id, document_id=document_id)
    return Accepted(row, document_id, version_id)


def find_or_make(session: Session, about: About, *, tenant: str, reach: Reach = None) -> int:
    """The id of the document with this key, else this URL, its row locked; a new one where there is none.

    It is put into the collection that `about` names. Raises as accept() does.
    """
    return _placed(session, about, tenant, reach)[0]


def _placed(session: Session, about: About, tenant: str, reach: Reach) -> tuple[int, bool]:
    """The same, and whether the document is new."""
    document_id, is_new = _found_or_made(session, about, tenant)
    wanted = None if about.collection is None else collections.find(session, tenant, about.collection).id
    if wanted is None and reach is None:
        return document_id, is_new
    if wanted is not None and reach is not None and wanted not in reach:
        raise CollectionNotFound("Collection not found")
    document = session.get_one(Document, document_id)
    if reach is not None and document.collection_id is not None and document.collection_id not in reach:
        raise Conflict("this document is in another collection", code="other_collection")
    if reach is not None and document.collection_id is None and document.version_id is not None:
        raise Conflict("this document is in no collection", code="other_collection")
    if wanted is not None:
        catalog.move(session, document, wanted)
    return document_id, is_new


def _found_or_made(session: Session, about: About, tenant: str) -> tuple[int, bool]:
    url = urls.checked(about.url) if about.url is not None else None
    key = clean_line(about.external_id, LONGEST_KEY)
    found = _find(session, tenant, key, url)
    if found is not None:
        return found, False
    made = add_unless_there(session, Document, _new_document(about, tenant, key, url))
    if made is not None:
        return made, True
    found = _find(session, tenant, key, url)  # somebody made it a moment ago
    if found is None:
        raise Conflict("another document has this url", code="url_taken")
    return found, False


def receive(
    session: Session, document_id: int, about: About, content: Content, *, tenant: str, is_new: bool = False
) -> int:
    """The id of the version that keeps this content until it is indexed.

    The same content again, while the first still waits, is the first: the document's row must be locked. `is_new`: this
    transaction has made the document, so it has no version yet.
    """
    _check_text(content)
    values = _version(document_id, about, content, tenant)
    latest = None if is_new else _latest(session, document_id)
    same = ("received", values["content_hash"], values["fields"])
    if latest is not None and (latest.state, latest.content_hash, latest.fields) == same:
        return int(latest.id)
    return add(session, DocumentVersion, values)


def _check_text(content: Content) -> None:
    if not content.body.strip() and not (content.html or "").strip():
        raise InvalidInput("the document has no text", code="empty_document")


def _latest(session: Session, document_id: int) -> sa.Row[Any] | None:
    """Its id, state, hash and fields, and not its text: a page may have megabytes of it."""
    columns = (DocumentVersion.id, DocumentVersion.state, DocumentVersion.content_hash, DocumentVersion.fields)
    query = sa.select(*columns).where(DocumentVersion.document_id == document_id)
    return session.execute(query.order_by(DocumentVersion.id.desc()).limit(1)).one_or_none()


def version_of(document_id: int, about: About, content: Content, *, tenant: str) -> DocumentVersion:
    """A version that keeps this content, as it came."""
    return DocumentVersion(**_version(document_id, about, content, tenant))


def _version(document_id: int, about: About, content: Content, tenant: str) -> dict[str, Any]:
    now = clock.now()
    is_html = content.format == "html"
    body = None if is_html else scrub_text(content.body)
    html = scrub_text(content.body if is_html else content.html or "") or None
    return {
        "tenant": tenant,
        "document_id": document_id,
        "state": "received",
        "format": content.format,
        "content_hash": content.content_hash(),
        "url": clean_line(about.url, LONGEST_URL),
        "resolved_url": clean_line(content.resolved_url, LONGEST_URL),
        "status_code": content.status_code,
        "crawl_session": clean_line(content.crawl_session, 255),
        "fields": about.fields(),
        "body": body,
        "html": html,
        "size_bytes": len((body or "").encode()) + len((html or "").encode()),
        "etag": content.etag,
        "last_modified": content.last_modified,
        "fetched_at": content.fetched_at or now,
        "created_at": now,
    }


def known_id(session: Session, about: About, *, tenant: str) -> int | None:
    """The id of the document that `about` means, as it is now; None where there is none."""
    return _find(session, tenant, clean_line(about.external_id, LONGEST_KEY), about.url, lock=False)


def _find(session: Session, tenant: str, key: str | None, url: str | None, *, lock: bool = True) -> int | None:
    if key is None and url is None:
        return None
    query, value = (_BY_KEY, key) if key is not None else (_BY_URL, urls.canonical(url or ""))
    found = session.connection().execute(query[lock], {"of": tenant, "value": value}).scalar_one_or_none()
    return None if found is None else int(found)


def _new_document(about: About, tenant: str, key: str | None, url: str | None) -> dict[str, Any]:
    now = clock.now()
    values = {"tenant": tenant, "external_id": key, "url": url, "created_at": now, "updated_at": now, **about.fields()}
    return values | ({} if url is None else {"canonical_url": urls.canonical(url), "domain": urls.domain(url)})


def describe(document: Document, fields: Mapping[str, Any]) -> None:
    """Give the document what a version says of it."""
    for name in ("title", "description", "language", "country", "is_mobile", "tags", "source"):
        setattr(document, name, fields[name])
    document.meta = fields["metadata"]
