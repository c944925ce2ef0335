"""A disk of a few megabytes that a test fills."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.services import missing

SIZE = "4m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of SIZE; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        missing("a file system to fill", f"only root may mount one: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    """Write a file until the file system has no room left."""
    with (folder / "filling").open("wb", buffering=0) as filling:
        for size in (64 * 1024, 1):
            try:
                while filling.write(b"x" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
