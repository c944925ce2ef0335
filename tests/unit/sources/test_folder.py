"""Files of a watched folder become documents once; changed files are read again, unreadable ones are skipped."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.db import Database, database
from app.core.errors import InvalidInput
from app.documents.models import Document
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from app.sources import folder as watched
from app.sources.jobs import ScanFolder
from tests.support import made_documents
from tests.support.databases import SettingsEnv
from tests.support.desk import TENANT, Desk


@pytest.fixture
def folder(db: Database, settings_env: SettingsEnv, tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    settings_env(watch_folder=path, database_url=db.engine.url.render_as_string(hide_password=False))
    return path


def _put(path: Path, data: bytes | str) -> Path:
    """Create a file with an old modification time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    age = time.time() - 60 - len(data)
    os.utime(path, (age, age))
    return path


def _scan(desk: Desk) -> dict[str, Any]:
    job_id = desk.db.transaction(lambda session: enqueue(session, ScanFolder(), tenant=TENANT).id)
    progress = desk.claim(job_id)
    result = asyncio.run(watched.scan(progress))
    desk._finish(progress.claim, "succeeded", result=result)
    query = sa.select(JobRow.id).where(JobRow.kind == "documents.ingest", JobRow.state == "queued").order_by(JobRow.id)
    for queued_id in desk.db.read(lambda session: session.scalars(query).all()):
        desk.work(queued_id)
    return result


def _documents(desk: Desk) -> int:
    return desk.db.read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(Document))) or 0


def test_files_are_found_once_and_again_when_they_change(folder: Path, tmp_path: Path) -> None:
    desk = Desk(database())
    _put(folder / "notes" / "mill.md", "# Mill\n\nThe heron stands.")
    made = made_documents.make(tmp_path, "docx", "penstock")
    _put(folder / "report.docx", made.path.read_bytes())
    _put(folder / "program", b"\x7fELF" + bytes(100))
    _put(folder / ".hidden.md", "secret words")
    _put(folder / "empty.md", "")
    (folder / "fresh.md").write_text("still being written")
    (tmp_path / "outside.md").write_text("outside words")
    os.utime(tmp_path / "outside.md", (1, 1))
    (folder / "link.md").symlink_to(tmp_path / "outside.md")
    assert _scan(desk) == {"files": 3, "new": 2, "refused": 1}
    assert desk.find("penstock", mode="keyword")["total"] == 1
    assert desk.find("heron", mode="keyword")["results"][0]["metadata"]["path"] == "notes/mill.md"
    assert _scan(desk) == {"files": 3, "new": 0, "refused": 1}
    _put(folder / "notes" / "mill.md", "# Mill\n\nThe wind mill turns.")
    assert _scan(desk)["new"] == 1
    assert desk.find("heron", mode="keyword")["total"] == 0
    assert desk.find("wind", mode="keyword")["total"] == 1
    (folder / "report.docx").unlink()
    assert _scan(desk)["files"] == 2
    assert desk.find("penstock", mode="keyword")["total"] == 1
    assert _documents(desk) == 2


def test_a_file_that_cannot_be_read_is_not_tried_each_minute(folder: Path) -> None:
    desk = Desk(database())
    _put(folder / "broken.pdf", b"%PDF-1.7\nand no more")
    with pytest.raises(InvalidInput):
        _scan(desk)
    assert _scan(desk) == {"files": 1, "new": 0, "refused": 0}


def test_missing_folder(folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(InvalidInput, match="MILLRACE_WATCH_FOLDER"):
        _scan(Desk(database()))
