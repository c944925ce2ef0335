"""Qdrant: one of its nodes that answers, and its errors in our words.

A write says `wait`, so that what was answered is applied. The client itself repeats nothing.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import Any
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from app.core.errors import NotFound, OutsideError, Rejected, Unavailable
from app.core.logging import get_logger
from app.core.settings import Settings, get_settings

# Scores by a tenant's own statistics (params.idf.corpus); an older server ignores them without a word.
MIN_VERSION = (1, 19)
WRITE_TIMEOUT_S = 30
SCHEMA_TIMEOUT_S = 60
_LATER = {408, 425, 429, 500, 502, 503, 504, 507}

log = get_logger(__name__)


class Qdrant:
    """The nodes of the settings; whichever answered last is asked first."""

    def __init__(self, settings: Settings) -> None:
        self.urls = [url.strip().rstrip("/") for url in settings.qdrant_url.split(",") if url.strip()]
        key = settings.qdrant_api_key.get_secret_value() or None
        with warnings.catch_warnings():
            # A key over plain http, within a network of containers, is for whoever writes the URL to judge.
            warnings.simplefilter("ignore", UserWarning)
            self._nodes = [_node(url, key) for url in self.urls]
        self._first = 0
        self._checked: set[int] = set()

    async def call(self, name: str, **arguments: Any) -> Any:
        """What the method of qdrant-client of this name answers; its `timeout` is whole seconds.

        Raises Unavailable where no node answers or it asks for patience, NotFound for a collection that is not there,
        Rejected for a final no, and for a server that is too old.
        """
        failed: Unavailable | None = None
        for turn in range(len(self._nodes)):
            at = (self._first + turn) % len(self._nodes)
            try:
                await self._check(at)
                answer = await getattr(self._nodes[at], name)(**arguments)
            except ResponseHandlingException as error:
                failed = failed or _unusable(error.source, self.urls[at])
            except ValueError as error:  # no JSON at all
                failed = failed or _unusable(error, self.urls[at])
            except UnexpectedResponse as error:
                said = _translated(error)
                if not isinstance(said, Unavailable):
                    raise said from error
                failed = said
            except ResourceExhaustedResponse as error:
                raise Unavailable(
                    "Qdrant asks for patience", code="qdrant_busy", retry_after_s=error.retry_after_s
                ) from error
            else:
                self._first = at
                return answer
        assert failed is not None
        raise failed

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
    # check_compatibility would ask the version with a client of its own, and blocking.
    return AsyncQdrantClient(
        url=url, port=None, api_key=key, timeout=WRITE_TIMEOUT_S, check_compatibility=False, trust_env=False
    )


# A connection belongs to the loop it was made in.
_opened: WeakKeyDictionary[asyncio.AbstractEventLoop, Qdrant] = WeakKeyDictionary()


def qdrant() -> Qdrant:
    """The running loop's client."""
    loop = asyncio.get_running_loop()
    if loop not in _opened:
        _opened[loop] = Qdrant(get_settings())
    return _opened[loop]


async def close_qdrant() -> None:
    """Close the running loop's connections, if it has any."""
    client = _opened.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.close()


def _unusable(source: Exception, url: str) -> Unavailable:
    """Nobody there, too slow, or an answer that is none of Qdrant's."""
    if isinstance(source, ValueError):
        log.warning("qdrant_answer_unreadable", url=url, error=str(source)[:300])
        return Unavailable(f"what answers at {url} is no Qdrant, or a broken one", code="qdrant_unreadable")
    reason = str(source) or type(source).__name__
    return Unavailable(f"Qdrant at {url} cannot be reached: {reason}", code="qdrant_unavailable", retry_after_s=2)


def _translated(error: UnexpectedResponse) -> OutsideError | NotFound:
    status, said = error.status_code or 0, _said(error)
    if status == 404:
        return NotFound(f"Qdrant: {said}", code="qdrant_missing")
    if status in (401, 403):
        return Rejected(f"Qdrant refuses MILLRACE_QDRANT_API_KEY: {said}", code="qdrant_key")
    if status in _LATER:
        return Unavailable(f"Qdrant answers {status}: {said}", code="qdrant_unavailable", retry_after_s=2)
    return Rejected(f"Qdrant answers {status}: {said}", code="qdrant_rejected")


def _said(error: UnexpectedResponse) -> str:
    """The server's own words; a proxy's page is cut short."""
    try:
        return str(error.structured()["status"]["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return error.content[:200].decode(errors="replace") or error.reason_phrase


def _numbers(version: str) -> tuple[int, ...]:
    """(1, 19, 0) of '1.19.0-dev'; what is no version is as old as can be."""
    parts = version.split("-", 1)[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (0,)
