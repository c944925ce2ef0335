"""The pages of docs/: each is in the index, each link leads somewhere, and each import of an example works."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.support.stack import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted([REPOSITORY / "README.md", *DOCS.rglob("*.md")])
OURS = ("app", "actors")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """The fragments that GitHub makes of the page's headings."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _is_unwritten(name: str) -> bool:
    """Return True for a reference page while the program has written none of them."""
    return name.startswith("reference-") and not any(DOCS.glob("reference-*.md"))


def _leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return _is_unwritten(name) or (target.exists() and (not anchor or anchor in _anchors(target)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_each_link_has_a_target(page: Path) -> None:
    links = [link for link in _LINK.findall(_FENCED.sub("", page.read_text())) if not link.startswith(("http", "/"))]
    assert [link for link in links if not _leads_somewhere(page, link)] == []


def test_the_index_names_each_page_once() -> None:
    index = (DOCS / "README.md").read_text()
    listed = re.findall(r"^- \[[^]]+\]\(([\w-]+\.md)\): .+$", index, re.MULTILINE)
    listed = [name for name in listed if not _is_unwritten(name)]
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md") if page.name != "README.md")


def _imports(page: Path) -> set[tuple[str, str]]:
    """Module and name of each import from our own code in the page's examples."""
    nodes = [node for code in _PYTHON.findall(page.read_text()) for node in ast.walk(ast.parse(code))]
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module is not None]
    return {
        (str(node.module), alias.name)
        for node in froms
        if str(node.module).partition(".")[0] in OURS
        for alias in node.names
    }


def _works(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ImportError:
        return False
    return True


def test_each_import_of_an_example_works() -> None:
    pairs = {pair for page in PAGES for pair in _imports(page)}
    assert len(pairs) > 10
    assert [f"from {module} import {name}" for module, name in sorted(pairs) if not _works(module, name)] == []


def test_names_have_their_paths_and_the_earlier_ones() -> None:
    """docs/own-kinds.md promises both: an earlier path works for one more release."""
    page = (DOCS / "own-kinds.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `([\w.]+)` \|(?: `([\w.]+)`)? \|$", page, re.MULTILINE)
    promised = {
        (module, name) for names, *paths in rows for module in filter(None, paths) for name in re.findall(r"\w+", names)
    }
    assert len(promised) > 25
    assert [f"from {module} import {name}" for module, name in sorted(promised) if not _works(module, name)] == []
