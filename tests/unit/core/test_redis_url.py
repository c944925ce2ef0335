"""Where Redis is: URLs with TLS and of sentinels, told apart, checked, and connected to for real."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core import redis as clients
from app.core import redis_url
from app.core.errors import ConfigError, Unavailable
from app.core.redis import Push
from tests.support.processes import running
from tests.support.redis_kinds import Certificates, TlsRedis, Watched
from tests.support.waiting import wait_until


@pytest.fixture
def tls_redis(tmp_path: Path) -> Iterator[TlsRedis]:
    with running(TlsRedis(tmp_path / "redis")) as server:
        yield server


def test_sentinel_url_has_hosts_service_and_credentials(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    query = f"ssl_ca_certs={authority}&ssl_check_hostname=false&sentinel_password=third"
    sentinels = redis_url.sentinels(f"rediss+sentinel://me:se%40cret@one:1,two,[::1]:3/mymaster/4?{query}")
    assert sentinels is not None
    assert sentinels.hosts == [("one", 1), ("two", redis_url.SENTINEL_PORT), ("::1", 3)]
    assert (sentinels.service, sentinels.master["db"]) == ("mymaster", 4)
    assert (sentinels.master["username"], sentinels.master["password"]) == ("me", "se@cret")
    tls = {"ssl": True, "ssl_ca_certs": str(authority), "ssl_check_hostname": False}
    assert {name: sentinels.master[name] for name in tls} == tls
    assert sentinels.sentinel == tls | {"password": "third"}
    assert redis_url.sentinels("redis://127.0.0.1:6379/0") is None


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://one:1", "redis+sentinel://one:1/", "redis+sentinel:///mymaster", "redis+sentinel://a:x/m",
        "redis+sentinel://one:1/m/zero", "redis+sentinel://one:1/m/0/1", "http+sentinel://one:1/m", "http://one",
        "redis+sentinel://one:1/m?colour=red", "rediss://one?ssl_ca_certs=/nowhere/ca.pem", "redis://[",
    ],
)  # fmt: skip
def test_invalid_url_is_one_sentence(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^MILLRACE_REDIS_URL.*[^.]$"):
        redis_url.client(url)


def test_every_client_reaches_redis_behind_tls(tls_redis: TlsRedis) -> None:
    url = tls_redis.url
    push = Push(url)
    assert push.call(lambda client: client.set("a", "1"))
    blocking = redis_url.client(url, socket_connect_timeout=1.0, socket_timeout=3, decode_responses=True)
    push.call(lambda client: client.rpush("list", "x"))
    assert blocking.blpop(["list"], timeout=1) in (["list", "x"], ("list", "x"))

    async def on_the_loop() -> object:
        client = redis_url.async_client(url, decode_responses=True, socket_connect_timeout=clients.CONNECT_TIMEOUT_S)
        try:
            return await client.get("a")
        finally:
            await client.aclose()

    assert asyncio.run(on_the_loop()) == "1"


def test_certificate_of_another_authority_is_refused(tls_redis: TlsRedis, tmp_path: Path) -> None:
    """A wrong certificate is a wrong setting, so no retry follows."""
    other = Certificates(tmp_path / "other").authority
    with pytest.raises(ConfigError, match="CERTIFICATE_VERIFY_FAILED"):
        Push(f"rediss://127.0.0.1:{tls_redis.port}/0?ssl_ca_certs={other}").call(lambda client: client.ping())


def test_client_follows_a_failover_to_the_new_master(watched: Watched) -> None:
    push = Push(watched.url)
    assert push.call(lambda client: client.set("a", "1"))
    before = watched.master()
    wait_until(lambda: watched.servers[1].client().get("a") == "1", what="the replica to follow")
    watched.servers[0].kill()

    def answers() -> bool:
        try:
            return push.call(lambda client: client.get("a")) == "1"
        except Unavailable:
            return False

    wait_until(lambda: watched.master() != before and answers(), timeout_s=30, what="the other to be master")
    assert push.call(lambda client: client.set("a", "2"))
