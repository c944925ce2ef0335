"""A backup taken under load is consistent and restores the same rows; any other file is refused."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import backup
from app.core.blobs import Blob, blobs
from app.core.db import Database
from app.core.errors import Conflict, InvalidInput
from app.core.schema import current
from app.documents.accept.accept import About, find_or_make
from app.documents.accept.uploads import Original, receive_file
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from tests.support.command import millrace
from tests.support.databases import make_stack_env
from tests.support.kinds import Noop
from tests.support.services import find_program, missing


@pytest.fixture
def postgres_url(copied_postgres_url: str) -> str:
    """A database that holds the schema and no rows of tests."""
    return copied_postgres_url


@pytest.fixture
def client(db: Database) -> None:
    """PostgreSQL's own programs, where the database is one."""
    if db.dialect == "postgresql" and find_program("pg_dump") is None:
        missing("pg_dump", "apt-get install postgresql-client")


def _pair(session: Session, number: int) -> None:
    """Two rows that are only ever there together."""
    for _ in range(2):
        enqueue(session, Noop(number=number), tenant="default")


def _numbers(session: Session) -> list[int]:
    return sorted(row.payload["number"] for row in session.scalars(sa.select(JobRow)))


@pytest.mark.usefixtures("client")
def test_backup_under_load_is_consistent_and_restorable(db: Database, tmp_path: Path) -> None:
    done = threading.Event()
    written = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            db.transaction(_pair, number)
            if number == 5:
                written.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(30)
        made = backup.back_up(db, tmp_path / "kept")
    finally:
        done.set()
        writer.join()
    assert backup.read_manifest(tmp_path / "kept") == made
    with pytest.raises(Conflict, match="not empty"):
        backup.restore(db, tmp_path / "kept", replace=False)
    for _ in range(2):  # what was restored can be backed up and restored again
        backup.restore(db, tmp_path / "kept", replace=True)
        numbers = db.read(_numbers)
        assert numbers == sorted([*range(len(numbers) // 2)] * 2)
        assert len(numbers) >= 12
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        backup.back_up(db, tmp_path / "again")
        shutil.rmtree(tmp_path / "kept")
        (tmp_path / "again").rename(tmp_path / "kept")
        db.transaction(_pair, 99)
    assert current(db) == made.schema


@pytest.mark.usefixtures("client")
def test_the_database_still_refuses_wrong_moves_after_a_restore(db: Database, tmp_path: Path) -> None:
    """Triggers come back as well as rows."""
    db.transaction(_pair, 1)
    backup.back_up(db, tmp_path / "kept")
    backup.restore(db, tmp_path / "kept", replace=True)
    with pytest.raises(sa.exc.DBAPIError):
        db.transaction(lambda session: session.execute(sa.update(JobRow).values(state="succeeded")))


@pytest.mark.usefixtures("client")
def test_incomplete_backup_changes_nothing(db: Database, tmp_path: Path) -> None:
    db.transaction(_pair, 1)
    folder = tmp_path / "kept"
    made = backup.back_up(db, folder)
    with pytest.raises(Conflict, match="not empty"):
        backup.back_up(db, folder)
    copy = folder / made.file
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    with pytest.raises(InvalidInput, match="damaged"):
        backup.restore(db, folder, replace=True)
    (folder / backup.MANIFEST).unlink()
    with pytest.raises(InvalidInput, match="not a complete backup"):
        backup.restore(db, folder, replace=True)
    assert db.read(_numbers) == [1, 1]


def test_a_backup_of_a_newer_version_is_refused(sqlite_db: Database, tmp_path: Path) -> None:
    made = backup.back_up(sqlite_db, tmp_path / "kept")
    manifest = tmp_path / "kept" / backup.MANIFEST
    manifest.write_text(manifest.read_text().replace(f'"{made.schema}"', '"9999"'))
    assert backup.read_manifest(tmp_path / "kept") == replace(made, schema="9999")
    with pytest.raises(InvalidInput, match="9999"):
        backup.restore(sqlite_db, tmp_path / "kept", replace=True)


def _with_an_original(db: Database) -> bytes:
    """Store a document's file and a blob that no row names; return the content of the file."""
    content = b"The penstock is closed."

    def put(session: Session, blob: Blob) -> None:
        document_id = find_or_make(session, About(), tenant="default")
        original = Original(blob.key, blob.size_bytes, "text/plain", "a.txt")
        receive_file(session, document_id, About(), original, tenant="default")

    async def keep() -> Blob:
        await blobs().put(b"nobody's")
        return await blobs().put(content)

    db.transaction(put, asyncio.run(keep()))
    return content


def test_backup_and_restore_by_command_line(sqlite_db: Database, redis_url: str, tmp_path: Path) -> None:
    sqlite_db.transaction(_pair, 7)
    original = _with_an_original(sqlite_db)
    folder = tmp_path / "kept"
    env = make_stack_env(str(sqlite_db.engine.url), redis_url, tmp_path)
    ran = millrace("backup", str(folder), "--json", env=env)
    assert ran.code == 0, ran
    assert ran.json["file"] == "database.sqlite"
    assert millrace("backup", str(folder), env=env).code == 2
    elsewhere = env | {"MILLRACE_DATABASE_URL": f"sqlite:///{tmp_path}/other.db"}
    elsewhere["MILLRACE_DATA_DIR"] = str(tmp_path / "elsewhere")
    [copy] = folder.glob("originals/*/*")
    copy.write_bytes(b"bitten")
    assert millrace("restore", str(folder), env=elsewhere).code == 2
    copy.write_bytes(original)
    ran = millrace("restore", str(folder), "--json", env=elsewhere)
    assert (ran.code, ran.json["originals"]) == (0, 1), ran
    assert (tmp_path / "elsewhere" / "blobs" / copy.parent.name / copy.name).read_bytes() == original
    other = Database(elsewhere["MILLRACE_DATABASE_URL"])
    assert other.read(_numbers) == [7, 7]
    other.close()
