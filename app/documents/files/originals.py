"""All originals: deleted when no row names them, copied to a backup and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.blobs import Blobs, digest_of
from app.core.db import read
from app.core.errors import InvalidInput, NotFound
from app.documents.models import Batch, DocumentVersion
from app.jobs.models import JobRow

# A blob that no row names is kept this long: its row may still be written.
SWEPT_AFTER = timedelta(days=1)
Named = Callable[[Session, list[str]], set[str]]
LOOKED_UP_AT_ONCE = 500
FOLDER = "originals"


async def sweep_blobs(store: Blobs, *named: Named) -> int:
    """Delete blobs that no row has named for a day; return their number.

    Each of `named` returns the subset of keys that rows of another package name.
    """
    before, batch, gone = clock.now() - SWEPT_AFTER, [], 0
    async for key, written_at in store.written():
        if written_at < before:
            batch.append(key)
        if len(batch) >= LOOKED_UP_AT_ONCE:
            gone += await _delete_unnamed(store, batch, named)
            batch = []
    return gone + await _delete_unnamed(store, batch, named)


async def _delete_unnamed(store: Blobs, keys: list[str], named: Sequence[Named]) -> int:
    gone = 0
    named_keys = set().union(*[await read(find_named, keys) for find_named in (_named, *named)])
    for key in set(keys) - named_keys:
        try:
            if await store.written_at(key) < clock.now() - SWEPT_AFTER:  # else it has just been stored again
                await store.delete(key)
                gone += 1
        except NotFound:
            continue
    return gone


def _named(session: Session, keys: list[str]) -> set[str]:
    query = sa.select(DocumentVersion.blob_key).where(DocumentVersion.blob_key.in_(keys))
    # Only the batch's job reads its blob; a failed job may be retried.
    waiting = (
        sa.select(Batch.blob_key)
        .join(JobRow, JobRow.id == Batch.job_id)
        .where(Batch.blob_key.in_(keys), JobRow.state != "succeeded")
    )
    return {key for key in [*session.scalars(query), *session.scalars(waiting)] if key is not None}


def names(session: Session, after: str, limit: int) -> list[str]:
    """List the keys of originals that documents name, in order, after `after`."""
    query = sa.select(DocumentVersion.blob_key).where(DocumentVersion.blob_key > after).distinct()
    return [key for key in session.scalars(query.order_by(DocumentVersion.blob_key).limit(limit)) if key is not None]


async def back_up(store: Blobs, folder: Path) -> int:
    """Copy every original that a document names below the folder; return their number.

    Run after the database backup: blobs that it names exist, since named blobs are never swept. A damaged original is
    not copied; the others are, and then InvalidInput names it.
    """
    after, count = "", 0
    damaged: list[str] = []
    while keys := await read(names, after, LOOKED_UP_AT_ONCE):
        for key in keys:
            path = folder / FOLDER / key[:2] / key
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                await store.fetch(key, path)
                count += 1
            except NotFound:  # its document was deleted and swept since
                path.unlink(missing_ok=True)
            except InvalidInput:
                damaged.append(key)
        after = keys[-1]
    if damaged:
        raise InvalidInput(
            f"{len(damaged)} originals are damaged, so the backup is not complete: {', '.join(damaged[:10])}"
        )
    return count


async def restore(store: Blobs, folder: Path, *, expected: int | None = None) -> int:
    """Put the originals of a backup into the store; return their number.

    All are checked before the first is stored. Raises InvalidInput for a damaged one, and if there are fewer than
    `expected`. Run before restoring the database, which names them. Repeatable.
    """
    files = list(_files(folder))
    if expected is not None and len(files) < expected:
        raise InvalidInput(f"{folder / FOLDER} has {len(files)} originals, the backup had {expected}")
    for path in files:
        if await asyncio.to_thread(digest_of, path) != path.name:
            raise InvalidInput(f"{path} is not what the backup wrote: it is damaged")
    for path in files:
        await store.put_file(path)
    return len(files)


async def probe(store: Blobs, key: str) -> dict[str, Any]:
    """Return the size of a blob that another process has written. Raises NotFound if this store lacks it."""
    return {"size_bytes": sum([len(part) async for part in store.stream(key)])}


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in (folder / FOLDER).glob("??/*") if path.is_file())
