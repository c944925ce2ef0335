"""Translate rows of the older service into ours."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from app.core import clock
from app.core.errors import InvalidInput
from app.documents import urls
from app.documents.ingest.import_versions import ImportedVersion
from app.documents.text import clean_line, scrub, scrub_text
from app.sources.payloads.change_bodies import MAX_SUMMARY_CHARACTERS
from app.sources.payloads.firecrawl_events import page_of
from app.sources.pulse.database import Row

MAX_CRAWL_ID_CHARACTERS = 255
_STATES = {
    "pending": "in_progress",
    "scraping": "in_progress",
    "in_progress": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
_STATUS = "rescrape_status"
_WAITING = frozenset({"queued", "in_progress"})
_UNREAD = "the older service had not fetched the page again at the time of the import"
_OPERATIONS = {"scrape_batch": "batch_scrape"}


def read_content(row: Row) -> ImportedVersion:
    """Translate a page. Raises InvalidInput, whose message is the reason, if it cannot be imported."""
    _check_size(row)
    if clean_line(row["url"]) is None:
        raise InvalidInput("url is missing")
    metadata = _metadata(row)
    own = {"url": row["url"], "sourceURL": row.get("source_url") or row["url"]}
    document = {"markdown": row.get("markdown"), "html": row.get("html"), "metadata": {**metadata, **own}}
    page = page_of(document, row.get("crawl_session_id"))
    if page.about is None or page.content is None:
        raise InvalidInput(page.error or "the page is invalid")
    urls.canonical(urls.check_url(page.about.url or ""))
    created_at = _time(row.get("created_at"))
    links, screenshot = _json(row.get("links")), row.get("screenshot")
    extra = {"links": scrub(links), "screenshot": clean_line(screenshot, 2048)}
    return ImportedVersion(
        row["id"],
        replace(page.about, source=clean_line(row.get("content_source"), 64) or page.about.source),
        replace(page.content, fetched_at=_time(row.get("scraped_at")) or created_at),
        created_at,
        {name: value for name, value in extra.items() if value is not None},
    )


def read_crawl(row: Row) -> dict[str, Any]:
    """Return the columns of a crawl, without counts, which are computed on request. Raises like read_content()."""
    crawl_id = clean_line(row["job_id"], MAX_CRAWL_ID_CHARACTERS + 1)
    if crawl_id is None or len(crawl_id) > MAX_CRAWL_ID_CHARACTERS:
        raise InvalidInput(f"job_id must have 1 to {MAX_CRAWL_ID_CHARACTERS} characters")
    operation = clean_line(row.get("operation_type"), 32) or "crawl"
    times = {name: _time(row.get(name)) for name in ("initiated_at", "started_at", "completed_at", "created_at")}
    extra = _json(row.get("extra_metadata"))
    state = _state(row, times["completed_at"])
    ended = state != "in_progress"
    return {
        "crawl_id": crawl_id,
        "operation": _OPERATIONS.get(operation, operation),
        "state": state,
        "base_url": clean_line(row.get("base_url"), 2000),
        "success": state == "completed" if ended else None,
        "error_message": clean_line(row.get("error_message"), 2000),
        "extra": scrub(extra) if isinstance(extra, dict) else {},
        "initiated_at": times["initiated_at"],
        "started_at": times["started_at"] or times["initiated_at"] or times["created_at"] or clock.now(),
        "completed_at": times["completed_at"] if ended else None,
    }


def read_change(row: Row) -> dict[str, Any]:
    """Return the columns of a change event, without its document. Raises like read_content()."""
    _check_size(row)
    if clean_line(row["watch_url"]) is None:
        raise InvalidInput("watch_url is missing")
    url = urls.check_url(row["watch_url"])
    urls.canonical(url)
    metadata = scrub(_metadata(row))
    detected_at, indexed_at = _time(row.get("detected_at")), _time(row.get("indexed_at"))
    status = clean_line(row.get("rescrape_status"), 200) or "queued"
    state, error = _outcome(status, indexed_at)
    title = metadata.get("watch_title")
    origin = {"older_id": row["id"], _STATUS: status}
    job_id = clean_line(row.get("rescrape_job_id"), 255)
    same = [row["id"], row.get("watch_id"), row["watch_url"], detected_at and detected_at.isoformat()]
    return {
        "import_key": hashlib.sha256(json.dumps(same).encode()).hexdigest(),
        "watch_id": clean_line(row.get("watch_id"), 255),
        "url": url,
        "title": clean_line(title, 500) if isinstance(title, str) else None,
        "summary": scrub_text(row.get("diff_summary") or "")[:MAX_SUMMARY_CHARACTERS] or None,
        "diff_url": clean_line(row.get("snapshot_url"), 2000),
        "state": state,
        "error_message": error,
        "extra": metadata | origin | ({"rescrape_job_id": job_id} if job_id else {}),
        "detected_at": detected_at or indexed_at or clock.now(),
        "ended_at": clock.now() if waits(origin) else indexed_at,
    }


def waits(extra: dict[str, Any]) -> bool:
    """Return True if the older service had not yet fetched the page again for a change with this `extra`."""
    return str(extra.get(_STATUS)).lower() in _WAITING


def _outcome(status: str, indexed_at: datetime | None) -> tuple[str, str | None]:
    """Return state and reason of a change; one that still waited has failed, since no job continues it."""
    if status.lower() in _WAITING:
        return "failed", _UNREAD
    word, _, reason = status.partition(":")
    word = word.strip().lower()
    if word == "completed" or (word != "failed" and indexed_at is not None):
        return "indexed", None
    if word == "failed":
        return "failed", reason.strip() or "no reason was given"
    return "failed", f"the older service left it as '{status}'"


def _check_size(row: Row) -> None:
    if "size_bytes" in row:
        raise InvalidInput("the body is larger than MILLRACE_MAX_BODY_BYTES", code="body_too_large")


def _metadata(row: Row) -> dict[str, Any]:
    value = _json(row.get("metadata"))
    return value if isinstance(value, dict) else ({"metadata": value} if value is not None else {})


def _state(row: Row, completed_at: datetime | None) -> str:
    word = _STATES.get((clean_line(row.get("status"), 50) or "").lower())
    if word is not None:
        return word
    if completed_at is None:
        return "in_progress"
    return "failed" if row.get("success") is False else "completed"


def _json(text: str | None) -> Any:
    """Parse a JSON column. Raises InvalidInput if it cannot be parsed."""
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("metadata is not valid JSON") from error


def _time(value: datetime | None) -> datetime | None:
    """Return the time in UTC; one without a zone is UTC."""
    if value is None:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
