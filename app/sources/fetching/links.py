"""Where a page leads, and what it says to robots; foreign bytes in C code, so it is looked at in a lane."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.settings import get_settings
from app.jobs.sandbox import call
from app.sources.fetching.page_text import PageText
from app.sources.fetching.robots_directives import directives

INSPECT_TIMEOUT_S = 20.0
INSPECT = "app.sources.fetching.links_parser:inspect_html"  # by name: its library is loaded in the lanes alone


@dataclass(frozen=True, slots=True)
class PageInspection:
    """`links` are absolute, without fragments, each once, in the page's order; none where it says nofollow.

    `canonical` is the address it says it should be known by; `scripts` how many it has, `characters` how much text.
    """

    links: tuple[str, ...] = ()
    canonical: str | None = None
    noindex: bool = False
    nofollow: bool = False
    scripts: int = 0
    characters: int = 0


async def inspect_page(page: PageText) -> PageInspection:
    """What can be seen of a fetched page: its own words, and those that its server says to robots (X-Robots-Tag)."""
    if page.format != "html":
        said = directives([page.robots_tag or ""], get_settings().fetch_user_agent)
        return PageInspection(noindex="noindex" in said, nofollow="nofollow" in said, characters=len(page.text))
    arguments = {"url": page.url, "robots_tag": page.robots_tag, "agent": get_settings().fetch_user_agent}
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "page.html"
        await asyncio.to_thread(blob.write_text, page.text, "utf-8", "replace")
        found: dict[str, Any] = await call.run(INSPECT, arguments, blob=blob, time_limit_s=INSPECT_TIMEOUT_S)
    return PageInspection(**{**found, "links": tuple(found["links"])})
