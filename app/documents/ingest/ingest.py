"""Turn a received version into the searched one: extract, chunk, embed, index. Each step is repeatable.

The first three steps read and compute; the last is one transaction. A chunk with unchanged text keeps its vector, and
a version that changes nothing ends early.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from bisect import bisect_right
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.blobs import blobs
from app.core.db import in_transaction
from app.core.errors import InvalidInput, NotFound
from app.core.settings import get_settings
from app.documents.accept.accept import About, Original, describe
from app.documents.accept.uploads import accept_attachments, safe_name
from app.documents.fields import ContentFields, DocumentFields
from app.documents.files.sniff import sniff
from app.documents.ingest.chunk import chunker
from app.documents.ingest.draft import Draft, result_of
from app.documents.ingest.extracted import ExtractedAttachment, ExtractedFile, ExtractedPage, check_answer
from app.documents.ingest.unchanged import drop_fleeting, end_unchanged, has_same_text, is_outdated
from app.documents.models import Document, DocumentVersion
from app.documents.text import clean, clean_line, detect_language, first_heading, scrub
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.sandbox import call, outputs
from app.jobs.worker.progress import Progress
from app.search.embedders import embedder
from app.search.index import generations
from app.search.index.chunk_vectors import make_vectors
from app.search.index.write import NewChunk, pack_terms, replace_document
from app.search.text.analyzer import packed_terms

EXTRACT_LIMIT_S = 60.0
# Less than the limit: on a busy machine a page may need longer, and is tried again.
EXTRACT_CPU_S = 40.0
# Metadata about the reading of a file, which describes no content.
OWN_METADATA = {"no_text", "ocr_missing", "truncated", "unread_pages", "modified_ns"}
MAX_DESCRIPTION_CHARACTERS = 2_000
_WORDS = re.compile(r"[^\W_]+")
EXTRACT_FILE = "app.documents.extract.file:extract_file"
OCR_PROGRAM = "tesseract"
# OCR of a scanned book takes long.
EXTRACT_FILE_LIMIT_S = 3000.0
EXTRACT_HTML = "app.documents.extract.html_parser:extract_html"  # by name: its libraries are loaded in the sandbox only


async def ingest(document_id: int, version_id: int, progress: Progress, *, force: bool = False) -> dict[str, Any]:
    """Return {status, document_id, version_id, chunks, embedded, tokens, timings_ms}.

    status: indexed; unchanged (the document has this content already); superseded (a newer version was indexed first).
    Raises NotFound if the document was deleted, InvalidInput if no text is left to index. `force` also reads unchanged
    content.
    """
    claim = progress.claim
    progress.report(stage="extract")
    await asyncio.to_thread(embedder)  # loaded here, outside of any transaction
    version, ended = await in_transaction(_begin, claim, document_id, version_id, force)
    if ended is not None:
        return ended
    draft = Draft(fields=DocumentFields.load(version.fields))
    with draft.timed("extract"):
        try:
            await (_extract_file(version, draft, progress) if version.blob_key else extract_body(version, draft))
        except InvalidInput:
            if version.password is not None:
                await in_transaction(_forget_password, claim, version_id)
            raise
    if not (force or version.blob_key):
        ended = await in_transaction(_end_same_text, claim, document_id, version_id, draft)
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
    session: Session, claim: Claim, document_id: int, version_id: int, force: bool
) -> tuple[DocumentVersion, dict[str, Any] | None]:
    """Return the version, and the result if there is nothing left to do."""
    claims.hold(session, claim)
    document, version = _lock(session, claim.tenant, document_id, version_id)
    if version.state != "received":  # a second run of the job
        status = "indexed" if version.state == "current" else version.state
        return version, result_of(status, document_id, version_id, Draft())
    current = session.get(DocumentVersion, document.version_id) if document.version_id else None
    if force or current is None or current.content_hash != version.content_hash:
        return version, None
    if drop_fleeting(current.fields) != drop_fleeting(version.fields):
        return version, None
    return version, end_unchanged(session, document, version, current, Draft())


def _end_same_text(
    session: Session, claim: Claim, document_id: int, version_id: int, draft: Draft
) -> dict[str, Any] | None:
    """Return the result if only the mark-up changed and the text did not."""
    claims.hold(session, claim)
    document, version = _lock(session, claim.tenant, document_id, version_id)
    current = session.get(DocumentVersion, document.version_id) if document.version_id else None
    if current is None or current.id > version_id or not has_same_text(document, current, draft):
        return None
    return end_unchanged(session, document, version, current, draft)


def _forget_password(session: Session, claim: Claim, version_id: int) -> None:
    """Delete a password that did not open the file; it would not help the next attempt."""
    claims.hold(session, claim)
    session.execute(sa.update(DocumentVersion).where(DocumentVersion.id == version_id).values(password=None))


def _lock(session: Session, tenant: str, document_id: int, version_id: int) -> tuple[Document, DocumentVersion]:
    query = sa.select(Document).where(Document.id == document_id, Document.tenant == tenant)
    document = session.scalars(query.with_for_update()).one_or_none()
    version = session.get(DocumentVersion, version_id)
    if document is None or version is None or version.document_id != document_id:
        raise NotFound(f"Document {document_id} was deleted", code="document_not_found")
    return document, version


async def extract_body(version: DocumentVersion, draft: Draft) -> None:
    """Fill the draft's text and fields from the received body."""
    page = ExtractedPage()
    if version.body and version.body.strip():
        draft.text = await asyncio.to_thread(clean, version.body)
    if not draft.text and version.html:
        page, markdown = await extract_html(version.html, version.resolved_url or version.url)
        draft.text = await asyncio.to_thread(clean, markdown)
    if not draft.text:
        raise InvalidInput("no text is left to index after cleaning", code="empty_document")
    text = draft.text
    title = first_heading(text) if version.format != "text" else clean_line(text.split("\n", 1)[0], 120)
    content = ContentFields(
        title=clean_line(page.title),
        description=clean_line(page.description, 4000),
        language=clean_line(page.language, 35),
        derived_title=title,
    )
    await _complete(draft, content)


