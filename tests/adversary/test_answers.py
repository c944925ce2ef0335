"""A3: a short answer of a service outside takes no more memory than its limit, whatever it expands to."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from app.clients.embeddings import Embeddings, EmbeddingServer
from app.clients.firecrawl import Firecrawl
from app.core import http
from app.core.errors import AppError, Unavailable
from app.deliveries import webhooks
from tests.fakes.server import FakeServer, Request, Response
from tests.support.databases import SettingsEnv

GIB = 1024**3


def _bomb() -> bytes:
    """Return 1 GiB of zeros as one megabyte."""
    packer = zlib.compressobj(9, wbits=31)
    block = bytes(1024 * 1024)
    return b"".join([*(packer.compress(block) for _ in range(GIB // len(block))), packer.flush()])


ONCE = _bomb()
TWICE = gzip.compress(ONCE, 9)
THRICE = gzip.compress(TWICE, 9)
ATTACKS = {
    "once": (ONCE, "gzip"),
    "twice": (TWICE, "gzip, gzip"),
    "thrice": (THRICE, "gzip,gzip , GZIP"),
    "mixed": (TWICE, "gzip, identity, gzip"),
    "many members": (gzip.compress(b"") * 40_000 + ONCE, "gzip"),
}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer().running() as running:
        yield running


def _always(response: Response) -> Callable[[Request], Response]:
    return lambda request: response


def _peak_growth(work: Callable[[], object]) -> int:
    """Return the bytes that this process took at most while it worked."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest mark begins again at the present use
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_answer_of_a_webhooks_receiver_is_read_at_its_beginning(
    server: FakeServer, settings_env: SettingsEnv, attack: str, status: int
) -> None:
    settings_env(webhook_private="true", api_secret="s" * 16 + "0123456789abcdef")
    body, encoding = ATTACKS[attack]
    server.answer = lambda request: Response(body, status, {"content-encoding": encoding})

    def send() -> None:
        try:
            response, answer = asyncio.run(webhooks._send(server.url, "default", "msg_1", b"{}"))
            assert response.status_code == status and len(answer) <= webhooks.MAX_ANSWER_BYTES
        except Unavailable:
            assert attack != "once"

    assert _peak_growth(send) < 64 * 1024**2
    assert len(server.requests) == 1


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_client_reads_more_than_its_limit(server: FakeServer, attack: str) -> None:
    body, encoding = ATTACKS[attack]
    server.answer = lambda request: Response(body, 200, {"content-encoding": encoding})

    def in_a_thread() -> None:
        with http.client(max_bytes=8 * 1024**2) as client, pytest.raises(http.HTTPError):
            client.get(server.url)

    async def on_the_loop() -> None:
        async with http.async_client(max_bytes=8 * 1024**2) as client:
            with pytest.raises(http.HTTPError):
                await client.get(server.url)

    assert _peak_growth(in_a_thread) < 64 * 1024**2
    assert _peak_growth(lambda: asyncio.run(on_the_loop())) < 64 * 1024**2


def test_the_services_of_the_settings_are_bounded_too(server: FakeServer, settings_env: SettingsEnv) -> None:
    settings_env(firecrawl_max_bytes=8 * 1024**2)
    for body, encoding in ATTACKS.values():
        server.answer = _always(Response(body, 200, {"content-encoding": encoding}))
        for ask in (_scrape, _embed):
            assert _peak_growth(partial(asyncio.run, ask(server.url))) < 96 * 1024**2


async def _scrape(url: str) -> None:
    firecrawl = Firecrawl(url, "")
    with pytest.raises(AppError):
        await firecrawl.scrape({"url": "https://example.org"})
    await firecrawl.close()


async def _embed(url: str) -> None:
    embeddings = Embeddings(EmbeddingServer("openai", url, "m", 8), pauses_s=())
    with pytest.raises(AppError):
        await embeddings.query("x")
    await embeddings.close()


def test_an_honest_compressed_answer_is_read(server: FakeServer) -> None:
    text = "Das Wasser treibt die Räder. " * 100_000
    packed = {
        "gzip": gzip.compress(text.encode()),
        "x-gzip": gzip.compress(text.encode()),
        "deflate": zlib.compress(text.encode()),
        "identity": text.encode(),
    }
    for encoding, body in packed.items():
        server.answer = _always(Response(body, 200, {"content-encoding": encoding}))
        with http.client() as client:
            answer = client.get(server.url)
            assert answer.content.decode() == text
            assert "content-encoding" not in answer.headers or encoding == "identity"


def test_a_long_answer_is_refused_without_compression_too(server: FakeServer) -> None:
    server.answer = lambda request: Response(b"x" * 100_000, repeat=3)
    with http.client(max_bytes=250_000) as client, pytest.raises(http.HTTPError, match="limit"):
        client.get(server.url)
    with http.client(max_bytes=300_000) as client:
        assert len(client.get(server.url).content) == 300_000
