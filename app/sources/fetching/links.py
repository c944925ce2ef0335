"""Where a page leads, and what it says to robots; foreign bytes in C code, so it is looked at in a sandbox."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.settings import get_settings
from app.jobs.sandbox import call
from app.sources.fetching.page_text import Page
from app.sources.fetching.robots_parser import directives

LOOK_LIMIT_S = 20.0
LOOK_AT = "app.sources.fetching.links_parser:look_at"  # by name: its library is loaded in the sandboxes alone


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
        found: dict[str, Any] = await call.run(LOOK_AT, arguments, blob=blob, time_limit_s=LOOK_LIMIT_S)
    return Look(**{**found, "links": tuple(found["links"])})
