"""A received version to the searched one: extract, chunk, embed, index. Each step can be repeated.

The first three read and compute; the last is one transaction. A chunk whose text has not changed keeps its vector, and
a version that changes nothing ends at once.
"""

from __future__ import annotations

import asyncio
import tempfile
from bisect import bisect_right
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.blobs import blobs
from app.core.db import in_transaction
from app.core.errors import InvalidInput, NotFound
from app.core.settings import get_settings
from app.documents.accept.accept import About, describe
from app.documents.accept.sniff import sniff
from app.documents.accept.uploads import Original, accept_attachments, safe_name
from app.documents.ingest.chunk import chunker
from app.documents.ingest.draft import Draft, result_of
from app.documents.ingest.unchanged import confirmed_since, end_unchanged, lasting, says_the_same
from app.documents.models import Document, DocumentVersion
from app.documents.text import clean, clean_line, detect_language, first_heading, scrub
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.sandbox import call
from app.jobs.worker.progress import Progress
from app.search.embedders import embedder
from app.search.index import generations
from app.search.index.chunk_vectors import make
from app.search.index.write import NewChunk, pack_terms, replace_document
from app.search.text.analyzer import packed_terms

EXTRACT_LIMIT_S = 60.0
EXTRACT_FILE = "app.documents.extract.file:extract_file"
# A scanned book takes its time.
EXTRACT_FILE_LIMIT_S = 3000.0
EXTRACT_HTML = "app.documents.extract.html_parser:extract_html"  # by name: only sandboxes load its libraries


async def ingest(document_id: int, version_id: int, progress: Progress, *, anew: bool = False) -> dict[str, Any]:
    """{status, document_id, version_id, chunks, embedded, tokens, timings_ms}.

    status: indexed; unchanged (the document says this already); superseded (a newer version was faster). Raises
    NotFound where the document was deleted, InvalidInput where nothing is left to index. `anew` reads what is known.
    """
    claim = progress.claim
    progress.report(stage="extract")
    await asyncio.to_thread(embedder)  # loaded now and not inside a transaction
    version, ended = await in_transaction(_begin, claim, document_id, version_id, anew)
    if ended is not None:
        return ended
    draft = Draft(fields=dict(version.fields))
    with draft.timed("extract"):
        try:
            await (_extract_file(version, draft, progress) if version.blob_key else extract_body(version, draft))
        except InvalidInput:
            if version.password is not None:
                await in_transaction(_forget_password, claim, version_id)
            raise
    if not (anew or version.blob_key):
        ended = await in_transaction(_as_before, claim, document_id, version_id, draft)
        if ended is not None:
            return ended
    progress.report(stage="chunk")
    with draft.timed("chunk"):
        await asyncio.to_thread(cut, draft)
    with draft.timed("embed"):
        await _embed(document_id, draft, progress)
    progress.report(0, len(draft.chunks), stage="index", unit="chunks")
    with draft.timed("index"):
        status = await in_transaction(_index, claim, document_id, version_id, draft)
    progress.report(len(draft.chunks), len(draft.chunks))
    return result_of(status, document_id, version_id, draft)


def _begin(
    session: Session, claim: Claim, document_id: int, version_id: int, anew: bool
) -> tuple[DocumentVersion, dict[str, Any] | None]:
    """The version, and the result if there is nothing left to do."""
    claims.hold(session, claim)
    document, version = _locked(session, claim.tenant, document_id, version_id)
    if version.state != "received":  # a second run of the job
        status = "indexed" if version.state == "current" else version.state
        return version, result_of(status, document_id, version_id, Draft())
    current = session.get(DocumentVersion, document.version_id) if document.version_id else None
    if anew or current is None or current.content_hash != version.content_hash:
        return version, None
    if lasting(current.fields) != lasting(version.fields):
        return version, None
    return version, end_unchanged(session, document, version, current, Draft())


