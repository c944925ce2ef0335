"""The HTTP server's side of a connection, with limits for callers that are not known yet.

uvicorn holds a head of any length, waits for it without end, and counts no connections.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections import Counter
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.api.http.middleware import MAX_HEADER_BYTES, MAX_HEADERS
from app.core.logging import get_logger
from app.core.network.addresses import network_of
from app.core.settings import Settings, get_settings

# Request line and headers together, and also a chunk's extension or the headers after a body.
MAX_HEAD_BYTES = MAX_HEADER_BYTES
# Requests of one connection that wait behind the one that is being answered.
MAX_PIPELINED = 16
# Time between two pieces of a body that the application waits for.
BODY_TIMEOUT_S = 30.0
# Of a body whose request is answered already; beyond, the connection is closed.
MAX_DISCARDED_BYTES = 256 * 1024
# Received data is parsed in pieces, so that a head in one large packet is measured too.
PIECE_BYTES = 8 * 1024

log = get_logger(__name__)

_open: WeakKeyDictionary[ServerState, Counter[str]] = WeakKeyDictionary()


def options(settings: Settings) -> dict[str, Any]:
    """Return the options of uvicorn for the api."""
    return {
        "http": LimitedProtocol,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "forwarded_allow_ips": settings.trusted_proxies,
        "timeout_graceful_shutdown": max(1, round(settings.grace_s)),
        # The server ignores messages of WebSocket clients; compressing its small events costs more than it saves.
        "ws_max_size": 64 * 1024,
        "ws_per_message_deflate": False,
    }


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on the size and the time of a head, and on connections of one address.

    A trusted proxy may open any number of connections: it stands for many callers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refusal: HTTPStatus | None = None
        self._counted_as: str | None = None
        # Bytes since the last complete head, piece of a body, or end of a request.
        self._pending_bytes = 0
        self._has_progressed = False
        self._timer: asyncio.TimerHandle | None = None
        self._last_body_at = 0.0
        self._discarded_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._count():
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS)
            return
        self._start_timer(get_settings().head_timeout_s, self._end_slow_head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._uncount()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        # From here on another protocol has the connection; its callers have a key.
        self._stop_timer()
        self._uncount()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            self._parse(data[start : start + PIECE_BYTES])

    def _parse(self, piece: bytes) -> None:
        self._has_progressed = False
        if self._timer is None and (self.cycle is None or not self.cycle.more_body):
            self._start_timer(get_settings().head_timeout_s, self._end_slow_head)
        super().data_received(piece)
        self._pending_bytes = 0 if self._has_progressed else self._pending_bytes + len(piece)
        if self._pending_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    # Callbacks of the parser. An exception ends the request with send_400_response().

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_timer(get_settings().head_timeout_s, self._end_slow_head)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_HEADERS:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = HTTPStatus.TOO_MANY_REQUESTS
            raise ValueError("too many requests wait on this connection")
        self._has_progressed = True
        self._discarded_bytes = 0
        self._stop_timer()
        super().on_headers_complete()
        if self.cycle is not None and not self.cycle.waiting_for_100_continue:
            self._last_body_at = self.loop.time()
            self._start_timer(BODY_TIMEOUT_S, self._end_slow_body)

    def on_body(self, body: bytes) -> None:
        self._has_progressed = True
        self._last_body_at = self.loop.time()
        super().on_body(body)
        if self.cycle is not None and self.cycle.response_complete:
            self._discarded_bytes += len(body)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self.transport.close()

    def on_message_complete(self) -> None:
        self._has_progressed = True
        self._stop_timer()
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            # Answered before its body ended, which stopped uvicorn's own timer.
            self._start_timer(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or HTTPStatus.BAD_REQUEST)

    # Ends

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer with a problem and close the connection; without an answer if another one has begun."""
        self._stop_timer()
        log.info("connection_refused", status=int(status), client=self.client[0] if self.client else None)
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_problem(status))
        self.transport.close()

    def _end_slow_head(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _end_slow_body(self) -> None:
        self._timer = None
        silence_s = self.loop.time() - self._last_body_at
        if self.transport.is_closing():
            return
        if self.flow.read_paused or silence_s < BODY_TIMEOUT_S:  # the application is slower than the caller
            wait_s = BODY_TIMEOUT_S if self.flow.read_paused else BODY_TIMEOUT_S - silence_s
            self._start_timer(wait_s, self._end_slow_body)
            return
        log.info("connection_refused", status=408, client=self.client[0] if self.client else None)
        self.transport.close()

    def _start_timer(self, seconds: float, call: Any) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Connections of an address

    def _count(self) -> bool:
        """Count this connection; return False if its address has as many as it may."""
        address = network_of(self.client[0]) if self.client else None
        if address is None or _is_trusted(get_settings().trusted_proxies, self.client[0] if self.client else ""):
            return True
        counts = _open.setdefault(self.server_state, Counter())
        if counts[address] >= get_settings().max_connections_per_address:
            return False
        counts[address] += 1
        self._counted_as = address
        return True

    def _uncount(self) -> None:
        if self._counted_as is None:
            return
        counts = _open[self.server_state]
        counts[self._counted_as] -= 1
        if counts[self._counted_as] <= 0:
            del counts[self._counted_as]
        self._counted_as = None


@lru_cache(maxsize=1024)
def _is_trusted(proxies: str, address: str) -> bool:
    """Return True if the setting names the address, alone or in a network; `*` names all."""
    host = ipaddress.ip_address(address.partition("%")[0])
    for name in (name.strip() for name in proxies.split(",")):
        if name == "*":
            return True
        try:
            network = ipaddress.ip_network(name, strict=False)
        except ValueError:
            continue  # a name; connections come from addresses
        if host in network:
            return True
    return False


@lru_cache
def _problem(status: HTTPStatus) -> bytes:
    body = json.dumps(
        {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": status.description}
    ).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
    return head.encode() + f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body
