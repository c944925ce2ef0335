"""What is passed on to Firecrawl and back: which headers travel, and what an answer tells us of a crawl."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.core.db import in_transaction
from app.core.errors import AppError
from app.core.logging import get_logger
from app.documents.text import scrub_text
from app.sources.crawls import crawls

log = get_logger(__name__)

MAX_ID_CHARACTERS = 255
# Between two neighbours alone (RFC 9110, section 7.6.1).
_HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
# The caller's credentials are for us, and what we say of connection and body is our own.
_NOT_THERE = {
    "accept-encoding", "authorization", "content-length", "cookie", "expect", "forwarded", "host", "traceparent",
    "x-real-ip", "x-request-id",
}  # fmt: skip
# Said by us of our own answer.
_NOT_BACK = {
    "content-encoding", "content-length", "date", "ratelimit", "ratelimit-policy", "server", "set-cookie",
    "x-process-time", "x-request-id",
}  # fmt: skip

Headers = list[tuple[str, str]]


def request_headers(given: Iterable[tuple[str, str]]) -> Headers:
    """The request's headers without what is not Firecrawl's; names in lower case, in and out."""
    return _without(given, _NOT_THERE, "x-forwarded-")


def response_headers(given: Iterable[tuple[str, str]]) -> Headers:
    """The answer's headers without length and encoding, which are those of the body that is sent."""
    return _without(given, _NOT_BACK, "access-control-")


def _without(given: Iterable[tuple[str, str]], names: set[str], prefix: str) -> Headers:
    pairs = list(given)
    named = {word.strip().lower() for name, value in pairs if name == "connection" for word in value.split(",")}
    dropped = _HOP_BY_HOP | names | named
    return [(name, value) for name, value in pairs if name not in dropped and not name.startswith(prefix)]


@dataclass(frozen=True, slots=True)
class RunStart:
    """A request that begins a run of Firecrawl's, and whose it is."""

    tenant: str
    operation: str
    base_url: str | None

    @classmethod
    def of(cls, tenant: str, operation: str, body: bytes) -> RunStart:
        asked = _object(body) or {}
        urls = asked.get("urls")
        first = urls[0] if isinstance(urls, list) and urls else None
        found = next((one for one in (asked.get("url"), first) if isinstance(one, str)), None)
        return cls(tenant, operation, found)


async def record_run(start: RunStart, answer: bytes) -> bytes:
    """The answer; where it names a run, that is on record, and `_webhook_meta` at its end says so.

    The run has begun whatever becomes of the record, so nothing that goes wrong here is raised.
    """
    said = await asyncio.to_thread(_object, answer)  # pages may be large
    run = (said.get("id") or said.get("jobId")) if said else None
    if not isinstance(run, str) or not 0 < len(run) <= MAX_ID_CHARACTERS or scrub_text(run) != run:
        return answer
    created = True
    try:
        await in_transaction(
            crawls.begin, start.tenant, run, operation=start.operation, base_url=start.base_url, is_remote=True
        )
    except (AppError, SQLAlchemyError) as error:
        created = False
        log.error("crawl_not_recorded", crawl_id=run, reason=str(error))
    meta = {"session_created": created, "auto_index": True, "operation_type": start.operation}
    # All that Firecrawl wrote stays as it wrote it.
    return answer.rstrip()[:-1] + b',"_webhook_meta":' + json.dumps(meta).encode() + b"}"


async def record_cancel(tenant: str, run: str, answer: bytes) -> None:
    """Note that the run was cancelled where Firecrawl's answer says it was."""
    said = _object(answer) or {}
    if said.get("status") != "cancelled" and said.get("success") is not True:
        return
    try:
        await in_transaction(crawls.cancel, tenant, run)
    except (AppError, SQLAlchemyError) as error:
        log.error("cancel_not_recorded", crawl_id=run, reason=str(error))


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None
