"""Links and directives of a page and its server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.sources.fetching.links import PageInspection, inspect_page
from app.sources.fetching.links_parser import MAX_LINKS, inspect_html
from app.sources.fetching.page_text import PageText
from app.sources.fetching.robots_directives import directives

URL = "https://example.org/a/page"
PAGE = """<html><head><base href="/b/"><link rel="canonical" href="../canonical#part">
<meta name="ROBOTS" content="noarchive"></head><body>
<a href="one">1</a> <a href="one#two">again</a>
<a href=" https://Other.example/x?y=1&amp;z=2 ">2</a> <a href="//third.example">3</a>
<a rel="external NoFollow" href="no">no</a> <a rel="sponsored" href="ad">no</a> <a href="mailto:a@example.org">no</a>
<a href="javascript:alert(1)">no</a> <a href="http://[broken">no</a> <a href="http://x:port/">no</a> <a>no</a>
<a href="">no</a> <map><area href="/area"></map><script>let a = "text that counts for nothing";</script></body></html>
"""


def _look(tmp_path: Path, html: str, tag: str | None = None) -> PageInspection:
    blob = tmp_path / "page.html"
    blob.write_text(html)
    fields = inspect_html(blob, URL, tag, "Millrace/0.1")
    return PageInspection(**{**fields, "links": tuple(fields["links"])})


def test_links_of_a_page(tmp_path: Path) -> None:
    """Absolute by <base>, http(s) only, unique, without fragments and nofollow links."""
    seen = _look(tmp_path, PAGE)
    assert seen.links == (
        "https://example.org/b/one", "https://Other.example/x?y=1&z=2", "https://third.example",
        "https://example.org/area",
    )  # fmt: skip
    assert seen.canonical == "https://example.org/canonical"
    assert (seen.noindex, seen.nofollow, seen.scripts) == (False, False, 1)
    assert 20 < seen.characters < 60


@pytest.mark.parametrize(
    ("html", "tag", "noindex", "nofollow"),
    [
        ('<meta name=robots content="NOINDEX, follow">', None, True, False),
        ('<meta name=robots content="none">', None, True, True),
        ('<meta name=Millrace content="nofollow"><meta name=otherbot content=noindex>', None, False, True),
        ("", "noindex", True, False),
        ("", "otherbot: noindex, nofollow", False, False),
        ("", "millrace: noindex, nofollow", True, True),
        ("", "unavailable_after: 25 Jun 2030 15:00:00 PST, nofollow", False, True),
    ],
)
def test_robots_directives_of_a_page_are_read(
    tmp_path: Path, html: str, tag: str | None, noindex: bool, nofollow: bool
) -> None:
    seen = _look(tmp_path, f'<html><head>{html}</head><body><a href="/x">x</a></body></html>', tag)
    assert (seen.noindex, seen.nofollow, bool(seen.links)) == (noindex, nofollow, not nofollow)


def test_malformed_pages_are_inspected(tmp_path: Path) -> None:
    assert _look(tmp_path, "").links == ()
    assert _look(tmp_path, "\x00<a href=x\x00>" * 5).links is not None
    many = "".join(f'<a href="/{number}">' for number in range(MAX_LINKS + 100))
    assert len(_look(tmp_path, many).links) == MAX_LINKS
    assert _look(tmp_path, f'<a href="/{"x" * 3000}">').links == ()
    assert directives([""], "Millrace/0.1") == {""}


def test_fetched_page_is_inspected_in_a_sandbox() -> None:
    page = PageText(URL, 200, "html", PAGE, robots_tag="nofollow")
    seen = asyncio.run(inspect_page(page))
    assert seen.nofollow and seen.links == () and seen.canonical == "https://example.org/canonical"
    plain = asyncio.run(inspect_page(PageText(URL, 200, "text", "https://example.org/", robots_tag="noindex")))
    assert plain.noindex and plain.links == ()
