"""Send a job's end to its webhook: signed, to a checked address, retried for three days."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import SplitResult, urlsplit

from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import read
from app.core.errors import InvalidInput, Rejected, Unavailable, UnknownHost
from app.core.http import HTTPError, InvalidURL, Response, async_client, pinned
from app.core.network.guard import resolve
from app.core.settings import get_settings
from app.deliveries.signing import secrets_of, signature
from app.jobs.ledger import views
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.end_webhooks import DeliverWebhook
from app.jobs.models import JobRow

MAX_URL_CHARACTERS = 2000
MAX_WAIT_S = 86_400
# Larger results are left out of the event: receivers refuse large bodies.
MAX_RESULT_BYTES = 8 * 1024
MAX_ANSWER_BYTES = 4096
_PORTS = {"http": 80, "https": 443}
_GONE = 410


def check_url(url: str) -> SplitResult:
    """Return the parts of a valid webhook URL. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidInput(f"webhook_url: {error}", code="webhook_url") from error
    schemes = ("https", "http") if get_settings().webhook_private else ("https",)
    if parts.scheme not in schemes or not parts.hostname or len(url) > MAX_URL_CHARACTERS or not url.isprintable():
        allowed = " or ".join(f"{scheme}://" for scheme in schemes)
        raise InvalidInput(
            f"webhook_url: must be an {allowed} address of up to {MAX_URL_CHARACTERS} characters", code="webhook_url"
        )
    return parts


async def deliver(job: DeliverWebhook, claim: Claim) -> dict[str, Any]:
    """Send the event once. Raises Rejected for a permanent refusal, Unavailable for failures that may be temporary."""
    body = await read(event, claim.tenant, job)
    message_id = f"msg_{claim.id.replace('-', '')}"  # the same for each attempt: the receiver's idempotency key
    began = clock.monotonic()
    response, answer = await _send(job.url, claim.tenant, message_id, body)
    _judge(job.url, response, answer)
    return {"status": response.status_code, "message_id": message_id, "seconds": round(clock.monotonic() - began, 3)}


def event(session: Session, tenant: str, job: DeliverWebhook) -> bytes:
    """Return the event's body: the exact bytes that are signed and sent."""
    row = session.get(JobRow, job.job_id)
    data: dict[str, Any] = {"id": job.job_id}
    if row is not None and row.tenant == tenant:
        data = views.job_view(row)
        result = row.result if job.state == "succeeded" else None
        data["result"] = result if len(json.dumps(result)) <= MAX_RESULT_BYTES else None
    # The state at the job's end, even if the job was retried since.
    data |= {"state": job.state, "finished_at": job.at, "link": f"/api/jobs/{job.job_id}"}
    return json.dumps({"type": f"job.{job.state}", "timestamp": job.at, "data": data}, ensure_ascii=False).encode()


async def _send(url: str, tenant: str, message_id: str, body: bytes) -> tuple[Response, bytes]:
    settings = get_settings()
    parts = check_url(url)
    timestamp = int(clock.now().timestamp())
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secrets_of(tenant), message_id, timestamp, body),
    }
    try:
        async with asyncio.timeout(settings.webhook_timeout_s), async_client(settings.webhook_timeout_s) as client:
            address = await _address(parts)
            there, host, extensions = pinned(url, address)
            request = client.build_request("POST", there, headers=headers | host, content=body, extensions=extensions)
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                return response, await _read_beginning(response)
            finally:
                await response.aclose()
    except TimeoutError as error:
        raise Unavailable(f"{url} took longer than {settings.webhook_timeout_s:g} s") from error
    except (HTTPError, InvalidURL) as error:
        raise Unavailable(f"{url} cannot be reached: {str(error) or type(error).__name__}") from error


async def _address(parts: SplitResult) -> str:
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    try:
        return await resolve(host, port, private=get_settings().webhook_private)
    except UnknownHost as error:  # a name may come back; a private address stays private
        raise Unavailable(error.message, code=error.code) from error


async def _read_beginning(response: Response) -> bytes:
    """Return the first MAX_ANSWER_BYTES of the receiver's answer."""
    answer = b""
    async for part in response.aiter_bytes():
        answer += part
        if len(answer) >= MAX_ANSWER_BYTES:
            break
    return answer[:MAX_ANSWER_BYTES]


def _judge(url: str, response: Response, answer: bytes) -> None:
    status = response.status_code
    if 200 <= status < 300:
        return
    words = answer.decode("utf-8", "replace").strip()[:300]
    message = f"{url} answered {status}" + (f": {words}" if words else "")
    if status == _GONE:
        raise Rejected(message, code="webhook_gone")
    if response.is_redirect:
        raise Unavailable(f"{message}; redirects are not followed")
    after = response.headers.get("retry-after", "")
    wait_s = min(float(after), MAX_WAIT_S) if after.isdecimal() and status in (429, 502, 503, 504) else None
    raise Unavailable(message, retry_after_s=wait_s)
