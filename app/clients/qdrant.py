"""Client of Qdrant: uses a node that answers, and maps its errors to ours.

Writes set `wait`, so that an acknowledged write is applied. The client retries nothing.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import Any
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from app.clients.qdrant_errors import QdrantUnavailable
from app.core.errors import NotFound, OutsideError, Rejected, Unavailable
from app.core.logging import get_logger
from app.core.settings import Settings, get_settings

# Scores use per-tenant statistics (params.idf.corpus), which older servers ignore silently.
MIN_VERSION = (1, 19)
WRITE_TIMEOUT_S = 30
SCHEMA_TIMEOUT_S = 60
_RETRYABLE = {408, 425, 429, 500, 502, 503, 504, 507}

log = get_logger(__name__)


class Qdrant:
    """The nodes in the settings; the node that answered last is asked first."""

    def __init__(self, settings: Settings) -> None:
        self.urls = [url.strip().rstrip("/") for url in settings.qdrant_url.split(",") if url.strip()]
        key = settings.qdrant_api_key.get_secret_value() or None
        with warnings.catch_warnings():
            # A key over plain http is acceptable within a network of containers.
            warnings.simplefilter("ignore", UserWarning)
            self._nodes = [_node(url, key) for url in self.urls]
        self._first = 0
        self._checked: set[int] = set()

    async def call(self, name: str, **arguments: Any) -> Any:
        """Call the method of qdrant-client with this name; its `timeout` is in whole seconds.

        Raises Unavailable if no node answers or Qdrant is busy, NotFound for a missing collection, and Rejected if
        Qdrant refuses or is too old.
        """
        failure: Unavailable | None = None
        for turn in range(len(self._nodes)):
            at = (self._first + turn) % len(self._nodes)
            try:
                await self._check(at)
                answer = await getattr(self._nodes[at], name)(**arguments)
            except ResponseHandlingException as error:
                failure = failure or _unusable(error.source, self.urls[at])
            except ValueError as error:  # the body is not JSON
                failure = failure or _unusable(error, self.urls[at])
            except UnexpectedResponse as error:
                translated = _translate(error)
                if not isinstance(translated, Unavailable):
                    raise translated from error
                failure = translated
            except ResourceExhaustedResponse as error:
                raise Unavailable(
                    "Qdrant limits its requests", code="qdrant_busy", retry_after_s=error.retry_after_s
                ) from error
            else:
                self._first = at
                return answer
        assert failure is not None
        raise failure

    async def close(self) -> None:
        for node in self._nodes:
            await node.close()

    async def _check(self, at: int) -> None:
        if at in self._checked:
            return
        version = (await self._nodes[at].info()).version
        if _numbers(version) < MIN_VERSION:
            oldest = ".".join(map(str, MIN_VERSION))
            raise Rejected(f"Qdrant at {self.urls[at]} is {version}; {oldest} or newer is needed", code="qdrant_old")
        self._checked.add(at)


def _node(url: str, key: str | None) -> AsyncQdrantClient:
    # check_compatibility would ask for the version with a second, blocking client.
    return AsyncQdrantClient(
        url=url, port=None, api_key=key, timeout=WRITE_TIMEOUT_S, check_compatibility=False, trust_env=False
    )


# A connection belongs to the event loop that opened it.
_opened: WeakKeyDictionary[asyncio.AbstractEventLoop, Qdrant] = WeakKeyDictionary()


def qdrant() -> Qdrant:
    """Return the running loop's client."""
    loop = asyncio.get_running_loop()
    if loop not in _opened:
        _opened[loop] = Qdrant(get_settings())
    return _opened[loop]


async def close_qdrant() -> None:
    """Close the running loop's connections, if any."""
    client = _opened.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.close()


def _unusable(source: Exception, url: str) -> Unavailable:
    """Return the error for a node that is unreachable, too slow, or does not answer as Qdrant."""
    if isinstance(source, ValueError):
        log.warning("qdrant_answer_unreadable", url=url, error=str(source)[:300])
        return Unavailable(f"the server at {url} does not answer as Qdrant", code="qdrant_unreadable")
    reason = str(source) or type(source).__name__
    return QdrantUnavailable(f"Qdrant at {url} cannot be reached: {reason}", retry_after_s=2)


def _translate(error: UnexpectedResponse) -> OutsideError | NotFound:
    status, message = error.status_code or 0, _message_of(error)
    if status == 404:
        return NotFound(f"Qdrant: {message}", code="qdrant_missing")
    if status in (401, 403):
        return Rejected(f"Qdrant refuses MILLRACE_QDRANT_API_KEY: {message}", code="qdrant_key")
    if status in _RETRYABLE:
        return QdrantUnavailable(f"Qdrant answers {status}: {message}", retry_after_s=2)
    return Rejected(f"Qdrant answers {status}: {message}", code="qdrant_rejected")


def _message_of(error: UnexpectedResponse) -> str:
    """Return Qdrant's message, or the beginning of another body, such as a proxy's page."""
    try:
        return str(error.structured()["status"]["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return error.content[:200].decode(errors="replace") or error.reason_phrase


def _numbers(version: str) -> tuple[int, ...]:
    """Return (1, 19, 0) for '1.19.0-dev', and (0,) for an invalid version."""
    parts = version.split("-", 1)[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (0,)