async def extract_html(html: str, url: str | None) -> tuple[ExtractedPage, str]:
    """Run extract_html in the sandbox, where hostile bytes crash only a child; return its result and the Markdown."""
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "page.html"
        await asyncio.to_thread(blob.write_text, html, "utf-8", "replace")
        limits = {"time_limit_s": EXTRACT_LIMIT_S, "cpu_s": EXTRACT_CPU_S}
        answer = await call.parse(EXTRACT_HTML, {"url": url}, blob=blob, **limits)
        page = check_answer(ExtractedPage, answer)
        return page, await asyncio.to_thread(outputs.read_text, blob.with_suffix(".md"))


async def extract_original(original: Original) -> str:
    """Return the Markdown of a stored file, without storing more of it. Raises the errors of extract_file()."""
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "original"
        await blobs().fetch(original.blob_key, blob)
        arguments = {"name": original.file_name, "media_type": original.media_type}
        limits = {"time_limit_s": EXTRACT_LIMIT_S, "cpu_s": EXTRACT_CPU_S, "programs": [OCR_PROGRAM]}
        await call.parse(EXTRACT_FILE, arguments, blob=blob, **limits)
        return await asyncio.to_thread(outputs.read_text, blob.with_suffix(".md"))


async def _extract_file(version: DocumentVersion, draft: Draft, progress: Progress) -> None:
    """Like extract_body, from the original file; attachments are stored, and accepted together with the index."""
    assert version.blob_key is not None
    name = version.file_name or "file"
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "original"
        await blobs().fetch(version.blob_key, blob)
        answer = await call.parse(
            EXTRACT_FILE,
            {"name": name, "media_type": version.media_type or "", "password": version.password},
            blob=blob,
            time_limit_s=EXTRACT_FILE_LIMIT_S,
            programs=[OCR_PROGRAM],
            on_progress=lambda report: progress.report(**report),
        )
        result = check_answer(ExtractedFile, answer)
        draft.text = await asyncio.to_thread(outputs.read_text, blob.with_suffix(".md"))
        stored = [await store_attachment(attachment, Path(folder)) for attachment in result.attachments]
        draft.attachments = [original for original in stored if original is not None]
    draft.file_name = name
    draft.pages = [(page.start, page.number) for page in result.pages]
    content = ContentFields(
        title=clean_line(result.title),
        description=clean_line(result.description, 4000),
        language=clean_line(result.language, 35),
        metadata=scrub(result.metadata),
        derived_title=first_heading(draft.text) or Path(name).stem,
    )
    await _complete(draft, content)


async def _complete(draft: Draft, content: ContentFields) -> None:
    """Complete the draft's fields; the language is detected only if neither caller nor content states one."""
    if not (draft.fields.language or content.language):
        content = replace(content, derived_language=await asyncio.to_thread(detect_language, draft.text))
    draft.fields.complete(content)


