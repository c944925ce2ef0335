"""Backup of the database, taken while the system runs, and its restore.

All durable state is in SQL and blobs: a search engine follows SQL and Redis is only a window on it. A backup is a
folder with the database (`database.sqlite` or PostgreSQL's `database.dump`) and `manifest.json`, which is written last:
a folder without it is not a backup.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa

from app.core import clock
from app.core.db import Database
from app.core.errors import Conflict, InvalidInput, Unavailable
from app.core.schema import current, head

MANIFEST = "manifest.json"
FILES = {"sqlite": "database.sqlite", "postgresql": "database.dump"}
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """Description of a backup: database, schema, the digest of its file, and the number of originals if known."""

    dialect: str
    schema: str
    made_at: str
    file: str
    size_bytes: int
    sha256: str
    originals: int | None = None


def back_up(database: Database, folder: Path, copy_originals: Callable[[], int] | None = None) -> Manifest:
    """Write a backup into a folder that is new or empty. `copy_originals` adds the originals and returns their number.

    Raises Conflict if the folder is not empty, Unavailable if the database cannot be read or copied.
    """
    schema = current(database)
    if schema is None:
        raise Conflict("the database is empty: there is nothing to back up")
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty: a backup needs an empty folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    copy = folder / FILES[database.dialect]
    made_at = clock.now().isoformat()
    if database.dialect == "sqlite":
        _copy_sqlite(database, copy)
    else:
        command = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file", str(copy)]
        _run(command, _client_environment(database))
    copy.chmod(0o600)
    digest, count = _digest(copy), copy_originals() if copy_originals is not None else None
    manifest = Manifest(database.dialect, schema, made_at, copy.name, copy.stat().st_size, digest, count)
    _write(folder / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the folder's manifest after checking its file's digest. Raises InvalidInput for an incomplete backup."""
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidInput(f"{folder} is not a complete backup: {MANIFEST} cannot be read ({reason})") from error
    copy = folder / FILES.get(manifest.dialect, "")
    if not copy.is_file() or _digest(copy) != manifest.sha256:
        raise InvalidInput(f"{copy} is damaged or missing: its digest differs from {MANIFEST}")
    return manifest


def restore(database: Database, folder: Path, *, replace: bool) -> Manifest:
    """Replace the database by the backup; the database must be empty unless `replace` is true.

    No process may use it during the restore. On failure the database stays unchanged. Raises InvalidInput, Conflict or
    Unavailable.
    """
    manifest = check(database, folder, replace=replace)
    copy = folder / manifest.file
    if database.dialect == "sqlite":
        _restore_sqlite(database, copy)
    else:
        _restore_postgres(database, copy)
    return manifest


def check(database: Database, folder: Path, *, replace: bool) -> Manifest:
    """Return the manifest of the backup to restore. Raises like restore(), and changes nothing."""
    manifest = read_manifest(folder)
    if manifest.dialect != database.dialect:
        raise InvalidInput(f"the backup is of {manifest.dialect}, the settings name {database.dialect}")
    if manifest.schema > head():
        raise InvalidInput(f"the backup is at schema {manifest.schema}, newer than this version's {head()}")
    if current(database) is not None and not replace:
        raise Conflict("the database is not empty; --replace puts the backup in its place")
    return manifest


def _copy_sqlite(database: Database, copy: Path) -> None:
    """Copy by SQLite's online backup: a consistent state, while others write."""
    try:
        with closing(sqlite3.connect(_sqlite_path(database))) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            # A single file without a write-ahead log.
            target.execute("PRAGMA journal_mode=DELETE")
            status = target.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        raise Unavailable(f"the database cannot be copied: {error}") from error
    if status != "ok":
        raise Unavailable(f"the database is damaged: {status}")
    _sync(copy)


def _restore_sqlite(database: Database, copy: Path) -> None:
    place = Path(_sqlite_path(database))
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(place.name + ".restored")
    shutil.copyfile(copy, fresh)
    _sync(fresh)
    database.engine.dispose()
    with _emptied_log(place):
        fresh.replace(place)
        _sync_folder(place.parent)
        for suffix in ("-wal", "-shm"):
            place.with_name(place.name + suffix).unlink(missing_ok=True)
    _sync_folder(place.parent)


@contextmanager
def _emptied_log(place: Path) -> Iterator[None]:
    """Move the write-ahead log of the old file into that file, and keep others from writing a new one.

    SQLite would apply a log to whatever file lies next to it. With an empty log a crash leaves the old database or
    the new one, never a mixture. Raises Unavailable if another process uses the database.
    """
    if not place.exists():
        yield
        return
    log = place.with_name(place.name + "-wal")
    with closing(sqlite3.connect(place, isolation_level=None, timeout=0)) as old:
        try:
            old.execute("PRAGMA synchronous=FULL")
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            old.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise Unavailable(f"the database is in use: stop the system first ({error})") from error
        except sqlite3.DatabaseError:  # too damaged to be opened; its log is of no use
            log.unlink(missing_ok=True)
        if log.exists() and log.stat().st_size:
            raise Unavailable("the database is in use: stop the system first")
        yield


def _restore_postgres(database: Database, copy: Path) -> None:
    """Restore in one transaction: a new schema `public`, then the contents of the backup."""
    # A file instead of a pipe: at the end of a pipe psql would commit, even if pg_restore failed.
    script, listing = copy.with_name("restore.sql"), copy.with_name("restore.list")
    environment = _client_environment(database)
    try:
        contents = _run(["pg_restore", "--list", str(copy)], environment).splitlines()
        listing.write_text("\n".join(line for line in contents if " SCHEMA - public " not in line))
        options = ["--no-owner", "--no-privileges", "--use-list", str(listing), "--file", str(script)]
        _run(["pg_restore", *options, str(copy)], environment)
        command = ["psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1"]
        command += ["--command", "DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public", "--file", str(script)]
        _run(command, environment)
    finally:
        script.unlink(missing_ok=True)
        listing.unlink(missing_ok=True)
    database.engine.dispose()


def _sqlite_path(database: Database) -> str:
    path = database.engine.url.database
    if not path or path == ":memory:":
        raise InvalidInput("a database in memory cannot be backed up or restored")
    return path


def _client_environment(database: Database) -> dict[str, str]:
    """Return the environment for PostgreSQL's programs; other users could read a password on a command line."""
    url: sa.URL = database.engine.url
    variables = {
        "PGHOST": url.host,
        "PGPORT": str(url.port) if url.port else None,
        "PGUSER": url.username,
        "PGPASSWORD": str(url.password) if url.password else None,
        "PGDATABASE": url.database,
    }
    variables |= {
        f"PG{name.upper()}": str(value) for name, value in url.query.items() if name.startswith(("ssl", "host"))
    }
    return {**os.environ, **{name: value for name, value in variables.items() if value}}


def _run(command: list[str], environment: dict[str, str]) -> str:
    """Run a program of PostgreSQL and return its output. Raises Unavailable with its error message."""
    program = shutil.which(command[0])
    if program is None:
        raise Unavailable(f"{command[0]} is missing; install PostgreSQL's client (apt-get install postgresql-client)")
    ended = subprocess.run([program, *command[1:]], env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        lines = [line for line in lines if "error" in line.lower()] or lines or [f"exit code {ended.returncode}"]
        raise Unavailable(f"{command[0]}: {lines[0]}")
    return ended.stdout


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames and deletions in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    """Write the file atomically and durably."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    _sync(fresh)
    fresh.replace(path)
    _sync_folder(path.parent)
