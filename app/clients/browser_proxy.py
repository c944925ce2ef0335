"""HTTP proxy on the loopback for one page: connects to checked addresses only, up to a number of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import urlsplit

from app.core.errors import Rejected, Unavailable
from app.core.logging import get_logger
from app.core.network.guard import Resolver, addresses
from app.core.settings import get_settings

MAX_CONNECTIONS = 500
HEAD_TIMEOUT_S = 30.0
_MAX_HEAD_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_HOP_BY_HOP = (b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization")

log = get_logger(__name__)


class GuardedProxy:
    """Proxy that listens on `port` inside `async with GuardedProxy(max_bytes=...) as proxy`.

    Handles HTTP and CONNECT. A request for an address that the guard refuses, or for a blocked host, gets a 403.
    """

    def __init__(
        self, *, max_bytes: int, blocked_hosts: Collection[str] = (), resolver: Resolver | None = None
    ) -> None:
        self._left = max_bytes
        self._blocked_hosts = blocked_hosts
        self._resolver = resolver
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.refused: list[str] = []

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> GuardedProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_MAX_HEAD_BYTES)
        return self

    async def __aexit__(self, *raised: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) <= MAX_CONNECTIONS:
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # one side closed the connection, or sent no complete request
        except asyncio.CancelledError:
            return  # the proxy is closing; nothing else awaits this task
        finally:
            self._tasks.discard(task)
            await _close(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        request = _parse_request(head)
        if request is None:
            writer.write(_BAD_REQUEST)
            return
        host, port, first_bytes = request
        if host in self._blocked_hosts:
            writer.write(_FORBIDDEN)
            return
        try:
            connection = await self._connect(host, port)
        except Rejected as error:
            log.info("browser_refused", host=host, reason=error.message)
            self.refused.append(host)
            writer.write(_FORBIDDEN)
            return
        except (Unavailable, OSError):
            writer.write(_BAD_GATEWAY)
            return
        far_reader, far_writer = connection
        try:
            if first_bytes is None:
                writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
            else:
                far_writer.write(first_bytes)
            await self._relay(reader, writer, far_reader, far_writer)
        finally:
            await _close(far_writer)

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first checked address. Raises Rejected, Unavailable, OSError (TimeoutError included)."""
        async with asyncio.timeout(get_settings().fetch_connect_timeout_s):
            checked = await addresses(host, port, resolver=self._resolver)
            return await asyncio.open_connection(checked[0], port)

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Copy both ways until the far side ends its response or the near side disconnects."""
        upstream = asyncio.ensure_future(self._copy(reader, far_writer))
        try:
            await self._copy(far_reader, writer)
        finally:
            upstream.cancel()
            await asyncio.gather(upstream, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(_CHUNK_BYTES):
            self._left -= len(part)
            if self._left < 0:
                log.info("browser_carried_enough")
                return
            writer.write(part)
            await writer.drain()


def _parse_request(head: bytes) -> tuple[str, int, bytes | None] | None:
    """Return host, port and the bytes to send first (None after CONNECT), or None for an invalid request."""
    line, _, rest = head.partition(b"\r\n")
    words = line.split(b" ")
    if len(words) != 3:
        return None
    method, target, version = words
    try:
        parts = urlsplit("//" + target.decode("ascii") if method == b"CONNECT" else target.decode("ascii"))
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host:
        return None
    if method == b"CONNECT":
        return None if port is None else (host, port, None)
    if parts.scheme != "http":
        return None
    path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    # One request a connection: the next one may go to another host.
    headers = [
        line for line in rest.split(b"\r\n") if line and line.partition(b":")[0].strip().lower() not in _HOP_BY_HOP
    ]
    lines = [b" ".join((method, path.encode("ascii"), version)), *headers, b"Connection: close", b"", b""]
    return host, port or 80, b"\r\n".join(lines)


async def _close(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.CancelledError):
        writer.close()
        await writer.wait_closed()
