"""Read a page's links and directives for robots, in the sandbox since C code parses untrusted bytes."""

from __future__ import annotations

import asyncio
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

from app.core.settings import get_settings
from app.jobs.sandbox import call
from app.sources.fetching.page_text import PageText
from app.sources.fetching.robots_directives import directives

INSPECT_TIMEOUT_S = 20.0
_CANONICAL = re.compile(r"<([^<>]{1,2048})>[^<,]{0,200}?;\s*rel\s*=\s*\"?canonical\b", re.IGNORECASE)
INSPECT = "app.sources.fetching.links_parser:inspect_html"  # by name: only sandbox processes load its library


@dataclass(frozen=True, slots=True)
class PageInspection:
    """Links and directives of a page.

    `links` are absolute, without fragments, unique and in the page's order; empty with nofollow. `canonical` is the
    page's preferred URL, `refresh` the URL that it leads to within seconds, `scripts` the number of script elements,
    `characters` the length of the text.
    """

    links: tuple[str, ...] = ()
    canonical: str | None = None
    refresh: str | None = None
    noindex: bool = False
    nofollow: bool = False
    scripts: int = 0
    characters: int = 0


async def inspect_page(page: PageText) -> PageInspection:
    """Inspect a fetched page, with the directives of its HTML and of the X-Robots-Tag and Link headers."""
    if page.format != "html":
        tags = directives([page.robots_tag or ""], get_settings().fetch_user_agent)
        return PageInspection(
            canonical=canonical_of_header(page.link, page.url),
            noindex="noindex" in tags,
            nofollow="nofollow" in tags,
            characters=len(page.text),
        )
    arguments = {"url": page.url, "robots_tag": page.robots_tag, "agent": get_settings().fetch_user_agent}
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "page.html"
        await asyncio.to_thread(blob.write_text, page.text, "utf-8", "replace")
        fields: dict[str, Any] = await call.parse(INSPECT, arguments, blob=blob, time_limit_s=INSPECT_TIMEOUT_S)
    canonical = fields["canonical"] or canonical_of_header(page.link, page.url)
    return PageInspection(**{**fields, "links": tuple(fields["links"]), "canonical": canonical})


def canonical_of_header(link: str | None, url: str) -> str | None:
    """Return the URL of `<…>; rel="canonical"` in a Link header, or None."""
    match = _CANONICAL.search(link or "")
    try:
        return urldefrag(urljoin(url, match[1].strip())).url if match else None
    except ValueError:
        return None
