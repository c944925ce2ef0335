"""Turn a page's HTML into the Markdown of its main content. Foreign bytes in C code, so it runs in the sandbox."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import trafilatura
from lxml.etree import LxmlError
from selectolax.lexbor import LexborHTMLParser, LexborNode

from app.documents.extract.html_depth import check_depth
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages
from app.documents.extract.plain import read

MIN_CHARACTERS = 40
_TITLES = 'meta[property="og:title"]'
_DESCRIPTIONS = 'meta[name="description"], meta[property="og:description"]'
# Errors that the tree code of lxml and trafilatura raises on unexpected mark-up.
_TRIPPED = (
    LxmlError, ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError
)  # fmt: skip
_NOISE = "script, style, noscript, template, svg, iframe, nav, footer, aside, form, button, dialog, head"
_BLOCK = re.compile(
    "address|article|blockquote|body|dd|div|dl|dt|fieldset|figcaption|figure|h[1-6]|header|hr|li|main|ol|p|pre|section|"
    "table|tbody|td|th|tr|ul"
)


def extract_html(blob: Path, url: str | None = None) -> dict[str, Any]:
    """Return {title, description, language} of the page in the file (UTF-8); None for what it does not state.

    The text is written to the file's path with the ending `.md`: the main content by trafilatura; if that finds almost
    none, everything except navigation.
    """
    html = blob.read_text("utf-8", "replace")
    about, text = _extract(html, url)
    blob.with_suffix(".md").write_text(text, "utf-8", "replace")
    return about


def extract(blob: Path, limits: ExtractLimits = USUAL) -> Pages:
    """Extract a file of HTML; its encoding is declared or detected."""
    about, text = _extract(read(blob), None)
    pages = Pages(limits)
    pages.title, pages.language = about["title"], about["language"]
    pages.description = about["description"]
    pages.add(text)
    return pages


def to_markdown(html: str) -> str:
    """Return all text of HTML without navigation, such as a chapter or a letter."""
    return _all_text(LexborHTMLParser(check_depth(html)))


def _extract(html: str, url: str | None) -> tuple[dict[str, Any], str]:
    page = LexborHTMLParser(check_depth(html))
    about = {
        "title": _content(page, _TITLES) or _text(page, "title") or _text(page, "h1"),
        "description": _content(page, _DESCRIPTIONS),
        "language": _attribute(page.css_first("html"), "lang"),
    }
    text = _main_content(html, url)
    if len(text) < MIN_CHARACTERS:
        text = max(text, _all_text(page), key=len)
    return about, text


def _main_content(html: str, url: str | None) -> str:
    try:
        document = trafilatura.bare_extraction(
            html,
            url=url,
            output_format="markdown",
            include_comments=False,
            include_formatting=True,
            include_tables=True,
        )
    except _TRIPPED:
        return ""  # odd mark-up breaks trafilatura's tree code; the other parser reads it
    return "" if document is None or isinstance(document, dict) else document.text or ""


def _content(page: LexborHTMLParser, selector: str) -> str | None:
    return _attribute(page.css_first(selector), "content")


def _attribute(node: LexborNode | None, name: str) -> str | None:
    return (node.attributes.get(name) or None) if node is not None else None


def _text(page: LexborHTMLParser, selector: str) -> str | None:
    node = page.css_first(selector)
    return (node.text(strip=True) or None) if node is not None else None


def _all_text(page: LexborHTMLParser) -> str:
    body = page.body
    if body is None:
        return ""
    for node in body.css(_NOISE):
        node.decompose()
    lines: list[str] = [""]
    for node in body.traverse(include_text=True):
        _write(node, lines)
    return "\n\n".join(line for line in (" ".join(line.split()) for line in lines) if line)


def _write(node: LexborNode, lines: list[str]) -> None:
    tag = node.tag or ""
    if tag == "-text":
        lines[-1] += node.text_content or ""
    elif tag == "br":
        lines[-1] += " "
    elif _BLOCK.fullmatch(tag):
        level = int(tag[1]) if tag[1:].isdigit() else 0
        lines.append("#" * level + " " if level else "- " if tag == "li" else "")
