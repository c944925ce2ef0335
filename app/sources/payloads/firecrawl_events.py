"""Firecrawl's events as they really come: documents with odd fields, links instead of documents, older bodies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import InvalidInput
from app.documents.accept.accept import About, Content
from app.documents.text import scrub, scrub_text

_TYPE = re.compile(r"(crawl|batch_scrape|extract|agent|monitor|scrape|search|map)\.([a-z_]{1,40})")
_ENDS = {"completed", "failed", "cancelled"}
# What a page says of itself that has a place of its own with us.
_OWN = {"title", "description", "language", "country", "url", "statusCode", "sourceURL"}


@dataclass(frozen=True, slots=True)
class FirecrawlPage:
    """One document of an event, or why it is none."""

    url: str | None
    about: About | None = None
    content: Content | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FirecrawlEvent:
    """`step` is what follows the dot: started, page, completed, failed, …"""

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
    def run(self) -> str | None:
        return self.crawl_id

    @property
    def key(self) -> str | None:
        """One a delivery, the same when it is tried again; older servers send none."""
        return self.webhook_id

    @property
    def ends(self) -> bool:
        return self.step in _ENDS

    def pages(self) -> Iterator[FirecrawlPage]:
        """The documents, each by itself; links, as some events carry them, are none."""
        for one in self.data:
            if isinstance(one, dict):
                yield page_of(one, self.crawl_id)


def parse(raw: bytes) -> FirecrawlEvent:
    """The event. Raises InvalidInput whose errors name each fault, for what is none."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _invalid([_fault("body", "it is no JSON")]) from error
    faults: list[dict[str, Any]] = []
    if not isinstance(body, dict):
        raise _invalid([_fault("body", "it is no JSON object")])
    kind = body.get("type")
    match = _TYPE.fullmatch(kind) if isinstance(kind, str) else None
    if match is None:
        faults.append(_fault("type", f"{str(kind)[:60]!r} is no event that is known"))
    success = body.get("success", True)
    if not isinstance(success, bool):
        faults.append(_fault("success", "it is neither true nor false"))
    given = body.get("id") or body.get("jobId")
    if given is not None and not (isinstance(given, str) and len(given) <= 255 and given == scrub_text(given)):
        faults.append(_fault("id", "it is no printable text of up to 255 characters"))
    data = body.get("data")
    if data is None or data == "":
        data = []
    if not isinstance(data, list):
        data = [data]  # older bodies have one document alone
    if faults:
        raise _invalid(faults)
    assert match is not None
    metadata = body.get("metadata")
    return FirecrawlEvent(
        type=str(kind),
        operation=match[1],
        step=match[2],
        crawl_id=given if isinstance(given, str) else None,
        success=bool(success),
        error=_text(body.get("error")),
        metadata=scrub(metadata) if isinstance(metadata, dict) else {},
        data=tuple(data),
        webhook_id=_text(body.get("webhookId")),
    )


def page_of(document: dict[str, Any], crawl_id: str | None) -> FirecrawlPage:
    """The document as ours, or why it is none."""
    said = document.get("metadata")
    if not isinstance(said, dict):
        return FirecrawlPage(_text(document.get("url")), error="the document has no metadata")
    url = _text(said.get("url")) or _text(said.get("sourceURL"))
    if url is None:
        return FirecrawlPage(None, error="metadata.url is missing")
    markdown, html = _body(document.get("markdown")), _body(document.get("html"))
    if not markdown.strip() and not html.strip():
        return FirecrawlPage(url, error="markdown and html have no text")
    try:
        rest = scrub({name: value for name, value in said.items() if name not in _OWN})
    except InvalidInput as error:
        return FirecrawlPage(url, error=error.message)
    lists = {name: said[name] for name in ("title", "description", "language") if isinstance(said.get(name), list)}
    about = About(
        url=url,
        title=_text(said.get("title")),
        description=_text(said.get("description")),
        language=_text(said.get("language")),
        country=_text(said.get("country")),
        metadata={**rest, **scrub(lists)},
        source="firecrawl",
    )
    status = said.get("statusCode")
    content = Content(
        "markdown" if markdown.strip() else "html",
        markdown if markdown.strip() else html,
        html=html if markdown.strip() and html else None,
        resolved_url=_text(said.get("sourceURL")) or url,
        status_code=status if isinstance(status, int) and 0 <= status <= 999 else None,
        crawl_session=crawl_id,
    )
    return FirecrawlPage(url, about, content)


def _body(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _text(value: Any) -> str | None:
    """A text that a database takes; of a list of some the first, as pages say a thing more than once."""
    if isinstance(value, list):
        value = next((one for one in value if isinstance(one, str) and one.strip()), None)
    text = scrub_text(value) if isinstance(value, str) else ""
    return text if text.strip() else None


def _fault(where: str, message: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": ["body", where], "msg": message, "field": where, "message": message}


def _invalid(faults: list[dict[str, Any]]) -> InvalidInput:
    return InvalidInput("Invalid webhook payload structure", code="webhook_payload", errors=faults)
