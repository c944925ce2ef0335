"""Watched folder: its files are documents, and are read again when they change.

A removed file keeps its document: a folder that was unmounted for a minute must not empty the index.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.blobs import blobs
from app.core.db import in_transaction, read
from app.core.errors import CollectionNotFound, InvalidInput, JobQuotaReached, QuotaReached
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.documents.accept.accept import About
from app.documents.accept.quota import within
from app.documents.accept.uploads import Original, accept_file, safe_name
from app.documents.files.sniff import sniff
from app.documents.models import Document, DocumentVersion
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress

SOURCE = "folder"
# A file that was written a moment ago may be incomplete.
MIN_FILE_AGE_S = 5.0
MAX_PATH_CHARACTERS = 480

log = get_logger(__name__)


class FileStamp(NamedTuple):
    """Size and time of a file; a difference means that it has changed."""

    size: int
    modified_ns: int


async def scan(progress: Progress) -> dict[str, Any]:
    """Return {files, new, refused}: files in the folder, files accepted now, and files that cannot be read.

    Raises InvalidInput if the folder does not exist.
    """
    folder = get_settings().watch_folder
    if folder is None:
        return {"files": 0, "new": 0, "refused": 0}
    if not await asyncio.to_thread(folder.is_dir):
        raise InvalidInput(f"MILLRACE_WATCH_FOLDER: this worker has no folder {folder}", code="no_folder")
    known = await read(_known_files, progress.claim.tenant)
    files = await asyncio.to_thread(lambda: list(_list_files(folder)))
    new = refused = 0
    for number, (name, stamp) in enumerate(files, start=1):
        if known.get(name) != stamp:
            try:
                accepted = await _accept(progress.claim, folder / name, name, stamp)
            except (InvalidInput, OSError) as error:
                log.warning("file_refused", file=name, reason=str(error))
                accepted = False
            new, refused = new + accepted, refused + (not accepted)
        progress.report(number, len(files), unit="files")
    return {"files": len(files), "new": new, "refused": refused}


def _list_files(folder: Path) -> Iterator[tuple[str, FileStamp]]:
    """Yield the regular files below the folder by relative path, without hidden files and links that leave it."""
    settled, root = clock.now().timestamp() - MIN_FILE_AGE_S, folder.resolve()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        if not path.resolve().is_relative_to(root) or len(str(name)) > MAX_PATH_CHARACTERS:
            continue
        status = path.stat()
        if status.st_size and status.st_mtime <= settled:
            yield name.as_posix(), FileStamp(status.st_size, status.st_mtime_ns)


def _known_files(session: Session, tenant: str) -> dict[str, FileStamp]:
    """Return the stamp of each file by path, as it was when last accepted."""
    query = (
        sa.select(Document.external_id, DocumentVersion.size_bytes, DocumentVersion.fields)
        .join(DocumentVersion, DocumentVersion.document_id == Document.id)
        .where(Document.tenant == tenant, Document.external_id.startswith(f"{SOURCE}:", autoescape=True))
        .order_by(DocumentVersion.id)
    )
    return {
        str(row.external_id).removeprefix(f"{SOURCE}:"): FileStamp(
            row.size_bytes, int(row.fields["metadata"].get("modified_ns", 0))
        )
        for row in session.execute(query)
    }


async def _accept(claim: Claim, path: Path, name: str, stamp: FileStamp) -> bool:
    """Accept the file; return False if its type cannot be read."""
    kind = await asyncio.to_thread(sniff, path, path.name)
    if kind is None:
        return False
    blob = await blobs().put_file(path)
    original = Original(blob.key, blob.size_bytes, kind, safe_name(path.name))
    about = About(
        external_id=f"{SOURCE}:{name}",
        metadata={"path": name, "modified_ns": stamp.modified_ns},
        source=SOURCE,
        collection=get_settings().watch_collection or None,
    )
    try:
        await in_transaction(_store, claim, about, original)
    except (QuotaReached, JobQuotaReached, CollectionNotFound) as error:
        raise InvalidInput(f"{name}: {error.message}", code=error.code) from error
    return True


def _store(session: Session, claim: Claim, about: About, original: Original) -> None:
    claims.hold(session, claim)
    within(session, claim.tenant, accept_file, about, original, tenant=claim.tenant, request_id=claim.request_id)
