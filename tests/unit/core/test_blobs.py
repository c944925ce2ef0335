"""Originals by what is in them: in a folder, and in a bucket of a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core import clock
from app.core.blobs import Blobs, blobs
from app.core.errors import ConfigError, NotFound, Unavailable
from tests.support.databases import SettingsEnv
from tests.support.processes import free_port, running
from tests.support.s3 import S3Server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running(S3Server(tmp_path_factory.mktemp("s3"))) as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, settings_env: SettingsEnv, tmp_path: Path) -> Blobs:
    if request.param == "s3":
        settings_env(**request.getfixturevalue("s3").settings)
    else:
        settings_env(blob_url=f"file:{tmp_path / 'originals'}")
    return blobs()


async def _content(store: Blobs, key: str) -> bytes:
    return b"".join([part async for part in store.stream(key)])


def test_blobs_of_any_size_are_read_back(store: Blobs, tmp_path: Path) -> None:
    async def run() -> None:
        for size in (0, 1, 3_000_000):
            path = tmp_path / f"file-{size}"
            path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
            blob = await store.put_file(path)
            assert (blob.key, blob.size_bytes) == (hashlib.sha256(path.read_bytes()).hexdigest(), size)
            assert await _content(store, blob.key) == path.read_bytes()
            again = await store.put(path.read_bytes())
            assert again == blob
            await store.fetch(blob.key, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == path.read_bytes()

    asyncio.run(run())


def test_blobs_are_listed_with_their_age_and_deleted(store: Blobs) -> None:
    async def run() -> None:
        before = clock.now()
        kept_blob, deleted_blob = await store.put(b"kept"), await store.put(b"gone")
        written_at = {key: at async for key, at in store.written()}
        assert {kept_blob.key, deleted_blob.key} <= set(written_at)
        assert abs((written_at[kept_blob.key] - before).total_seconds()) < 60
        await store.delete(deleted_blob.key)
        assert deleted_blob.key not in {key async for key, _ in store.written()}
        for ask in (store.written_at(deleted_blob.key), _content(store, deleted_blob.key)):
            with pytest.raises(NotFound):
                await ask
        await store.ping()

    asyncio.run(run())


def test_unreachable_store_is_unavailable(settings_env: SettingsEnv, s3: S3Server) -> None:
    settings_env(**s3.settings | {"s3_endpoint": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(Unavailable, match="cannot be used now"):
        asyncio.run(blobs().put(b"x"))


def test_missing_bucket_is_an_error(settings_env: SettingsEnv, s3: S3Server) -> None:
    settings_env(**s3.settings | {"blob_url": "s3://nowhere/x"})
    with pytest.raises((NotFound, ConfigError, Unavailable)):
        asyncio.run(blobs().put(b"x"))


@pytest.mark.parametrize("url", ["ftp://x/y", "s3://", "file:", "folder"])
def test_invalid_store_url_is_reported(settings_env: SettingsEnv, url: str) -> None:
    settings_env(blob_url=url)
    with pytest.raises(ConfigError, match="MILLRACE_BLOB_URL"):
        blobs()


def test_folder_that_cannot_be_created_is_reported(settings_env: SettingsEnv, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings_env(blob_url=f"file:{tmp_path / 'file' / 'folder'}")
    with pytest.raises(ConfigError, match="MILLRACE_BLOB_URL"):
        blobs()


def test_default_store_is_the_data_folder(settings_env: SettingsEnv, tmp_path: Path) -> None:
    settings_env(data_dir=tmp_path / "data")
    blob = asyncio.run(blobs().put(b"here"))
    assert (tmp_path / "data" / "blobs" / blob.key[:2] / blob.key).read_bytes() == b"here"
