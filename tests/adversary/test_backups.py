"""A8: a backup and a restore take only what has the digest of its name, and no crash mixes two databases."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from app.core import backup
from app.core.blobs import blobs
from app.core.db import Database
from app.core.errors import InvalidInput, NotFound, Unavailable
from app.documents.accept.accept import About, find_or_make
from app.documents.accept.uploads import Original, receive_file
from app.documents.files import originals
from tests.support.databases import SettingsEnv

# Ends the process without any clean-up, as a power cut does, before the given change of a file's name.
CRASH = """
import os, sys
from pathlib import Path
from app.core import backup
from app.core.db import Database
left = int(sys.argv[3])

def hook(event, arguments):
    global left
    if event in ("os.rename", "os.remove"):
        left -= 1
        if left < 0:
            os._exit(9)

database = Database(f"sqlite:///{sys.argv[1]}")
sys.addaudithook(hook)
backup.restore(database, Path(sys.argv[2]), replace=True)
"""
ROWS = 2000


def _fill(path: Path, mark: str) -> None:
    """Write rows to a table of ours, in the database file and in its log."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE marked (id INTEGER PRIMARY KEY, mark TEXT)")
        connection.executemany("INSERT INTO marked (mark) VALUES (?)", [(mark,)] * ROWS)
        connection.commit()


def _put_log(place: Path, mark: str) -> None:
    """Change every row, and leave the change in the log, as a killed process does."""
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("UPDATE marked SET mark = ?", (mark,))
        connection.commit()
        for name in (place.name, f"{place.name}-wal"):
            shutil.copyfile(place.with_name(name), place.with_name(f"killed.{name}"))
    for name in (place.name, f"{place.name}-wal"):
        place.with_name(f"killed.{name}").replace(place.with_name(name))
    assert place.with_name(f"{place.name}-wal").stat().st_size > 10_000


def _marks(place: Path) -> tuple[str, set[str], int]:
    with closing(sqlite3.connect(place)) as connection:
        state = connection.execute("PRAGMA integrity_check").fetchone()[0]
        marks = {row[0] for row in connection.execute("SELECT DISTINCT mark FROM marked")}
        return state, marks, connection.execute("SELECT count(*) FROM marked").fetchone()[0]


@pytest.fixture
def killed(sqlite_url: str, tmp_path: Path) -> tuple[Path, Path]:
    """A backup with the mark "new", and a database whose changes from "older" to "old" lie in its log alone."""
    place, folder = Path(sqlite_url.removeprefix("sqlite:///")), tmp_path / "backup"
    _fill(place, "new")
    database = Database(sqlite_url)
    backup.back_up(database, folder)
    database.close()
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("UPDATE marked SET mark = 'older'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _put_log(place, "old")
    return place, folder


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_crash_at_any_step_of_a_restore_mixes_nothing(killed: tuple[Path, Path], number: int) -> None:
    place, folder = killed
    words = [sys.executable, "-c", CRASH, str(place), str(folder), str(number)]
    code = subprocess.run(words, cwd=Path(__file__).parents[2], check=False).returncode
    assert code in ((9,) if number == 0 else (0, 9))
    state, marks, count = _marks(place)
    assert (state, count) == ("ok", ROWS)
    assert marks == {"old"} if number == 0 else marks == {"new"}
    database = Database(f"sqlite:///{place}")  # and the restore can be repeated
    backup.restore(database, folder, replace=True)
    database.close()
    assert _marks(place) == ("ok", {"new"}, ROWS)


def test_a_restore_over_a_damaged_database_succeeds(killed: tuple[Path, Path]) -> None:
    place, folder = killed
    place.write_bytes(b"no database at all" * 1000)
    with closing(sqlite3.connect(folder / "database.sqlite")):
        database = Database(f"sqlite:///{place}")
    with pytest.raises(Exception, match="not a database"):
        database.ping()
    backup._restore_sqlite(database, folder / "database.sqlite")
    database.close()
    assert _marks(place) == ("ok", {"new"}, ROWS)


def test_a_restore_waits_for_nobody_and_changes_nothing_in_use(killed: tuple[Path, Path]) -> None:
    place, folder = killed
    database = Database(f"sqlite:///{place}")
    with closing(sqlite3.connect(place, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE marked SET mark = 'latest'")
        with pytest.raises(Unavailable, match="in use"):
            backup.restore(database, folder, replace=True)
        writer.execute("COMMIT")
    database.close()
    assert _marks(place) == ("ok", {"latest"}, ROWS)


# Originals


def _original(database: Database, content: bytes) -> str:
    blob = asyncio.run(blobs().put(content))

    def name(session: object) -> None:
        document_id = find_or_make(session, About(), tenant="default")  # type: ignore[arg-type]
        original = Original(blob.key, blob.size_bytes, "text/plain", "a.txt")
        receive_file(session, document_id, About(), original, tenant="default")  # type: ignore[arg-type]

    database.transaction(name)
    return blob.key


def _stored(tmp_path: Path, key: str) -> Path:
    return tmp_path / "data" / "blobs" / key[:2] / key


@pytest.fixture
def store(sqlite_db: Database, settings_env: SettingsEnv, tmp_path: Path) -> Database:
    settings_env(database_url=str(sqlite_db.engine.url), data_dir=tmp_path / "data")
    return sqlite_db


def test_a_damaged_original_fails_its_backup_and_no_other(store: Database, tmp_path: Path) -> None:
    good, bad = _original(store, b"good"), _original(store, b"bad")
    _stored(tmp_path, bad).write_bytes(b"changed")
    folder = tmp_path / "backup"
    with pytest.raises(InvalidInput, match=bad):
        backup.back_up(store, folder, lambda: asyncio.run(originals.back_up(blobs(), folder)))
    assert [path.name for path in folder.glob("originals/*/*")] == [good]
    with pytest.raises(InvalidInput, match="not a complete backup"):
        backup.read_manifest(folder)


def test_a_damaged_original_reaches_no_reader(store: Database, tmp_path: Path) -> None:
    key, target = _original(store, b"content"), tmp_path / "copy"
    _stored(tmp_path, key).write_bytes(b"contenT")
    with pytest.raises(InvalidInput) as refused:
        asyncio.run(blobs().fetch(key, target))
    assert refused.value.code == "blob_damaged" and not target.exists()


def test_a_restore_stores_nothing_of_a_damaged_backup(
    store: Database, tmp_path: Path, settings_env: SettingsEnv
) -> None:
    first, last = sorted([_original(store, b"one"), _original(store, b"two")])
    folder = tmp_path / "backup"
    made = backup.back_up(store, folder, lambda: asyncio.run(originals.back_up(blobs(), folder)))
    assert made.originals == 2 and backup.read_manifest(folder) == made
    settings_env(data_dir=tmp_path / "elsewhere")
    path = folder / "originals" / last[:2] / last
    content = path.read_bytes()
    path.write_bytes(b"damaged")
    with pytest.raises(InvalidInput, match=last):
        asyncio.run(originals.restore(blobs(), folder, expected=made.originals))
    path.unlink()
    with pytest.raises(InvalidInput, match="1 originals"):
        asyncio.run(originals.restore(blobs(), folder, expected=made.originals))
    for key in (first, last):
        with pytest.raises(NotFound):
            asyncio.run(blobs().written_at(key))
    path.write_bytes(content)
    assert asyncio.run(originals.restore(blobs(), folder, expected=made.originals)) == 2
