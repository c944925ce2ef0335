"""Parse events of Firecrawl, including irregular documents, links instead of documents, and older bodies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.clients.firecrawl_errors import page_error, status_of
from app.core.errors import InvalidInput, Unavailable
from app.documents.accept.accept import About, Content
from app.documents.text import scrub, scrub_text
from app.sources.payloads.errors import InvalidPayload

_TYPE = re.compile(r"(crawl|batch_scrape|extract|agent|monitor|scrape|search|map)\.([a-z_]{1,40})")
_ENDS = {"completed", "failed", "cancelled"}
# Metadata fields of a page that have their own fields in our documents.
_OWN = {"title", "description", "language", "country", "url", "statusCode", "sourceURL"}


@dataclass(frozen=True, slots=True)
class FirecrawlPage:
    """One document of an event, or the reason why it is invalid.

    `is_temporary`: the page's server may answer a later request, as after 503.
    """

    url: str | None
    about: About | None = None
    content: Content | None = None
    error: str | None = None
    is_temporary: bool = False


@dataclass(frozen=True, slots=True)
class FirecrawlEvent:
    """One event; `step` is the part of the type after the dot: started, page, completed, failed, …"""

    type: str
    operation: str
    step: str
    crawl_id: str | None
    success: bool
    error: str | None
    metadata: dict[str, Any] = field(default_factory=dict)
    data: tuple[Any, ...] = ()
    webhook_id: str | None = None

    @property
    def run_id(self) -> str | None:
        return self.crawl_id

    @property
    def key(self) -> str | None:
        """Key of the delivery, equal for its retries; None from older servers."""
        return self.webhook_id

    @property
    def ends(self) -> bool:
        return self.step in _ENDS

    def pages(self) -> Iterator[FirecrawlPage]:
        """Yield each document of the event; skips links, which some events carry instead."""
        for document in self.data:
            if isinstance(document, dict):
                yield page_of(document, self.crawl_id)


def parse(raw: bytes) -> FirecrawlEvent:
    """Parse an event. Raises InvalidPayload, whose `errors` name each fault."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _invalid([_fault("body", "is not JSON")]) from error
    faults: list[dict[str, Any]] = []
    if not isinstance(body, dict):
        raise _invalid([_fault("body", "must be a JSON object")])
    kind = body.get("type")
    match = _TYPE.fullmatch(kind) if isinstance(kind, str) else None
    if match is None:
        faults.append(_fault("type", f"{str(kind)[:60]!r} is not a known event"))
    success = body.get("success", True)
    if not isinstance(success, bool):
        faults.append(_fault("success", "must be true or false"))
    run_id = body.get("id") or body.get("jobId")
    if run_id is not None and not (isinstance(run_id, str) and len(run_id) <= 255 and run_id == scrub_text(run_id)):
        faults.append(_fault("id", "must be printable text of up to 255 characters"))
    data = body.get("data")
    if data is None or data == "":
        data = []
    if not isinstance(data, list):
        data = [data]  # older bodies hold a single document
    if faults:
        raise _invalid(faults)
    assert match is not None
    metadata = body.get("metadata")
    return FirecrawlEvent(
        type=str(kind),
        operation=match[1],
        step=match[2],
        crawl_id=run_id if isinstance(run_id, str) else None,
        success=bool(success),
        error=_text(body.get("error")),
        metadata=scrub(metadata) if isinstance(metadata, dict) else {},
        data=tuple(data),
        webhook_id=_text(body.get("webhookId")),
    )


def page_of(document: dict[str, Any], crawl_id: str | None) -> FirecrawlPage:
    """Return the document as a page of ours, or with the reason why it is invalid, as an error page is."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return FirecrawlPage(_text(document.get("url")), error="the document has no metadata")
    url = _text(metadata.get("url")) or _text(metadata.get("sourceURL"))
    if url is None:
        return FirecrawlPage(None, error="metadata.url is missing")
    fault = page_error(metadata, url)
    if fault is not None:
        return FirecrawlPage(url, error=fault.message, is_temporary=isinstance(fault, Unavailable))
    markdown, html = _body(document.get("markdown")), _body(document.get("html"))
    if not markdown.strip() and not html.strip():
        return FirecrawlPage(url, error="markdown and html have no text", is_temporary=True)
    try:
        rest = scrub({name: value for name, value in metadata.items() if name not in _OWN})
    except InvalidInput as error:
        return FirecrawlPage(url, error=error.message)
    lists = {
        name: metadata[name] for name in ("title", "description", "language") if isinstance(metadata.get(name), list)
    }
    about = About(
        url=url,
        title=_text(metadata.get("title")),
        description=_text(metadata.get("description")),
        language=_text(metadata.get("language")),
        country=_text(metadata.get("country")),
        metadata={**rest, **scrub(lists)},
        source="firecrawl",
    )
    content = Content(
        "markdown" if markdown.strip() else "html",
        markdown if markdown.strip() else html,
        html=html if markdown.strip() and html else None,
        resolved_url=_text(metadata.get("sourceURL")) or url,
        status_code=status_of(metadata),
        crawl_session=crawl_id,
    )
    return FirecrawlPage(url, about, content)


def _body(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _text(value: Any) -> str | None:
    """Return storable text; of a list the first text, since a page may repeat a tag."""
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, str) and item.strip()), None)
    text = scrub_text(value) if isinstance(value, str) else ""
    return text if text.strip() else None


def _fault(where: str, message: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": ["body", where], "msg": message, "field": where, "message": message}


def _invalid(faults: list[dict[str, Any]]) -> InvalidPayload:
    return InvalidPayload("Invalid webhook payload structure", errors=faults)
