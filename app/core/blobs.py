"""Originals and other large bodies, by the SHA-256 of their content: in a folder, or in a bucket shared by all hosts.

A blob is written before the row that names it, and deleted a day after no row names it. obstore writes each object
completely or not at all.
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

from app.core.errors import ConfigError, InvalidInput, NotFound, Unavailable
from app.core.settings import get_settings

T = TypeVar("T")

PART_BYTES = 1024 * 1024
PATIENCE = timedelta(seconds=15)
MARKERS = "markers"
_REFUSED = (
    exceptions.PermissionDeniedError,
    exceptions.UnauthenticatedError,
    exceptions.UnknownConfigurationKeyError,
    exceptions.InvalidPathError,
)


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored body; `key` is the SHA-256 of the content in hex."""

    key: str
    size_bytes: int


class Blobs:
    """The store of blobs. Raises Unavailable if it cannot be reached, ConfigError if it refuses access."""

    def __init__(self, store: LocalStore | S3Store) -> None:
        self._store = store

    async def put(self, data: bytes) -> Blob:
        """Store the data, even if it exists: its new date keeps a sweep from deleting it."""
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        await self._call(self._store.put_async(_place(blob.key), data))
        return blob

    async def put_file(self, path: Path) -> Blob:
        """Store the file's content; the file is read twice and not held in memory."""
        key, size = await asyncio.to_thread(_digest, path)
        await self._call(self._store.put_async(_place(key), path))
        return Blob(key, size)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """Yield the content in parts. Raises NotFound."""
        response = await self._call(self._store.get_async(_place(key)))
        try:
            async for part in response.stream(min_chunk_size=PART_BYTES):
                yield bytes(part)
        except exceptions.BaseError as error:
            raise _translate(error) from error

    async def fetch(self, key: str, to: Path) -> None:
        """Write the content to a file. Raises NotFound, and InvalidInput if it is not what was stored."""
        digest = hashlib.sha256()
        with to.open("wb") as file:
            async for part in self.stream(key):
                digest.update(part)
                await asyncio.to_thread(file.write, part)
        if digest.hexdigest() != key:
            await asyncio.to_thread(to.unlink)
            raise InvalidInput(f"the stored file {key} is damaged: its content has another digest", code="blob_damaged")

    async def written_at(self, key: str) -> datetime:
        """Return the time of the last write. Raises NotFound."""
        moment: datetime = (await self._call(self._store.head_async(_place(key))))["last_modified"]
        return moment

    async def delete(self, key: str) -> None:
        await self._call(self._store.delete_async(_place(key)))

    async def written(self) -> AsyncIterator[tuple[str, datetime]]:
        """Yield every blob's key and time of writing, in no order."""
        try:
            async for page in self._store.list():
                for entry in page:
                    name = str(entry["path"]).rpartition("/")[2]
                    if len(name) == 64:
                        yield name, entry["last_modified"]
        except exceptions.BaseError as error:
            raise _translate(error) from error

    def put_marker(self, name: str) -> None:
        """Store an empty object that is no blob: it is neither listed nor swept. Blocks."""
        try:
            self._store.put(f"{MARKERS}/{name}", b"millrace")
        except (exceptions.BaseError, OSError) as error:
            raise _translate(error) from error

    def has_marker(self, name: str) -> bool:
        """Return True if a process with the same store has put this marker. Blocks."""
        try:
            self._store.head(f"{MARKERS}/{name}")
        except (exceptions.BaseError, OSError) as error:
            fault = _translate(error)
            if isinstance(fault, NotFound):
                return False
            raise fault from error
        return True

    async def ping(self) -> None:
        """Raises Unavailable or ConfigError if the store does not answer."""
        with contextlib.suppress(NotFound):
            await self.written_at("0" * 64)

    async def _call(self, asking: Awaitable[T]) -> T:
        try:
            return await asking
        except (exceptions.BaseError, OSError) as error:
            raise _translate(error) from error


def _translate(error: Exception) -> Exception:
    text = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)):
        return NotFound("the blob does not exist", code="blob_not_found")
    if isinstance(error, _REFUSED):
        return ConfigError(f"MILLRACE_BLOB_URL: the store refuses access: {text}", code="blobs_config")
    return Unavailable(f"the store of originals cannot be used now: {text}", code="blobs_unavailable", retry_after_s=5)


def digest_of(path: Path) -> str:
    """Return the key under which the file's content is stored."""
    return _digest(path)[0]


def _place(key: str) -> str:
    return f"{key[:2]}/{key}"


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest()
        return key, file.tell()


def blob_url() -> str:
    """Return the URL of the store, with the default spelled out."""
    settings = get_settings()
    return settings.blob_url or f"file:{(settings.data_dir / 'blobs').resolve()}"


def blobs() -> Blobs:
    """Return the store that the settings name. Raises ConfigError for an invalid URL."""
    settings = get_settings()
    return _open(
        blob_url(),
        settings.s3_endpoint,
        settings.s3_region,
        settings.s3_access_key_id,
        settings.s3_secret_access_key.get_secret_value(),
    )


@lru_cache(maxsize=4)
def _open(url: str, endpoint: str, region: str, key_id: str, secret: str) -> Blobs:
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path:
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return Blobs(LocalStore(folder, automatic_cleanup=False))
        except OSError as error:
            raise ConfigError(f"MILLRACE_BLOB_URL: {folder}: {error.strerror}") from error
    if parts.scheme != "s3" or not parts.netloc:
        raise ConfigError("MILLRACE_BLOB_URL must be file:/path or s3://bucket/prefix")
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
