"""A sender of webhooks as the cloud ones are: at its own pace, whatever the answers; again where none came.

HTTP is spoken by hand over kept connections: a client that costs as much as the server would be what is measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PATH = "/api/webhook/firecrawl"
SECRET = "a-secret-of-tests-0123456789-abcdef"
# When a cloud sender gives up on an answer, and how soon this one asks again.
PATIENCE_S, PAUSE_S = 10.0, 0.25
TEXT = """
the water turns a wheel and grain becomes flour while millers of old towns along slow rivers keep their stones sharp for
bread that bakers sell in markets before dawn when carts arrive from farms across wet meadows
"""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Sent:
    """The outcome of one event: the last answer and the number of tries.

    `took_ms` is from the moment at which it was due, so a server that stalls is charged for all that queued up behind
    it; `try_ms` is that of the try which was answered.
    """

    due_at: float
    status: int = 0
    body: bytes = b""
    took_ms: float = 0.0
    try_ms: float = 0.0
    tries: int = 0
    # Statuses of answers that were no 2xx.
    refusals: list[int] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


@dataclass
class Sender:
    """Sends events to a port of this machine, `rate` a second, in a background thread."""

    port: int
    events: Sequence[bytes]
    rate: float
    path: str = PATH
    # How long an answer is waited for.
    patience_s: float = PATIENCE_S
    # How often at most an event is sent that got no 2xx.
    most_tries: int = 200
    sent: list[Sent] = field(default_factory=list)
    _free: list[Connection] = field(default_factory=list)
    _thread: threading.Thread | None = None

    def start(self) -> Sender:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="sender", daemon=True)
        self._thread.start()
        return self

    def join(self, timeout_s: float) -> list[Sent]:
        """Return the outcome of each event in order, once all are accepted or given up."""
        assert self._thread is not None
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"the sender still sends: {self.accepted} of {len(self.events)} accepted"
        return self.sent

    @property
    def accepted(self) -> int:
        return sum(delivery.accepted for delivery in list(self.sent))

    async def _all(self) -> None:
        began = time.monotonic() + 0.05
        tasks = []
        for number, event in enumerate(self.events):
            due_at = began + number / self.rate
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            delivery = Sent(due_at)
            self.sent.append(delivery)
            tasks.append(asyncio.create_task(self._deliver(delivery, event)))
        await asyncio.gather(*tasks)
        for _, writer in self._free:
            writer.close()

    async def _deliver(self, delivery: Sent, event: bytes) -> None:
        while True:
            delivery.tries += 1
            began = time.monotonic()
            try:
                async with asyncio.timeout(self.patience_s):
                    delivery.status, delivery.body = await self._ask(event)
            except (OSError, EOFError, TimeoutError):
                delivery.status = 0
            now = time.monotonic()
            delivery.took_ms, delivery.try_ms = (now - delivery.due_at) * 1000, (now - began) * 1000
            if delivery.accepted or delivery.tries >= self.most_tries:
                return
            if delivery.status:
                delivery.refusals.append(delivery.status)
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, event: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; a connection that fails is not used again."""
        reader, writer = self._free_connection() or await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self._head(event) + event)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._free.append((reader, writer))
        return int(head.split(b" ", 2)[1]), body

    def _free_connection(self) -> Connection | None:
        """Return a free connection that the server has not closed, or None."""
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    def _head(self, event: bytes) -> bytes:
        signature = "sha256=" + hmac.new(SECRET.encode(), event, hashlib.sha256).hexdigest()
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
            f"X-Firecrawl-Signature: {signature}\r\nContent-Length: {len(event)}\r\n\r\n"
        ).encode()


def word_of(number: int) -> str:
    """The word that only this page has."""
    return f"heron{number}"


def url_of(crawl: str, number: int) -> str:
    return f"https://{crawl}.example/pages/{number}"


def page_event(crawl: str, number: int, sentences: int = 12, html_bytes: int = 0) -> bytes:
    """The `crawl.page` of one page with its own word; with so much HTML, where a sender asked for that as well."""
    chance, words = random.Random(number), TEXT.split()
    text = "\n\n".join(f"{' '.join(chance.choices(words, k=14)).capitalize()}." for _ in range(sentences))
    url = url_of(crawl, number)
    metadata = {"url": url, "sourceURL": url, "title": f"Page {number}", "language": "en", "statusCode": 200}
    page: dict[str, Any] = {"markdown": f"# Page {number}\n\nA {word_of(number)} stands here.\n\n{text}"}
    if html_bytes:
        page["html"] = "<p>" + ("The mill grinds. " * (html_bytes // 17)) + "</p>"
    return event("crawl.page", crawl, {**page, "metadata": metadata})


def event(kind: str, crawl: str, *data: Any) -> bytes:
    return json.dumps({"success": True, "type": kind, "id": crawl, "data": list(data)}).encode()