def _as_before(
    session: Session, claim: Claim, document_id: int, version_id: int, draft: Draft
) -> dict[str, Any] | None:
    """The result, where the page says in other mark-up what it said before."""
    claims.hold(session, claim)
    document, version = _locked(session, claim.tenant, document_id, version_id)
    current = session.get(DocumentVersion, document.version_id) if document.version_id else None
    if current is None or current.id > version_id or not says_the_same(document, current, draft):
        return None
    return end_unchanged(session, document, version, current, draft)


def _forget_password(session: Session, claim: Claim, version_id: int) -> None:
    """It did not open the file, and is of no use to the next try."""
    claims.hold(session, claim)
    session.execute(sa.update(DocumentVersion).where(DocumentVersion.id == version_id).values(password=None))


def _locked(session: Session, tenant: str, document_id: int, version_id: int) -> tuple[Document, DocumentVersion]:
    query = sa.select(Document).where(Document.id == document_id, Document.tenant == tenant)
    document = session.scalars(query.with_for_update()).one_or_none()
    version = session.get(DocumentVersion, version_id)
    if document is None or version is None or version.document_id != document_id:
        raise NotFound(f"Document {document_id} was deleted", code="document_not_found")
    return document, version


async def extract_body(version: DocumentVersion, draft: Draft) -> None:
    """Fill the draft's text, title and language from the body as it was received."""
    html_language = None
    if version.body and version.body.strip():
        draft.text = await asyncio.to_thread(clean, version.body)
    if not draft.text and version.html:
        page, markdown = await extract_html(version.html, version.resolved_url or version.url)
        draft.text = await asyncio.to_thread(clean, markdown)
        html_language = clean_line(page["language"], 35)
        draft.fields["title"] = draft.fields["title"] or clean_line(page["title"])
        draft.fields["description"] = draft.fields["description"] or clean_line(page["description"], 4000)
    if not draft.text:
        raise InvalidInput("nothing is left to index after cleaning: the document has no text", code="empty_document")
    draft.language = draft.fields["language"] or html_language or await asyncio.to_thread(detect_language, draft.text)
    draft.fields["language"] = draft.language
    draft.fields["title"] = draft.fields["title"] or (
        first_heading(draft.text) if version.format != "text" else clean_line(draft.text.split("\n", 1)[0], 120)
    )


async def extract_html(html: str, url: str | None) -> tuple[dict[str, Any], str]:
    """What extract_html says, and its text. In a sandbox: an attacker's bytes in C code may take it down, not us."""
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "page.html"
        await asyncio.to_thread(blob.write_text, html, "utf-8", "replace")
        found: dict[str, Any] = await call.run(EXTRACT_HTML, {"url": url}, blob=blob, time_limit_s=EXTRACT_LIMIT_S)
        return found, await asyncio.to_thread(blob.with_suffix(".md").read_text, "utf-8")


async def _extract_file(version: DocumentVersion, draft: Draft, progress: Progress) -> None:
    """The same from the original; what came inside it is put beside it, to be accepted with the index."""
    assert version.blob_key is not None
    name = version.file_name or "file"
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "original"
        await blobs().fetch(version.blob_key, blob)
        found: dict[str, Any] = await call.run(
            EXTRACT_FILE,
            {"name": name, "media_type": version.media_type or "", "password": version.password},
            blob=blob,
            time_limit_s=EXTRACT_FILE_LIMIT_S,
            on_progress=lambda said: progress.report(**said),
        )
        draft.text = await asyncio.to_thread(blob.with_suffix(".md").read_text, "utf-8")
        draft.attachments = [one for said in found["attachments"] if (one := await _kept(said)) is not None]
    draft.pages = [(page["start"], page["number"]) for page in found["pages"]]
    fields = draft.fields
    fields["metadata"] = {**scrub(found["metadata"]), **fields["metadata"]}
    draft.language = fields["language"] or found["language"] or await asyncio.to_thread(detect_language, draft.text)
    fields["language"] = draft.language
    fields["description"] = fields["description"] or found["description"]
    fields["title"] = fields["title"] or found["title"] or first_heading(draft.text) or Path(name).stem


