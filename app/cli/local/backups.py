"""Back up and restore the database and the originals of this installation."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import IO, Any

from app.cli import exit_codes
from app.cli.client.profiles import installation, settings
from app.cli.exit_codes import CliExit
from app.cli.local.schema import upgrade_schema
from app.core import backup
from app.core.blobs import blob_url, blobs
from app.core.db import Database, close_database
from app.core.errors import AppError, ConfigError, DatabaseUnavailable, Unavailable
from app.core.logging import mask
from app.core.schema import current
from app.documents.files import originals, shared_store
from app.jobs.ledger import worker_host, workers


def back_up(folder: Path) -> dict[str, Any]:
    """Copy database and originals into the folder; the system may run."""
    database = _open_database()
    try:
        result = backup.back_up(database, folder, lambda: asyncio.run(originals.back_up(blobs(), folder)))
    except (AppError, OSError) as error:
        raise _exit_for(error) from error
    finally:
        database.close()
        close_database()
    return asdict(result)


def restore(folder: Path, *, replace: bool) -> dict[str, Any]:
    """Replace the database by a backup, then bring it to this version's schema."""
    database = _open_database()
    try:
        _require_stopped(database)
        manifest = backup.check(database, folder, replace=replace)
        count = asyncio.run(originals.restore(blobs(), folder, expected=manifest.originals))
        result = backup.restore(database, folder, replace=replace)
    except (AppError, OSError) as error:
        raise _exit_for(error) from error
    finally:
        database.close()
    _, schema = upgrade_schema()
    accept_store()  # the marker in the backup is that of another store
    return asdict(result) | {"schema_now": schema, "originals": count}


def back_up_to(stream: IO[bytes]) -> None:
    """Write a backup as a tar archive: a container needs no folder that its user and the host's may both use."""
    with _scratch_folder() as folder:
        back_up(folder / "backup")
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            for path in sorted((folder / "backup").iterdir()):
                archive.add(path, arcname=path.name)


def restore_from(stream: IO[bytes], *, replace: bool) -> dict[str, Any]:
    """Restore from the archive that back_up_to() wrote."""
    with _scratch_folder() as folder:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    _extract(archive, member, folder)
        except (tarfile.TarError, EOFError) as error:
            raise CliExit(exit_codes.USAGE, f"stdin is not a complete backup: {error}") from error
        return restore(folder, replace=replace)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write one file or folder of the archive. Not by extractall(): before Python 3.11.4 it has no safe filter."""
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts or not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name} is nothing that `millrace backup` writes")
    path = folder.joinpath(*parts)
    (path if member.isdir() else path.parent).mkdir(parents=True, exist_ok=True, mode=0o700)
    content = archive.extractfile(member)
    if content is not None:
        with content, path.open("wb") as file:
            shutil.copyfileobj(content, file)
        if path.stat().st_size != member.size:
            raise tarfile.TarError(f"{member.name} is cut off")


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A folder for the copy, on the disk of the data: /tmp may be small or in memory."""
    here = settings().data_dir
    try:
        here.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="backup-", dir=here) as folder:
            yield Path(folder)
    except OSError as error:
        raise CliExit(exit_codes.FAILED, f"{here} cannot be used: {error}") from error


def accept_store() -> str:
    """Make the store of these settings the installation's; return its URL, masked."""
    database = _open_database()
    try:
        shared_store.accept(database, blobs())
    except AppError as error:
        raise _exit_for(error) from error
    finally:
        database.close()
    return mask(blob_url())


def _require_stopped(database: Database) -> None:
    """Raise CliExit if a worker may be alive: it would go on with jobs that the backup does not have.

    Workers that are known to be dead do not count.
    """
    if current(database) is None:
        return
    rows = database.read(workers.list_alive)
    alive = [row for row in rows if not worker_host.has_exited(row.host, row.pid, row.pid_birth)]
    if alive:
        message = f"{len(alive)} workers are alive or not known to be dead: stop the system first"
        raise CliExit(exit_codes.FAILED, message, source=installation())


def _open_database() -> Database:
    here = settings()
    try:
        return Database(here.sql_url)
    except ConfigError as error:
        raise CliExit(exit_codes.USAGE, error.message, source=installation()) from error


def _exit_for(error: Exception) -> CliExit:
    if isinstance(error, DatabaseUnavailable):
        return CliExit(exit_codes.UNREACHABLE, error.message, source=installation())
    if isinstance(error, Unavailable):
        return CliExit(exit_codes.FAILED, error.message, source=installation())
    code = exit_codes.USAGE if isinstance(error, AppError) else exit_codes.FAILED
    return CliExit(code, str(error), source=installation())
