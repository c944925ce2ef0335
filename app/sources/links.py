"""Where a page leads, and what it says to robots; foreign bytes in C code, so it is looked at in a lane."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

from app.core.settings import get_settings
from app.documents.models import LONGEST_URL
from app.jobs import lanes
from app.sources.fetch import Page

MOST_LINKS = 5_000
LOOK_LIMIT_S = 20.0
_NOT_FOLLOWED = {"nofollow", "ugc", "sponsored"}
_SILENT = "script, style, noscript, template, svg, iframe"


@dataclass(frozen=True, slots=True)
class Look:
    """`links` are absolute, without fragments, each once, in the page's order; none where it says nofollow.

    `canonical` is the address it says it should be known by; `scripts` how many it has, `characters` how much text.
    """

    links: tuple[str, ...] = ()
    canonical: str | None = None
    noindex: bool = False
    nofollow: bool = False
    scripts: int = 0
    characters: int = 0


async def look(page: Page) -> Look:
    """What can be seen of a fetched page: its own words, and those that its server says to robots (X-Robots-Tag)."""
    if page.format != "html":
        said = directives([page.robots_tag or ""], get_settings().fetch_user_agent)
        return Look(noindex="noindex" in said, nofollow="nofollow" in said, characters=len(page.text))
    arguments = {"url": page.url, "robots_tag": page.robots_tag, "agent": get_settings().fetch_user_agent}
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "page.html"
        await asyncio.to_thread(blob.write_text, page.text, "utf-8", "replace")
        found: dict[str, Any] = await lanes.run(look_at, arguments, blob=blob, time_limit_s=LOOK_LIMIT_S)
    return Look(**{**found, "links": tuple(found["links"])})


def look_at(blob: Path, url: str, robots_tag: str | None, agent: str) -> dict[str, Any]:
    """A Look as JSON, of the HTML in the file (UTF-8). Runs in a lane."""
    page = LexborHTMLParser(blob.read_text("utf-8", "replace"))
    base = _absolute(_attribute(page.css_first("base[href]"), "href"), url) or url
    said = directives([robots_tag or "", *_meta_robots(page, agent)], agent)
    return {
        "links": [] if "nofollow" in said else _links(page, base),
        "canonical": _canonical(page, base),
        "noindex": "noindex" in said,
        "nofollow": "nofollow" in said,
        "scripts": len(page.css("script")),
        "characters": _characters(page),
    }


def directives(said: list[str], agent: str) -> set[str]:
    """What robots are told, `none` taken apart: of `noindex, otherbot: nofollow` what is meant for us."""
    found: set[str] = set()
    for line in said:
        meant = True
        for word in line.lower().split(","):
            name, colon, rest = word.strip().partition(":")
            if colon and name not in ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"):
                meant, name = name.strip() in agent.lower(), rest.strip()
            if meant:
                found.add(name)
    return found | ({"noindex", "nofollow"} if "none" in found else set())


def _meta_robots(page: LexborHTMLParser, agent: str) -> list[str]:
    token = agent.partition("/")[0].strip().lower()
    nodes = [node for node in page.css("meta[name]") if _attribute(node, "name").strip().lower() in ("robots", token)]
    return [_attribute(node, "content") for node in nodes]


def _links(page: LexborHTMLParser, base: str) -> list[str]:
    found: dict[str, None] = {}
    for node in page.css("a[href], area[href]"):
        if _NOT_FOLLOWED & set(_attribute(node, "rel").lower().split()):
            continue
        there = _absolute(_attribute(node, "href"), base)
        if there is not None:
            found[there] = None
        if len(found) == MOST_LINKS:
            break
    return list(found)


def _canonical(page: LexborHTMLParser, base: str) -> str | None:
    for node in page.css("link[rel][href]"):
        if "canonical" in _attribute(node, "rel").lower().split():
            return _absolute(_attribute(node, "href"), base)
    return None


def _absolute(href: str, base: str) -> str | None:
    """None for what is no page: another scheme, no URL at all, or one that nobody could keep."""
    try:
        there = urldefrag(urljoin(base, href.strip())).url
        parts = urlsplit(there)
        _ = parts.port
    except ValueError:
        return None
    if not href.strip() or parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return there if len(there.encode("utf-8", "replace")) <= LONGEST_URL else None


def _characters(page: LexborHTMLParser) -> int:
    body = page.body
    if body is None:
        return 0
    for node in body.css(_SILENT):
        node.decompose()
    return len(" ".join(body.text(separator=" ").split()))


def _attribute(node: LexborNode | None, name: str) -> str:
    return (node.attributes.get(name) or "") if node is not None else ""
