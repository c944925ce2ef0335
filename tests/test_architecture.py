"""docs/architecture.md names paths that exist, and every package of the program."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.stack import REPOSITORY

PAGE = REPOSITORY / "docs" / "architecture.md"
NAMED = re.compile(r"`((?:app|actors|tests|deploy|docs|scripts)/[\w./-]*)`")


def _named() -> set[str]:
    return set(NAMED.findall(PAGE.read_text()))


def test_each_path_on_the_page_exists() -> None:
    named = _named()
    assert len(named) > 50, "the page names its paths in backticks"
    assert {path for path in named if not (REPOSITORY / path).exists()} == set()


def test_each_package_has_its_line() -> None:
    lines = PAGE.read_text().splitlines()
    described = {match[1] for line in lines if (match := re.match(r"\| `(app/[\w/]+/)` \| \w", line))}
    packages = {f"{folder.relative_to(REPOSITORY)}/" for folder in _packages()}
    assert packages - described == set()


def _packages() -> list[Path]:
    """Folders of app/ that hold more than packages; of migrations the folder itself."""
    folders = [folder for folder in (REPOSITORY / "app").rglob("*") if folder.is_dir()]
    own = [folder for folder in folders if any(path.suffix in (".py", ".lua") for path in _files(folder))]
    return [folder for folder in own if folder.parent.name != "migrations"]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.name != "__init__.py"]
