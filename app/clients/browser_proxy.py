"""A proxy on the loopback for the life of one page: it connects to checked addresses alone, and carries so much."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import urlsplit

from app.core.errors import Rejected, Unavailable
from app.core.guard import Resolver, addresses
from app.core.logging import get_logger
from app.core.settings import get_settings

MAX_CONNECTIONS = 500
IDLE_S = 30.0
_MAX_HEAD_BYTES = 64 * 1024
_CHUNK = 64 * 1024
_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_HOP = (b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization")

log = get_logger(__name__)


class GuardedProxy:
    """`async with GuardedProxy(max_bytes=...) as proxy`: listens on proxy.port, and is gone afterwards.

    HTTP and CONNECT. Whatever asks for an address that the guard refuses, or a host among `never`, gets a 403.
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
            return  # one of the two has gone, or never said what it wants
        except asyncio.CancelledError:
            return  # the page's time is over, and this task is nobody else's
        finally:
            self._tasks.discard(task)
            await _close(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(IDLE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        wanted = _wanted(head)
        if wanted is None:
            writer.write(_BAD_REQUEST)
            return
        host, port, first = wanted
        if host in self._blocked_hosts:
            writer.write(_FORBIDDEN)
            return
        try:
            there = await self._connect(host, port)
        except Rejected as error:
            log.info("browser_refused", host=host, reason=error.message)
            self.refused.append(host)
            writer.write(_FORBIDDEN)
            return
        except (Unavailable, OSError):
            writer.write(_BAD_GATEWAY)
            return
        far_reader, far_writer = there
        try:
            if first is None:
                writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
            else:
                far_writer.write(first)
            await self._both_ways(reader, writer, far_reader, far_writer)
        finally:
            await _close(far_writer)

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises Rejected, Unavailable, OSError (of which TimeoutError is one)."""
        async with asyncio.timeout(get_settings().fetch_connect_timeout_s):
            checked = await addresses(host, port, resolver=self._resolver)
            return await asyncio.open_connection(checked[0], port)

    async def _both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Until the far side has said all, or the near one is gone."""
        up = asyncio.ensure_future(self._carry(reader, far_writer))
        try:
            await self._carry(far_reader, writer)
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(_CHUNK):
            self._left -= len(part)
            if self._left < 0:
                log.info("browser_carried_enough")
                return
            writer.write(part)
            await writer.drain()


def _wanted(head: bytes) -> tuple[str, int, bytes | None] | None:
    """Host and port, and what is to be sent there first (None after CONNECT); None for what is no request."""
    line, _, rest = head.partition(b"\r\n")
    words = line.split(b" ")
    if len(words) != 3:
        return None
    method, where, version = words
    try:
        parts = urlsplit("//" + where.decode("ascii") if method == b"CONNECT" else where.decode("ascii"))
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
    # One request a connection: the next may be meant for somebody else.
    kept = [one for one in rest.split(b"\r\n") if one and one.partition(b":")[0].strip().lower() not in _HOP]
    lines = [b" ".join((method, path.encode("ascii"), version)), *kept, b"Connection: close", b"", b""]
    return host, port or 80, b"\r\n".join(lines)


async def _close(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.CancelledError):
        writer.close()
        await writer.wait_closed()
