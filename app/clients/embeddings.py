"""Servers that make vectors: text-embeddings-inference, and whatever speaks OpenAI's `/embeddings`.

What waits is sent together, whichever jobs it comes from, up to what the server takes at once; nothing waits for a
batch to fill. A text that the server will not have fails alone.
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

# What a server that does not say takes at once; TEI says.
DEFAULT_BATCH_TEXTS = 32
MAX_BATCH_TEXTS = 256
# Below the 2,000,000 bytes of TEI's --payload-limit.
MAX_REQUEST_BYTES = 1_500_000
MAX_CONCURRENT_REQUESTS = 2
PAUSES_S = (0.2, 0.4, 0.8, 1.6, 3.2)
CONNECT_TIMEOUT_S = 2.0
DOCUMENTS_TIMEOUT_S, QUERY_TIMEOUT_S = 120.0, 5.0
MAX_PAUSE_S = 10.0
TOO_LONG = "a chunk is larger than the server of embeddings takes"
# Of these one text of several may be the reason.
_REFUSED = {400, 422}
_LATER = {408, 409, 425, 429, 500, 502, 503, 504}
# Inference failed: the same again may work, but not for long.
_TWICE = {424}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EmbeddingServer:
    """Where it is, and what it must answer with: vectors of `dimension` numbers by `model`."""

    dialect: Dialect
    url: str
    model: str
    dimension: int
    key: str = ""


class TextRefused(Rejected):
    """The server will not have what was sent; of several texts it may be one alone."""

    code = "embedder_rejected"


class BatchTooLarge(Exception):
    """The server takes less at once than it was given."""


class _PendingText(NamedTuple):
    text: str
    answer: asyncio.Future[Vectors]


class Embeddings:
    """One server as one event loop uses it. Vectors have length one; an answer that is none raises Rejected."""

    def __init__(
        self, server: EmbeddingServer, *, pauses_s: Sequence[float] = PAUSES_S, query_s: float = QUERY_TIMEOUT_S
    ) -> None:
        self._server, self._pauses_s, self._query_s = server, pauses_s, query_s
        headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
        self._client = http.async_client(DOCUMENTS_TIMEOUT_S, base_url=server.url.rstrip("/"), headers=headers)
        self._most = MAX_BATCH_TEXTS if server.dialect == "openai" else 0  # TEI is asked first
        self._waiting: deque[_PendingText] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def documents(self, texts: Sequence[str]) -> Vectors:
        """A row for each text. Raises Unavailable while the server is away or busy, Rejected for a final no."""
        if not texts:
            return np.zeros((0, self._server.dimension), np.float32)
        loop = asyncio.get_running_loop()
        mine = [_PendingText(text, loop.create_future()) for text in texts]
        self._waiting.extend(mine)
        if len(self._senders) < MAX_CONCURRENT_REQUESTS:
            sender = asyncio.create_task(self._send(), name="embeddings")
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return np.stack(await asyncio.gather(*(one.answer for one in mine)))

    async def query(self, text: str) -> Vectors:
        """One row, soon or not at all: nobody waits for a busy server with a search on the screen."""
        row: Vectors = (await self._asked([text], self._query_s, ()))[0]
        return row

    async def ping(self) -> None:
        """Raises Unavailable or Rejected where it does not answer as it should."""
        if self._server.dialect == "tei":
            await self._look()
        await self.query("ping")

    async def close(self) -> None:
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        await self._client.aclose()

    async def _send(self) -> None:
        """Send what waits until nothing does; where this ends early, nobody is left waiting."""
        try:
            while self._waiting:
                await self._send_next()
        finally:
            _fail(self._drained(), Unavailable("interrupted"))

    async def _send_next(self) -> None:
        batch: list[_PendingText] = []
        try:
            if not self._most:
                await self._look()
            batch = self._next()
            vectors = await self._asked([one.text for one in batch], DOCUMENTS_TIMEOUT_S, self._pauses_s)
            _settle(batch, vectors)
        except BatchTooLarge:
            if len(batch) == 1:
                _fail(batch, TextRefused(TOO_LONG))
            else:
                self._most = max(1, len(batch) // 2)
                self._waiting.extendleft(reversed(batch))
                batch = []
        except TextRefused as error:
            if len(batch) > 1:
                await self._each(batch)
            else:
                _fail(batch, error)
        except OutsideError as error:  # what is wrong for all is not asked of each
            _fail(batch or self._drained(), error)
        finally:
            _fail(batch, Unavailable("interrupted"))  # those that have an answer keep it

    def _next(self) -> list[_PendingText]:
        """What is sent next: not more than the server takes, by number and by bytes; nothing nobody waits for."""
        batch: list[_PendingText] = []
        size = 0
        while self._waiting and len(batch) < self._most:
            one = self._waiting[0]
            if one.answer.done():  # its job was cancelled
                self._waiting.popleft()
                continue
            size += len(json.dumps(one.text))
            if batch and size > MAX_REQUEST_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _drained(self) -> list[_PendingText]:
        left = list(self._waiting)
        self._waiting.clear()
        return left

    async def _each(self, batch: Sequence[_PendingText]) -> None:
        """One by one, so that the one that is refused fails alone."""
        for one in batch:
            try:
                _settle([one], await self._asked([one.text], DOCUMENTS_TIMEOUT_S, self._pauses_s))
            except (OutsideError, BatchTooLarge) as error:
                _fail([one], error if isinstance(error, OutsideError) else TextRefused(TOO_LONG))

    async def _asked(self, texts: list[str], patience_s: float, pauses_s: Sequence[float]) -> Vectors:
        """The vectors, after as many tries as there are pauses and one."""
        if not texts:
            return np.zeros((0, self._server.dimension), np.float32)
        path, body = ("/embed", {"inputs": texts, "normalize": True, "truncate": True})
        if self._server.dialect == "openai":
            path, body = ("/embeddings", {"model": self._server.model, "input": texts, "encoding_format": "float"})
        answer = await self._called("POST", path, patience_s, pauses_s, json=body)
        return self._read(answer, len(texts))

    async def _look(self) -> None:
        """Ask TEI what it serves and how much it takes at once."""
        said = _json(await self._called("GET", "/info", self._query_s, self._pauses_s[:3]))
        kind = said.get("model_type") if isinstance(said, dict) else None
        if not isinstance(kind, dict) or "embedding" not in kind:
            raise Rejected(f"{self._server.url} serves no embedding model", code="embedder_rejected")
        served = {str(said.get("model_id")), str(said.get("served_model_name"))}
        if self._server.model not in served:
            named = " or ".join(sorted(served))
            raise Rejected(f"MILLRACE_EMBEDDER_MODEL is not what is served there: {named}", code="embedder_model")
        most = said.get("max_client_batch_size")
        self._most = min(MAX_BATCH_TEXTS, most) if isinstance(most, int) and most > 0 else DEFAULT_BATCH_TEXTS

    async def _called(
        self, method: str, path: str, patience_s: float, pauses_s: Sequence[float], **options: Any
    ) -> http.Response:
        timeout = http.timeout(patience_s, connect=CONNECT_TIMEOUT_S)
        for turn, pause_s in enumerate((*pauses_s, None)):
            told: float | None = None
            try:
                answer = await self._client.request(method, path, timeout=timeout, **options)
            except http.HTTPError as error:
                reason = f"the server of embeddings cannot be reached: {str(error) or type(error).__name__}"
                if isinstance(error, http.TimeoutException) and not isinstance(error, http.ConnectError):
                    reason = f"the server of embeddings did not answer within {patience_s:g} s"
            else:
                if answer.is_success:
                    return answer
                reason, told = _refusal(answer, self._server.dialect, turn)
            if pause_s is None or (told or 0) > MAX_PAUSE_S:
                raise Unavailable(reason, code="embedder_unavailable", retry_after_s=told)
            await asyncio.sleep(told if told is not None else pause_s * random.uniform(0.7, 1.3))
        raise AssertionError("the last turn raises")

    def _read(self, answer: http.Response, count: int) -> Vectors:
        said = _json(answer)
        try:
            if self._server.dialect == "openai":
                said = [one["embedding"] for one in sorted(said["data"], key=lambda one: one["index"])]
            vectors = np.asarray(said, np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise Rejected("what the server of embeddings answers is none", code="embedder_rejected") from error
        wanted = (count, self._server.dimension)
        if vectors.shape != wanted:
            text = f"the server of embeddings gave {vectors.shape}, not {wanted} numbers"
            raise Rejected(f"{text}; MILLRACE_EMBEDDER_DIMENSION says which", code="embedder_dimension")
        if not np.isfinite(vectors).all():
            raise Rejected("the server of embeddings gave what is no number", code="embedder_rejected")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        normal: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return normal


def _refusal(answer: http.Response, dialect: Dialect, turn: int) -> tuple[str, float | None]:
    """Why it is worth another try, and after how long by its own word. Raises BatchTooLarge, Rejected."""
    status, said = answer.status_code, _said(answer)
    if status == 413 or (status == 422 and dialect == "tei" and "batch size" in said):
        raise BatchTooLarge
    reason = f"the server of embeddings answers {status}: {said}"
    if status in (401, 403):
        raise Rejected("the server of embeddings refuses MILLRACE_EMBEDDER_API_KEY", code="embedder_key")
    if _is_used_up(answer):
        raise Rejected(reason, code="embedder_quota")
    if status in _REFUSED:
        raise TextRefused(reason)
    if status not in _LATER and not (status in _TWICE and turn < 2):
        raise Rejected(reason, code="embedder_rejected")
    return reason, _told_s(answer)


def _is_used_up(answer: http.Response) -> bool:
    """OpenAI says with a 429 also that nothing is left to be spent, which no patience mends."""
    try:
        body = answer.json()
    except ValueError:
        return False
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and "insufficient_quota" in (error.get("code"), error.get("type"))


def _told_s(answer: http.Response) -> float | None:
    """How long to wait by the server's own word, in milliseconds or seconds."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        told = answer.headers.get(name, "")
        if told.isdecimal():
            return float(told) * unit
    return None


def _said(answer: http.Response) -> str:
    """The server's own words, as each of them puts it."""
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:200] or "nothing"
    for name in ("error", "message", "detail"):
        found = body.get(name) if isinstance(body, dict) else None
        if found:
            return str(found.get("message", found) if isinstance(found, dict) else found)[:300]
    return str(body)[:200]


def _json(answer: http.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise Rejected("what the server of embeddings answers is no JSON", code="embedder_rejected") from error


def _settle(batch: Sequence[_PendingText], vectors: Vectors) -> None:
    for one, row in zip(batch, vectors, strict=True):
        if not one.answer.done():
            one.answer.set_result(row)


def _fail(batch: Sequence[_PendingText], error: OutsideError) -> None:
    for one in batch:
        if not one.answer.done():
            one.answer.set_exception(error)
            one.answer.exception()  # its job may be gone, and nobody would ask
