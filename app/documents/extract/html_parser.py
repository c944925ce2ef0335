"""Turn a page's HTML into the Markdown of its main content. Foreign bytes in C code, so it runs in the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selectolax.lexbor import LexborHTMLParser, LexborNode

from app.documents.extract.html_clean_parser import clean_page, clean_text, length
from app.documents.extract.html_depth import check_depth
from app.documents.extract.html_main_parser import find_main
from app.documents.extract.html_markdown_parser import write_markdown
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages
from app.documents.extract.plain import read_html
from app.documents.text import strip_data_uris

_TITLES = 'meta[property="og:title"]'
_DESCRIPTIONS = 'meta[name="description"], meta[property="og:description"]'


def extract_html(blob: Path, url: str | None = None) -> dict[str, Any]:
    """Return {title, description, language} of the page in the file (UTF-8); None for what it does not state.

    The text is written to the file's path with the ending `.md`: the main content, without menus, banners, comments
    and hidden text; see html_main_parser for a page without a main content.
    """
    html = blob.read_text("utf-8", "replace")
    about, text = _extract(html, url, Pages())
    blob.with_suffix(".md").write_text(strip_data_uris(text), "utf-8", "replace")
    return about


def extract(blob: Path, limits: ExtractLimits = USUAL) -> Pages:
    """Extract a file of HTML; its encoding is declared or detected."""
    pages = Pages(limits)
    about, text = _extract(read_html(blob, limits), None, pages)
    pages.title, pages.language = about["title"], about["language"]
    pages.description = about["description"]
    pages.add(text)
    return pages


def to_markdown(html: str) -> str:
    """Return all text of HTML without navigation, such as a chapter or a letter."""
    body = clean_text(LexborHTMLParser(check_depth(html)))
    return "" if body is None else write_markdown(body)


def _extract(html: str, url: str | None, pages: Pages) -> tuple[dict[str, Any], str]:
    page = LexborHTMLParser(check_depth(html))
    about = {
        "title": _content(page, _TITLES) or _text(page, "title") or _text(page, "h1"),
        "description": _content(page, _DESCRIPTIONS),
        "language": _attribute(page.css_first("html"), "lang"),
    }
    body = clean_page(page)
    if body is None:
        return about, ""
    main = find_main(body, url)
    text = write_markdown(main, pages)
    heading = body.css_first("h1")
    if main.mem_id != body.mem_id and heading is not None and main.css_first("h1") is None and length(heading):
        text = f"{write_markdown(heading)}\n\n{text}"
    return about, text


def _content(page: LexborHTMLParser, selector: str) -> str | None:
    return _attribute(page.css_first(selector), "content")


def _attribute(node: LexborNode | None, name: str) -> str | None:
    return (node.attributes.get(name) or None) if node is not None else None


def _text(page: LexborHTMLParser, selector: str) -> str | None:
    node = page.css_first(selector)
    return (node.text(strip=True) or None) if node is not None else None