async def store_attachment(attachment: ExtractedAttachment, folder: Path) -> Original | None:
    """Store an attachment from the sandbox's folder; None if its type cannot be read.

    The path comes from code that has read foreign bytes: it may name any file of this host, or a link to one.
    """
    path, name = folder / Path(attachment.path).name, safe_name(attachment.name)
    if not await asyncio.to_thread(outputs.is_plain_file, path):
        raise InvalidInput("an attachment is not a file of its folder", code="broken_document")
    kind = await asyncio.to_thread(sniff, path, name)
    if kind is None:
        return None
    blob = await blobs().put_file(path)
    return Original(blob.key, blob.size_bytes, kind, name)


def cut(draft: Draft) -> None:
    """Cut the text into chunks and analyse them; a file without text gets one chunk that describes it.

    Raises InvalidInput for other content without text.
    """
    settings, model = get_settings(), embedder()
    cutter = chunker(model.tokenizer, settings.chunk_tokens, settings.chunk_overlap_tokens)
    title, language = draft.fields.title, draft.fields.language
    for piece in cutter.chunk(draft.text):
        page = _page_at(draft.pages, piece.start)
        draft.chunks.append(NewChunk.within(piece.text, piece.start, piece.end, piece.headings, title, page))
    whole = f"{title}\n{draft.text}" if title else draft.text
    if not draft.chunks:
        if draft.file_name is None:
            raise InvalidInput("no text is left to index after cleaning", code="empty_document")
        whole = _description(draft.file_name, draft.fields)
        draft.chunks.append(NewChunk("", 0, 0, context=whole))
    draft.terms = pack_terms(draft.chunks, language)
    draft.document_terms = packed_terms(whole, language)
    encodings = model.tokenizer.encode_batch([chunk.text or chunk.context for chunk in draft.chunks])
    draft.tokens = sum(len(encoding.ids) for encoding in encodings)


def _description(file_name: str, fields: DocumentFields) -> str:
    """Return the words by which a file without text is found: title, name, description, tags, metadata."""
    values = [value for name, value in fields.metadata.items() if name not in OWN_METADATA]
    lines = [fields.title, file_name, " ".join(_WORDS.findall(file_name)), fields.description, *fields.tags, *values]
    texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines if line)
    return "\n".join(dict.fromkeys(texts))[:MAX_DESCRIPTION_CHARACTERS]


def _page_at(pages: list[tuple[int, int]], at: int) -> int | None:
    """Return the number of the page at this offset; None for fewer than two pages."""
    if len(pages) < 2:
        return None
    return pages[max(0, bisect_right(pages, at, key=lambda page: page[0]) - 1)][1]


async def _embed(document_id: int, draft: Draft, progress: Progress) -> None:
    """Set a vector for each chunk; vectors that the document already has are reused."""
    text_by_hash = {chunk.text_hash: chunk.searched for chunk in draft.chunks}
    progress.report(0, len(text_by_hash), stage="embed", unit="chunks")
    draft.vectors = await make_vectors([document_id], text_by_hash, progress.report)
    draft.embedded = draft.vectors.embedded


def _index(session: Session, claim: Claim, document_id: int, version_id: int, draft: Draft) -> str:
    """Make the version current, unless a newer version is current or was found unchanged; then it is 'superseded'."""
    claims.hold(session, claim)
    document, version = _lock(session, claim.tenant, document_id, version_id)
    if (document.version_id or 0) > version_id or is_outdated(session, version):
        version.text, version.language, version.body = draft.text, draft.fields.language, None
        version.state = "superseded"
        return version.state
    if draft.attachments:
        about = About(tags=tuple(document.tags or ()), source=document.source)
        accept_attachments(session, document, about, draft.attachments, request_id=claim.request_id)
    make_current(session, document, version, draft)
    return "indexed"


def make_current(session: Session, document: Document, version: DocumentVersion, draft: Draft) -> None:
    """Make this version the searched one. Takes the number of a change: see replace_document."""
    now = clock.now()
    version.text, version.language = draft.text, draft.fields.language
    version.body, version.password = None, None
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
    draft.vectors.check(generations.hold_searched(session), hashes)
    replace_document(
        session,
        tenant=document.tenant,
        document_id=document.id,
        version_id=version.id,
        generation=draft.vectors.generation,
        language=draft.fields.language,
        chunks=draft.chunks,
        terms=draft.terms,
        document_terms=draft.document_terms,
        vectors=draft.vectors.of(hashes),
        beside=draft.vectors.others(hashes),
    )
