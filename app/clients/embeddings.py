"""Client of embedding servers: text-embeddings-inference (TEI), and any with OpenAI's `/embeddings`.

Texts that wait are sent in one batch, across jobs, up to the server's limit; nothing waits for a batch to fill. A text
that the server refuses fails alone.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from app.core import http
from app.core.errors import OutsideError, Rejected, Unavailable
from app.core.logging import get_logger

Vectors = npt.NDArray[np.float32]
Dialect = Literal["tei", "openai"]

# Batch size for a TEI server that reports none.
DEFAULT_BATCH_TEXTS = 32
MAX_BATCH_TEXTS = 256
# Below the 2,000,000 bytes of TEI's --payload-limit.
MAX_REQUEST_BYTES = 1_500_000
MAX_CONCURRENT_REQUESTS = 2
PAUSES_S = (0.2, 0.4, 0.8, 1.6, 3.2)
# The largest answer has a number of each vector in JSON, and this much besides.
MAX_NUMBER_BYTES = 32
MAX_ANSWER_MARGIN_BYTES = 1024 * 1024
CONNECT_TIMEOUT_S = 2.0
DOCUMENTS_TIMEOUT_S, QUERY_TIMEOUT_S = 120.0, 5.0
MAX_PAUSE_S = 10.0
TOO_LONG = "a chunk is larger than the embedding server takes"
# With these statuses one text of the batch may be the cause.
_REFUSED = {400, 422}
_RETRYABLE = {408, 409, 425, 429, 500, 502, 503, 504}
# Inference failed: a retry may succeed, but only a few are useful.
_RETRY_TWICE = {424}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EmbeddingServer:
    """Address of a server and the vectors it must return: `dimension` numbers each, made by `model`."""

    dialect: Dialect
    url: str
    model: str
    dimension: int
    key: str = ""


class TextRefused(Rejected):
    """The server refused the request; a single text of the batch may be the cause."""

    code = "embedder_rejected"


class BatchTooLarge(Exception):
    """The server accepts fewer texts in one request than it was sent."""


class _PendingText(NamedTuple):
    text: str
    future: asyncio.Future[Vectors]


class Embeddings:
    """Connections to one server; used on one event loop.

    Vectors have length one. An invalid response raises Rejected.
    """

    def __init__(
        self, server: EmbeddingServer, *, pauses_s: Sequence[float] = PAUSES_S, query_s: float = QUERY_TIMEOUT_S
    ) -> None:
        self._server, self._pauses_s, self._query_s = server, pauses_s, query_s
        headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
        max_bytes = MAX_ANSWER_MARGIN_BYTES + MAX_BATCH_TEXTS * server.dimension * MAX_NUMBER_BYTES
        url = server.url.rstrip("/")
        self._client = http.async_client(DOCUMENTS_TIMEOUT_S, base_url=url, headers=headers, max_bytes=max_bytes)
        self._max_batch = MAX_BATCH_TEXTS if server.dialect == "openai" else 0  # TEI is asked first
        self._waiting: deque[_PendingText] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def documents(self, texts: Sequence[str]) -> Vectors:
        """Return one row for each text.

        Raises Unavailable while the server is down or busy, Rejected if it refuses.
        """
        if not texts:
            return np.zeros((0, self._server.dimension), np.float32)
        loop = asyncio.get_running_loop()
        batch = [_PendingText(text, loop.create_future()) for text in texts]
        self._waiting.extend(batch)
        if len(self._senders) < MAX_CONCURRENT_REQUESTS:
            sender = asyncio.create_task(self._send(), name="embeddings")
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return np.stack(await asyncio.gather(*(pending.future for pending in batch)))

    async def query(self, text: str) -> Vectors:
        """Return one row; the timeout is short and nothing is retried, since a user waits for the search."""
        row: Vectors = (await self._embed([text], self._query_s, ()))[0]
        return row

    async def ping(self) -> None:
        """Check the server. Raises Unavailable or Rejected if it does not answer as required."""
        if self._server.dialect == "tei":
            await self._read_info()
        await self.query("ping")

    async def close(self) -> None:
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        await self._client.aclose()

    async def _send(self) -> None:
        """Send batches until no text waits; if this ends early, the waiting texts fail."""
        try:
            while self._waiting:
                await self._send_next()
        finally:
            _fail(self._drain(), Unavailable("interrupted"))

    async def _send_next(self) -> None:
        batch: list[_PendingText] = []
        try:
            if not self._max_batch:
                await self._read_info()
            batch = self._next()
            vectors = await self._embed([pending.text for pending in batch], DOCUMENTS_TIMEOUT_S, self._pauses_s)
            _settle(batch, vectors)
        except BatchTooLarge:
            if len(batch) == 1:
                _fail(batch, TextRefused(TOO_LONG))
            else:
                self._max_batch = max(1, len(batch) // 2)
                self._waiting.extendleft(reversed(batch))
                batch = []
        except TextRefused as error:
            if len(batch) > 1:
                await self._send_singly(batch)
            else:
                _fail(batch, error)
        except OutsideError as error:  # an error for all texts is not retried for each
            _fail(batch or self._drain(), error)
        finally:
            _fail(batch, Unavailable("interrupted"))  # texts that have a result keep it

    def _next(self) -> list[_PendingText]:
        """Return the next batch, within the server's limits of number and bytes; drop texts of cancelled jobs."""
        batch: list[_PendingText] = []
        size = 0
        while self._waiting and len(batch) < self._max_batch:
            pending = self._waiting[0]
            if pending.future.done():  # its job was cancelled
                self._waiting.popleft()
                continue
            size += len(json.dumps(pending.text))
            if batch and size > MAX_REQUEST_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _drain(self) -> list[_PendingText]:
        left = list(self._waiting)
        self._waiting.clear()
        return left

    async def _send_singly(self, batch: Sequence[_PendingText]) -> None:
        """Send each text alone, so that only the refused one fails."""
        for pending in batch:
            try:
                _settle([pending], await self._embed([pending.text], DOCUMENTS_TIMEOUT_S, self._pauses_s))
            except (OutsideError, BatchTooLarge) as error:
                _fail([pending], error if isinstance(error, OutsideError) else TextRefused(TOO_LONG))

    async def _embed(self, texts: list[str], timeout_s: float, pauses_s: Sequence[float]) -> Vectors:
        """Return the vectors; retried once for each pause."""
        if not texts:
            return np.zeros((0, self._server.dimension), np.float32)
        path, body = ("/embed", {"inputs": texts, "normalize": True, "truncate": True})
        if self._server.dialect == "openai":
            path, body = ("/embeddings", {"model": self._server.model, "input": texts, "encoding_format": "float"})
        response = await self._request("POST", path, timeout_s, pauses_s, json=body)
        return self._read(response, len(texts))

    async def _read_info(self) -> None:
        """Ask TEI for its model and its batch limit."""
        info = _json(await self._request("GET", "/info", self._query_s, self._pauses_s[:3]))
        kind = info.get("model_type") if isinstance(info, dict) else None
        if not isinstance(kind, dict) or "embedding" not in kind:
            raise Rejected(f"{self._server.url} serves no embedding model", code="embedder_rejected")
        served = {str(info.get("model_id")), str(info.get("served_model_name"))}
        if self._server.model not in served:
            names = " or ".join(sorted(served))
            raise Rejected(
                f"MILLRACE_EMBEDDER_MODEL is {self._server.model}, but the server serves {names}", code="embedder_model"
            )
        limit = info.get("max_client_batch_size")
        self._max_batch = min(MAX_BATCH_TEXTS, limit) if isinstance(limit, int) and limit > 0 else DEFAULT_BATCH_TEXTS

    async def _request(
        self, method: str, path: str, timeout_s: float, pauses_s: Sequence[float], **options: Any
    ) -> http.Response:
        timeout = http.timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        for turn, pause_s in enumerate((*pauses_s, None)):
            retry_after_s: float | None = None
            try:
                response = await self._client.request(method, path, timeout=timeout, **options)
            except http.HTTPError as error:
                reason = f"the embedding server cannot be reached: {str(error) or type(error).__name__}"
                if isinstance(error, http.TimeoutException) and not isinstance(error, http.ConnectError):
                    reason = f"the embedding server did not answer within {timeout_s:g} s"
            else:
                if response.is_success:
                    return response
                reason, retry_after_s = _refusal(response, self._server.dialect, turn)
            if pause_s is None or (retry_after_s or 0) > MAX_PAUSE_S:
                raise Unavailable(reason, code="embedder_unavailable", retry_after_s=retry_after_s)
            await asyncio.sleep(retry_after_s if retry_after_s is not None else pause_s * random.uniform(0.7, 1.3))
        raise AssertionError("the last turn raises")

    def _read(self, response: http.Response, count: int) -> Vectors:
        body = _json(response)
        try:
            if self._server.dialect == "openai":
                body = [row["embedding"] for row in sorted(body["data"], key=lambda row: row["index"])]
            vectors = np.asarray(body, np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise Rejected("the embedding server's response holds no vectors", code="embedder_rejected") from error
        expected = (count, self._server.dimension)
        if vectors.shape != expected:
            text = f"the embedding server gave {vectors.shape} numbers, not {expected}"
            raise Rejected(f"{text}; check MILLRACE_EMBEDDER_DIMENSION", code="embedder_dimension")
        if not np.isfinite(vectors).all():
            raise Rejected("the embedding server gave values that are not finite numbers", code="embedder_rejected")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        normal: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return normal


def _refusal(response: http.Response, dialect: Dialect, turn: int) -> tuple[str, float | None]:
    """Return the reason for a retry and the server's delay for it. Raises BatchTooLarge, Rejected."""
    status, message = response.status_code, _message_of(response)
    if status == 413 or (status == 422 and dialect == "tei" and "batch size" in message):
        raise BatchTooLarge
    reason = f"the embedding server answers {status}: {message}"
    if status in (401, 403):
        raise Rejected("the embedding server refuses MILLRACE_EMBEDDER_API_KEY", code="embedder_key")
    if _is_used_up(response):
        raise Rejected(reason, code="embedder_quota")
    if status in _REFUSED:
        raise TextRefused(reason)
    if status not in _RETRYABLE and not (status in _RETRY_TWICE and turn < 2):
        raise Rejected(reason, code="embedder_rejected")
    return reason, _retry_after_s(response)


def _is_used_up(response: http.Response) -> bool:
    """Return True if the account has no credit left: OpenAI answers 429 for that too, and retries do not help."""
    try:
        body = response.json()
    except ValueError:
        return False
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and "insufficient_quota" in (error.get("code"), error.get("type"))


def _retry_after_s(response: http.Response) -> float | None:
    """Return the delay in seconds that the response's headers ask for, given in milliseconds or seconds."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = response.headers.get(name, "")
        if value.isdecimal():
            return float(value) * unit
    return None


def _message_of(response: http.Response) -> str:
    """Return the server's error message; its field differs between servers."""
    try:
        body = response.json()
    except ValueError:
        return response.content[:200].decode(errors="replace") or "empty body"
    for name in ("error", "message", "detail"):
        error = body.get(name) if isinstance(body, dict) else None
        if error:
            return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
    return str(body)[:200]


def _json(response: http.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise Rejected("the embedding server's response is not JSON", code="embedder_rejected") from error


def _settle(batch: Sequence[_PendingText], vectors: Vectors) -> None:
    for pending, row in zip(batch, vectors, strict=True):
        if not pending.future.done():
            pending.future.set_result(row)


def _fail(batch: Sequence[_PendingText], error: OutsideError) -> None:
    for pending in batch:
        if not pending.future.done():
            pending.future.set_exception(error)
            pending.future.exception()  # marks it as retrieved: the job that waited may be gone
