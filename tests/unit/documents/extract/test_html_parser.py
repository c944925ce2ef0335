"""HTML to Markdown: the main content, or all text, and never a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.documents.extract.html_parser import extract_html

ODD = [
    "<p>", "</p>", "<table><tr><td>", "<!--", "-->", "<![CDATA[", "]]>", "<svg>", "&#0;", "&bad;", "\x00", "<a href='",
    "<meta charset=x>", "text ", "<body", "\ud800", "<li>", "<html lang>",
]  # fmt: skip
ARTICLE = "<p>" + "The wheel turns slowly in the stream below the old house. " * 4 + "</p>"


def _extract(folder: Path, html: str) -> dict[str, Any]:
    blob = folder / "page.html"
    blob.write_text(html, "utf-8", "replace")
    return extract_html(blob, "https://example.com/") | {"markdown": blob.with_suffix(".md").read_text("utf-8")}


def test_main_content(tmp_path: Path) -> None:
    page = _extract(
        tmp_path,
        f"""<html lang="en-GB"><head><title>Mills &amp; wheels</title><meta name="description" content="On mills">
        </head><body><nav><a href="/">Home</a></nav><article><h1>Mills</h1>{ARTICLE}<h2>Parts</h2><ul><li>wheel</li>
        <li>axle</li></ul>{ARTICLE}</article><footer>Imprint</footer><script>alert("no")</script></body></html>""",
    )
    assert page["language"] == "en-GB" and page["description"] == "On mills" and "Mills" in page["title"]
    assert "## Parts" in page["markdown"] and "- wheel" in page["markdown"]
    assert not any(word in page["markdown"] for word in ("Home", "Imprint", "alert"))


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>short</p>", "short"),
        ("<title>T</title><body><div>a<br>b</div><div>c</div>", "a b\n\nc"),
        ("<h2>Head</h2><ul><li>one<li>two</ul>", "## Head\n\n- one\n- two"),
        ("plain words", "plain words"),
        ("<nav>menu</nav><style>p{}</style>", ""),
        ("", ""),
        ("<html></html>", ""),
        ("<<<>>>", None),
        ("<div>" * 3000 + "deep" + "</div>" * 3000, "deep"),
    ],
)
def test_small_and_odd_pages(tmp_path: Path, html: str, text: str | None) -> None:
    """Where there is next to no content, all text counts; nothing fails."""
    page = _extract(tmp_path, html)
    assert text is None or page["markdown"].strip() == text


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ODD), max_size=30))
def test_broken_markup_is_read_somehow(tmp_path: Path, parts: list[str]) -> None:
    """What browsers forgive is forgiven here."""
    assert set(_extract(tmp_path, "".join(parts))) == {"markdown", "title", "description", "language"}
