"""Forward requests to Firecrawl: headers of both directions, and the record of runs that a request starts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.clients.firecrawl_errors import unreadable
from app.core.db import in_transaction, read
from app.core.errors import AppError, DatabaseUnavailable, NotFound
from app.core.logging import get_logger
from app.documents.text import scrub_text
from app.sources.crawls import crawls

log = get_logger(__name__)

MAX_ID_CHARACTERS = 255
# Valid for one connection only (RFC 9110, section 7.6.1).
_HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
# Not sent to Firecrawl: the caller's credentials are for us, and our client sets the rest.
_NOT_FORWARDED = {
    "accept-encoding", "authorization", "content-length", "cookie", "expect", "forwarded", "host", "traceparent",
    "x-real-ip", "x-request-id",
}  # fmt: skip
# Not returned: we set these on our own response.
_NOT_RETURNED = {
    "content-encoding", "content-length", "date", "ratelimit", "ratelimit-policy", "server", "set-cookie",
    "x-process-time", "x-request-id",
}  # fmt: skip

Headers = list[tuple[str, str]]


def request_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the request headers to forward; names are in lower case."""
    return _without(headers, _NOT_FORWARDED, "x-forwarded-")


def response_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the response headers to pass back, without those that we set for our own body."""
    return _without(headers, _NOT_RETURNED, "access-control-")


def _without(headers: Iterable[tuple[str, str]], names: set[str], prefix: str) -> Headers:
    pairs = list(headers)
    connection_names = {
        word.strip().lower() for name, value in pairs if name == "connection" for word in value.split(",")
    }
    dropped = _HOP_BY_HOP | names | connection_names
    return [(name, value) for name, value in pairs if name not in dropped and not name.startswith(prefix)]


@dataclass(frozen=True, slots=True)
class RunStart:
    """A request that starts a run of Firecrawl, and its tenant."""

    tenant: str
    operation: str
    base_url: str | None

    @classmethod
    def parse(cls, tenant: str, operation: str, body: bytes) -> RunStart:
        options = _object(body) or {}
        urls = options.get("urls")
        first = urls[0] if isinstance(urls, list) and urls else None
        base_url = next((url for url in (options.get("url"), first) if isinstance(url, str)), None)
        return cls(tenant, operation, base_url)


async def record_run(start: RunStart, response: bytes) -> bytes:
    """Record the run that the response names; return the response with `_webhook_meta` added at its end.

    The run has started in any case, so failures of the record are logged and not raised.
    """
    body = await asyncio.to_thread(_object, response)  # pages may be large
    run_id = (body.get("id") or body.get("jobId")) if body else None
    if not isinstance(run_id, str) or not 0 < len(run_id) <= MAX_ID_CHARACTERS or scrub_text(run_id) != run_id:
        return response
    created = await record(start, run_id)
    meta = {"session_created": created, "auto_index": True, "operation_type": start.operation}
    # Firecrawl's own bytes stay unchanged.
    return response.rstrip()[:-1] + b',"_webhook_meta":' + json.dumps(meta).encode() + b"}"


async def record(start: RunStart, run_id: str) -> bool:
    """Record the run for its tenant; return False if that failed, since the run goes on in any case."""
    try:
        await in_transaction(
            crawls.begin, start.tenant, run_id, operation=start.operation, base_url=start.base_url, is_remote=True
        )
    except (AppError, SQLAlchemyError) as error:
        log.error("crawl_not_recorded", crawl_id=run_id, reason=str(error))
        return False
    return True


async def require_run(tenant: str, run_id: str, *, is_operator: bool) -> None:
    """Raises NotFound unless the run is the tenant's. An operator also reaches runs that no tenant started here."""
    try:
        is_reachable = await read(crawls.may_reach, tenant, run_id, unrecorded=is_operator)
    except DatabaseUnavailable:
        if not is_operator:
            raise
        is_reachable = True
    if not is_reachable:
        raise NotFound(f"Firecrawl has no job {run_id[:60]!r}", code="firecrawl_job_not_found")


async def own_runs(tenant: str, response: bytes) -> bytes:
    """Return a list of running crawls with those of the tenant only. Raises InvalidResponse for another shape."""
    body = await asyncio.to_thread(_object, response)
    if body is None or not isinstance(body.get("crawls"), list):
        raise unreadable("it has no list of crawls")
    body["crawls"] = await read(_reachable, tenant, body["crawls"])
    return json.dumps(body).encode()


def _reachable(session: Session, tenant: str, runs: list[Any]) -> list[Any]:
    return [
        run
        for run in runs
        if isinstance(run, dict) and crawls.may_reach(session, tenant, str(run.get("id")), unrecorded=False)
    ]


async def record_cancel(tenant: str, run_id: str, response: bytes) -> None:
    """Record that the run was cancelled, if Firecrawl's response confirms it."""
    body = _object(response) or {}
    if body.get("status") != "cancelled" and body.get("success") is not True:
        return
    try:
        await in_transaction(crawls.cancel, tenant, run_id)
    except (AppError, SQLAlchemyError) as error:
        log.error("cancel_not_recorded", crawl_id=run_id, reason=str(error))


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
