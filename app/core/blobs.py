"""Originals and other large bodies, by the SHA-256 of what is in them: a folder, or a bucket that all hosts share.

A blob is written before the row that names it, and swept a day after nothing does. The store is obstore's, which writes
each object whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from obstore import exceptions
from obstore.store import LocalStore, S3Store

from app.core.errors import ConfigError, NotFound, Unavailable
from app.core.settings import get_settings

T = TypeVar("T")

PART_BYTES = 1024 * 1024
PATIENCE = timedelta(seconds=15)
_REFUSED = (
    exceptions.PermissionDeniedError,
    exceptions.UnauthenticatedError,
    exceptions.UnknownConfigurationKeyError,
    exceptions.InvalidPathError,
)


@dataclass(frozen=True, slots=True)
class Blob:
    """`key` is the SHA-256 of the content in hex."""

    key: str
    size_bytes: int


class Blobs:
    """Raises Unavailable where the store cannot be reached, ConfigError where it refuses us."""

    def __init__(self, store: LocalStore | S3Store) -> None:
        self._store = store

    async def put(self, data: bytes) -> Blob:
        """Written anew even where it is there: a sweep then knows that somebody wants it."""
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        await self._asked(self._store.put_async(_place(blob.key), data))
        return blob

    async def put_file(self, path: Path) -> Blob:
        """The file's content; it is read twice and never held."""
        key, size = await asyncio.to_thread(_digest, path)
        await self._asked(self._store.put_async(_place(key), path))
        return Blob(key, size)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """The content in parts. Raises NotFound."""
        found = await self._asked(self._store.get_async(_place(key)))
        try:
            async for part in found.stream(min_chunk_size=PART_BYTES):
                yield bytes(part)
        except exceptions.BaseError as error:
            raise _translated(error) from error

    async def fetch(self, key: str, to: Path) -> None:
        """The content as a file. Raises NotFound."""
        with to.open("wb") as file:
            async for part in self.stream(key):
                await asyncio.to_thread(file.write, part)

    async def written_at(self, key: str) -> datetime:
        """When it was written last. Raises NotFound."""
        moment: datetime = (await self._asked(self._store.head_async(_place(key))))["last_modified"]
        return moment

    async def delete(self, key: str) -> None:
        await self._asked(self._store.delete_async(_place(key)))

    async def written(self) -> AsyncIterator[tuple[str, datetime]]:
        """Every blob's key and when it was written, in no order."""
        try:
            async for page in self._store.list():
                for one in page:
                    name = str(one["path"]).rpartition("/")[2]
                    if len(name) == 64:
                        yield name, one["last_modified"]
        except exceptions.BaseError as error:
            raise _translated(error) from error

    async def ping(self) -> None:
        """Whether the store answers."""
        with contextlib.suppress(NotFound):
            await self.written_at("0" * 64)

    async def _asked(self, asking: Awaitable[T]) -> T:
        try:
            return await asking
        except (exceptions.BaseError, OSError) as error:
            raise _translated(error) from error


def _translated(error: Exception) -> Exception:
    text = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)):
        return NotFound("there is no such blob (any more)", code="blob_not_found")
    if isinstance(error, _REFUSED):
        return ConfigError(f"MILLRACE_BLOB_URL: the store refuses us: {text}", code="blobs_config")
    return Unavailable(f"the store of originals cannot be used now: {text}", code="blobs_unavailable", retry_after_s=5)


def _place(key: str) -> str:
    return f"{key[:2]}/{key}"


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest()
        return key, file.tell()


def blobs() -> Blobs:
    """The store of the settings. Raises ConfigError for a URL that names none."""
    settings = get_settings()
    return _opened(
        settings.blob_url or f"file:{(settings.data_dir / 'blobs').resolve()}",
        settings.s3_endpoint,
        settings.s3_region,
        settings.s3_access_key_id,
        settings.s3_secret_access_key.get_secret_value(),
    )


@lru_cache(maxsize=4)
def _opened(url: str, endpoint: str, region: str, key_id: str, secret: str) -> Blobs:
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path:
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return Blobs(LocalStore(folder, automatic_cleanup=False))
        except OSError as error:
            raise ConfigError(f"MILLRACE_BLOB_URL: {folder}: {error.strerror}") from error
    if parts.scheme != "s3" or not parts.netloc:
        raise ConfigError("MILLRACE_BLOB_URL is file:/path or s3://bucket/prefix")
    options: dict[str, Any] = {"region": region}
    if endpoint:
        options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    if key_id:
        options |= {"access_key_id": key_id, "secret_access_key": secret}
    try:
        store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            client_options={"allow_http": endpoint.startswith("http://"), "timeout": "15s", "connect_timeout": "3s"},
            retry_config={"max_retries": 1, "retry_timeout": PATIENCE},
            **options,
        )
    except exceptions.BaseError as error:
        raise ConfigError(f"MILLRACE_BLOB_URL: {error}") from error
    return Blobs(store)
