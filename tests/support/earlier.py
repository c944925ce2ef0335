"""The program as it was before: the last release, or, before there is one, what the newest migration was added to."""

from __future__ import annotations

import subprocess
from pathlib import Path

from app.core import schema
from tests.support.stack import REPOSITORY


def _git(*words: str) -> str:
    ended = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return ended.stdout.strip() if ended.returncode == 0 else ""


def commit() -> str | None:
    """Which commit that is; None where this copy has no history that would tell."""
    # A checkout of the release itself is compared with the one before.
    tag = _git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^")
    if tag:
        return tag
    newest = next((schema.SCRIPTS / "versions").glob(f"{schema.head()}_*.py"))
    # A merge may add it.
    added = _git(
        "log", "-m", "--first-parent", "--diff-filter=A", "--format=%H", "--", str(newest.relative_to(REPOSITORY))
    ).splitlines()
    return _git("rev-parse", "--verify", f"{added[-1]}^") or None if added else None


def unpack(commit: str, folder: Path) -> None:
    """That state's files, as a tree that can be run from."""
    folder.mkdir(parents=True)
    packed = folder / "tree.tar"
    subprocess.run(["git", "archive", "-o", str(packed), commit], cwd=REPOSITORY, check=True)
    subprocess.run(["tar", "-xf", str(packed), "-C", str(folder)], check=True)
    packed.unlink()
