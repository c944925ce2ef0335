"""`millrace backup -` and `millrace restore -`: a backup through stdout and stdin, for containers."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.blobs import blobs
from app.core.db import Database
from app.documents.files.shared_store import is_shared
from tests.support.databases import SettingsEnv
from tests.support.stack import REPOSITORY

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]


def _run(folder: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    env |= {"MILLRACE_DATA_DIR": str(folder), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "app", *words]
    return subprocess.run(command, env=env, input=stdin, capture_output=True, timeout=60, check=False)


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    """Return the archive of an installation with one more tenant."""
    folder = tmp_path / "source"
    assert _run(folder, "migrate").returncode == 0
    database = Database(f"sqlite:///{folder / 'millrace.db'}")
    values = "('moved', 'Moved', '2026-01-01 00:00:00')"
    statement = sa.text(f"INSERT INTO tenant (id, title, created_at) VALUES {values}")
    database.transaction(lambda session: session.execute(statement))
    database.close()
    ran = _run(folder, "backup", "-")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _tenants(session: Session) -> set[str]:
    return set(session.scalars(sa.text("SELECT id FROM tenant")))


def test_a_backup_passes_through_stdout_and_stdin(archive: bytes, tmp_path: Path, settings_env: SettingsEnv) -> None:
    target = tmp_path / "target"
    ran = _run(target, "restore", "-", stdin=archive)
    assert ran.returncode == 0, ran.stderr
    settings_env(data_dir=target)
    database = Database(f"sqlite:///{target / 'millrace.db'}")
    try:
        assert "moved" in database.read(_tenants)
        assert is_shared(database, blobs()), "the store of the target is the one of the restored installation"
    finally:
        database.close()
    assert not list(target.glob("backup-*")), "nothing is left of the copy"
    refused = _run(target, "restore", "-", stdin=archive)
    assert refused.returncode == 2, "the database is not empty"
    assert str(target) in refused.stderr.decode(), "the error names the installation"
    assert _run(target, "restore", "-", "--replace", stdin=archive).returncode == 0


@pytest.mark.parametrize("cut", ["nothing", "header", "half"])
def test_a_cut_off_archive_is_refused(archive: bytes, tmp_path: Path, cut: str) -> None:
    ran = _run(
        tmp_path / "target",
        "restore",
        "-",
        stdin=archive[: {"nothing": 0, "header": 1000, "half": len(archive) // 2}[cut]],
    )
    assert (ran.returncode, b"Traceback" in ran.stderr) == (2, False), ran.stderr


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside"])
def test_an_archive_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as made:
        member = tarfile.TarInfo(name)
        member.size = 3
        made.addfile(member, io.BytesIO(b"bad"))
    ran = _run(tmp_path / "target", "restore", "-", stdin=content.getvalue())
    assert ran.returncode == 2
    assert not list(tmp_path.rglob("outside"))
