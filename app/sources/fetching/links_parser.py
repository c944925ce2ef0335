"""Parse a page's HTML for links and directives; runs in the sandbox since C code parses untrusted bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

from app.documents.extract.html_depth import check_depth
from app.documents.models import MAX_URL_BYTES
from app.sources.fetching.refresh import refresh_target
from app.sources.fetching.robots_directives import directives

MAX_LINKS = 5_000
_NOT_FOLLOWED = {"nofollow", "ugc", "sponsored"}
_INVISIBLE = "script, style, noscript, template, svg, iframe"


def inspect_html(blob: Path, url: str, robots_tag: str | None, agent: str) -> dict[str, Any]:
    """Return the fields of a PageInspection for the HTML in the file (UTF-8). Runs in the sandbox."""
    page = LexborHTMLParser(check_depth(blob.read_text("utf-8", "replace")))
    base = _absolute(_attribute(page.css_first("base[href]"), "href"), url) or url
    tags = directives([robots_tag or "", *_meta_robots(page, agent)], agent)
    return {
        "links": [] if "nofollow" in tags else _links(page, base),
        "canonical": _canonical(page, base),
        "refresh": _refresh(page, url, base),
        "noindex": "noindex" in tags,
        "nofollow": "nofollow" in tags,
        "scripts": len(page.css("script")),
        "characters": _characters(page),
    }


def _meta_robots(page: LexborHTMLParser, agent: str) -> list[str]:
    token = agent.partition("/")[0].strip().lower()
    nodes = [node for node in page.css("meta[name]") if _attribute(node, "name").strip().lower() in ("robots", token)]
    return [_attribute(node, "content") for node in nodes]


def _links(page: LexborHTMLParser, base: str) -> list[str]:
    links: dict[str, None] = {}
    for node in page.css("a[href], area[href]"):
        if _NOT_FOLLOWED & set(_attribute(node, "rel").lower().split()):
            continue
        url = _absolute(_attribute(node, "href"), base)
        if url is not None:
            links[url] = None
        if len(links) == MAX_LINKS:
            break
    return list(links)


def _canonical(page: LexborHTMLParser, base: str) -> str | None:
    for node in page.css("link[rel][href]"):
        if "canonical" in _attribute(node, "rel").lower().split():
            return _absolute(_attribute(node, "href"), base)
    return None


def _refresh(page: LexborHTMLParser, url: str, base: str) -> str | None:
    """Return the URL that the page leads to within seconds; a refresh for browsers without scripts does not count."""
    for node in page.css("meta[http-equiv][content]"):
        if _attribute(node, "http-equiv").strip().lower() == "refresh" and not _is_in_noscript(node):
            target = refresh_target(_attribute(node, "content"), base)
            return None if target is None or target == urldefrag(url).url else target
    return None


def _is_in_noscript(node: LexborNode) -> bool:
    parent = node.parent
    while parent is not None:
        if parent.tag in ("noscript", "template"):
            return True
        parent = parent.parent
    return False


def _absolute(href: str, base: str) -> str | None:
    """Return the absolute URL, or None if it is invalid, too long, or not http(s)."""
    try:
        url = urldefrag(urljoin(base, href.strip())).url
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    if not href.strip() or parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return url if len(url.encode("utf-8", "replace")) <= MAX_URL_BYTES else None


def _characters(page: LexborHTMLParser) -> int:
    body = page.body
    if body is None:
        return 0
    for node in body.css(_INVISIBLE):
        node.decompose()
    return len(" ".join(body.text(separator=" ").split()))


def _attribute(node: LexborNode | None, name: str) -> str:
    return (node.attributes.get(name) or "") if node is not None else ""