async def _kept(said: dict[str, str]) -> Original | None:
    """An attachment in the store; None for what cannot be read."""
    path, name = Path(said["path"]), safe_name(said["name"])
    kind = await asyncio.to_thread(sniff, path, name)
    if kind is None:
        return None
    blob = await blobs().put_file(path)
    return Original(blob.key, blob.size_bytes, kind, name)


def cut(draft: Draft) -> None:
    settings, model = get_settings(), embedder()
    cutter = chunker(model.tokenizer, settings.chunk_tokens, settings.chunk_overlap_tokens)
    title = draft.fields["title"]
    for piece in cutter.chunk(draft.text):
        page = _page_at(draft.pages, piece.start)
        draft.chunks.append(NewChunk.within(piece.text, piece.start, piece.end, piece.headings, title, page))
    if not draft.chunks:
        raise InvalidInput("nothing is left to index after cleaning: the document has no text", code="empty_document")
    draft.terms = pack_terms(draft.chunks, draft.language)
    draft.document_terms = packed_terms(f"{title}\n{draft.text}" if title else draft.text, draft.language)
    draft.tokens = sum(len(found.ids) for found in model.tokenizer.encode_batch([c.text for c in draft.chunks]))


def _page_at(pages: list[tuple[int, int]], at: int) -> int | None:
    """The number of the page that the character stands on; None where there are none, or but one."""
    if len(pages) < 2:
        return None
    return pages[max(0, bisect_right(pages, at, key=lambda page: page[0]) - 1)][1]


async def _embed(document_id: int, draft: Draft, progress: Progress) -> None:
    """A vector for each chunk; those that the document's chunks have already are not made again."""
    wanted = {chunk.text_hash: chunk.searched for chunk in draft.chunks}
    progress.report(0, len(wanted), stage="embed", unit="chunks")
    draft.made = await make([document_id], wanted, progress.report)
    draft.embedded = draft.made.embedded


def _index(session: Session, claim: Claim, document_id: int, version_id: int, draft: Draft) -> str:
    """Make the version current; 'superseded' where a newer one is, or was found to say what is searched already."""
    claims.hold(session, claim)
    document, version = _locked(session, claim.tenant, document_id, version_id)
    if (document.version_id or 0) > version_id or confirmed_since(session, version):
        version.text, version.language, version.body = draft.text, draft.language, None
        version.state = "superseded"
        return version.state
    if draft.attachments:
        about = About(tags=tuple(document.tags or ()), source=document.source)
        accept_attachments(session, document, about, draft.attachments, request_id=claim.request_id)
    make_current(session, document, version, draft)
    return "indexed"


def make_current(session: Session, document: Document, version: DocumentVersion, draft: Draft) -> None:
    """The version is what is searched from now on. Takes the number of a change: see replace_document."""
    now = clock.now()
    version.text, version.language, version.body, version.password = draft.text, draft.language, None, None
    if document.version_id is not None and document.version_id != version.id:
        session.execute(
            sa.update(DocumentVersion).where(DocumentVersion.id == document.version_id).values(state="superseded")
        )
    version.state, version.indexed_at = "current", now
    version.page_count = len(draft.pages) or None
    describe(document, draft.fields)
    document.version_id, document.chunk_count = version.id, len(draft.chunks)
    document.fetched_at, document.indexed_at, document.updated_at = version.fetched_at, now, now
    hashes = [chunk.text_hash for chunk in draft.chunks]
    draft.made.check(generations.hold_searched(session), hashes)
    replace_document(
        session,
        tenant=document.tenant,
        document_id=document.id,
        version_id=version.id,
        generation=draft.made.generation,
        language=draft.language,
        chunks=draft.chunks,
        terms=draft.terms,
        document_terms=draft.document_terms,
        vectors=draft.made.of(hashes),
        beside=draft.made.others(hashes),
    )
