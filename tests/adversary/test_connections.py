"""A3: callers without a key cannot hold the memory or the connections of the api."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus

import httpx
import pytest

from app.api.http import server
from app.api.http.middleware import MAX_HEADERS
from app.core.health import MAX_CONNECTIONS, HealthServer
from app.main import create_app
from tests.support.databases import SettingsEnv
from tests.support.stack import Stack
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, served

MIB = 1024**2


@pytest.fixture
def api(sqlite_url: str, settings_env: SettingsEnv) -> Iterator[Api]:
    """An api that trusts no proxy, so that the loopback is counted; without Redis."""
    settings_env(
        database_url=sqlite_url, redis_url="redis://127.0.0.1:9/0", trusted_proxies="192.0.2.1", head_timeout_s=0.5,
        max_connections_per_address=20,
    )  # fmt: skip
    with served(create_app()) as running:
        yield running


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The database of `stack`; connections do not depend on it."""
    return sqlite_url


@contextmanager
def connected(api: Api) -> Iterator[socket.socket]:
    with connected_to(api.port) as connection:
        yield connection


@contextmanager
def connected_to(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        yield connection


def _answer(connection: socket.socket) -> bytes:
    """Return all that the server sends until it closes the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def _send(connection: socket.socket, *parts: bytes) -> int:
    """Send until the server closes the connection; return the number of bytes that it took."""
    size = 0
    try:
        for part in parts:
            connection.sendall(part)
            size += len(part)
    except (ConnectionError, BrokenPipeError):
        pass
    return size


HEAD = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
LONG = {
    "one header": [HEAD + b"x-a: "] + [b"a" * 65536] * 400,
    "one name": [HEAD] + [b"a" * 65536] * 400,
    "many headers": [HEAD] + [b"".join(b"x-%d: a\r\n" % n for n in range(5000))] * 400,
    "address": [b"GET /"] + [b"a" * 65536] * 400,
    "method": [b"GET" * 20000] * 400,
    "blank lines": [b"\r\n" * 32768] * 400,
    "a chunk's extension": [b"POST /api/search HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;"]
    + [b"a" * 65536] * 400,
    "headers after the body": [
        b"POST /api/search HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-a: "
    ]
    + [b"a" * 65536] * 400,
}


@pytest.mark.parametrize("attack", LONG)
def test_a_long_head_is_refused_before_it_is_held(api: Api, attack: str) -> None:
    with connected(api) as connection:
        taken = _send(connection, *LONG[attack])
        assert taken < 20 * MIB  # what the buffers of the two kernels hold; 26 MB were offered
        answer = _answer(connection)
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"431", b"401", b"422", b"408")
    assert api.anyone.get("/livez").status_code == 200


def test_a_head_just_within_the_limits_is_read(api: Api) -> None:
    headers = {f"x-{number}": "a" * 200 for number in range(MAX_HEADERS - 10)}
    assert httpx.get(f"{api.url}/livez", headers=headers, trust_env=False).status_code == 200
    long = {"x-long": "a" * (server.MAX_HEAD_BYTES - 10_000)}
    assert httpx.get(f"{api.url}/livez", headers=long, trust_env=False).status_code == 200


def test_the_refusal_says_what_is_wrong(api: Api) -> None:
    with connected(api) as connection:
        _send(connection, HEAD + b"".join(b"x-%d: a\r\n" % number for number in range(200)) + b"\r\n")
        answer = _answer(connection)
    assert answer.startswith(b"HTTP/1.1 431 ") and b'"status": 431' in answer


@pytest.mark.parametrize(
    "beginning", [b"", b"G", HEAD, b"\r\n", HEAD + b"\r\n" + HEAD], ids=["none", "a byte", "half", "blank", "second"]
)
def test_a_head_that_does_not_arrive_is_not_waited_for(api: Api, beginning: bytes) -> None:
    with connected(api) as connection:
        _send(connection, beginning)
        connection.settimeout(20)
        answer = _answer(connection)  # returns, since the server closes the connection
    assert answer == b"" or b" 408 " in answer or b" 200 " in answer


def test_a_head_sent_byte_by_byte_has_the_same_time(api: Api) -> None:
    with connected(api) as connection:
        stopped = threading.Event()

        def trickle() -> None:
            while _send(connection, b"x"):
                stopped.wait(0.02)

        _send(connection, HEAD + b"x-a: ")
        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        assert _answer(connection) in (b"", server._problem(HTTPStatus.REQUEST_TIMEOUT))  # bytes under way reset it
        thread.join(20)
        assert not thread.is_alive()
        stopped.set()


def test_an_address_has_a_number_of_connections(api: Api) -> None:
    """The others are refused at once, those that were there go on, and closed ones make room."""
    with ExitStack() as stack:
        steady = stack.enter_context(httpx.Client(base_url=api.url, trust_env=False))
        assert steady.get("/livez").status_code == 200
        open_ = [stack.enter_context(connected(api)) for _ in range(40)]
        refused = [connection for connection in open_ if _is_refused(connection)]
        assert 20 <= len(refused) <= 22
        assert steady.get("/livez").status_code == 200
    wait_until(lambda: _is_served(api), what="a place to be free again")


def _is_refused(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return connection.recv(100).startswith(b"HTTP/1.1 429 ")
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def _is_served(api: Api) -> bool:
    try:
        return httpx.get(f"{api.url}/livez", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_connection_whose_request_was_answered_early_is_closed(api: Api) -> None:
    """uvicorn keeps it open without end if its body ends after the answer."""
    with connected(api) as connection:
        _send(connection, b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n")
        assert b" 200 " in connection.recv(4096)
        _send(connection, b"12345")
        assert _answer(connection) == b""


def test_a_trusted_proxy_has_any_number(sqlite_url: str, settings_env: SettingsEnv) -> None:
    settings_env(
        database_url=sqlite_url, redis_url="redis://127.0.0.1:9/0", trusted_proxies="127.0.0.0/8",
        max_connections_per_address=5,
    )  # fmt: skip
    with served(create_app()) as api, ExitStack() as stack:
        open_ = [stack.enter_context(connected(api)) for _ in range(30)]
        for connection in open_:
            connection.sendall(HEAD + b"\r\n")
        assert all(connection.recv(100).startswith(b"HTTP/1.1 200") for connection in open_)


def test_requests_do_not_queue_without_end_on_a_connection(api: Api) -> None:
    with connected(api) as connection:
        _send(connection, (HEAD + b"\r\n") * 20_000)
        answer = _answer(connection)
    assert answer.count(b"HTTP/1.1 200") < 1000
    assert api.anyone.get("/livez").status_code == 200


def test_two_hundred_megabytes_of_headers_leave_the_api_as_it_is(stack: Stack) -> None:
    """Against the process that `millrace api` starts."""
    process = stack.start_api()
    before = _resident(process.pid)
    with ExitStack() as open_:
        for _ in range(200):
            connection = open_.enter_context(socket.create_connection(("127.0.0.1", stack.port), timeout=20))
            connection.settimeout(1)
            _send(connection, HEAD + b"x-a: ", *[b"a" * 65536] * 16)
        assert _resident(process.pid) - before < 64 * MIB
    assert httpx.get(f"http://127.0.0.1:{stack.port}/livez", trust_env=False).status_code == 200


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_large_body_without_a_key_is_not_read(stack: Stack) -> None:
    """The application would parse it before it asks who sends it."""
    process = stack.start_api()
    nested = b"[" + b"[]," * 3_000_000 + b"[]]"  # 9 MB, hundreds of megabytes once parsed
    before = _resident(process.pid)
    for path, headers in (
        ("/api/documents", {}), ("/api/jobs", {"authorization": "Bearer wrong"}), ("/v2/crawl", {}),
        ("/api/webhook/firecrawl", {}), ("/api/webhook/firecrawl", {"x-firecrawl-signature": "sha256=no"}),
        ("/api/webhook/changedetection", {"authorization": "Bearer wrong"}),
    ):  # fmt: skip
        headers = {**headers, "content-type": "application/json"}
        with connected_to(stack.port) as connection:
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(nested)}\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            _send(
                connection, head.encode() + b"\r\n", *(nested[at : at + 65536] for at in range(0, len(nested), 65536))
            )
            answer = _answer(connection)
        assert answer == b"" or answer.split(b" ")[1] in (b"400", b"401"), (path, answer[:200])
        assert _resident(process.pid) - before < 64 * MIB, path
    accepted = stack.client.post("/api/documents", json={"text": "x" * 1_000_000})
    assert accepted.status_code == 202, accepted.text


def test_silent_connections_do_not_take_a_workers_health_port(settings_env: SettingsEnv) -> None:
    settings_env(head_timeout_s=0.5)
    health = HealthServer(lambda: {"status": "healthy"})
    port = int(health.url.rpartition(":")[2])
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(4 * MAX_CONNECTIONS):
            stack.enter_context(connected_to(port))
        assert threading.active_count() - before <= MAX_CONNECTIONS
        wait_until(lambda: _answers(health.url), what="the silent ones to be closed")
    health.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
