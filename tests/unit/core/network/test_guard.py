"""No address but those out on the public internet is ever called, whatever it is called by."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.core.errors import Rejected, Unavailable
from app.core.network.guard import Resolver, addresses, is_public, look_up, resolve
from app.sources.fetching.download import split_url
from tests.support.databases import SettingsEnv

NOT_PUBLIC = [
    # loopback, private, shared (CGNAT), link-local and the metadata that clouds keep there
    "127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
    "100.100.100.200", "100.127.255.255", "169.254.1.1", "169.254.169.254", "168.63.129.16", "192.0.0.192",
    # this network, multicast, broadcast, reserved, documentation, benchmarks, relays
    "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.1",
    "203.0.113.1", "198.18.0.1", "198.19.255.255", "192.0.0.8", "192.88.99.1",
    # the same in IPv6
    "::1", "::", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fdff::1", "ff02::1", "ff0e::1",
    "2001:db8::1", "3fff::1", "100::1", "4000::1", "5f00::1", "8000::1", "e000::1",
    # IPv4 inside of IPv6: mapped, translated, compatible, NAT64 of both kinds, 6to4, Teredo
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "::127.0.0.1", "::8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808",
    "64:ff9b:1:ffff::1", "2002:7f00:1::", "2002:a00:1::1", "2002:808:808::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.32.0.1", "169.253.1.1", "2606:4700::1111",
    "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
]  # fmt: skip
# As getaddrinfo of this machine understands them: whatever it makes of a name, that is what counts.
HERE = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0x0.0x0.0x1", "017700000001",
    "0177.0.0.1", "0177.0.0.01", "0", "0.0.0.0", "localhost", "LOCALHOST", "::1",
    "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1", "169.254.169.254",
    "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "①②⑦.0.0.1", "127。0。0。1",
    "10.0.0.1", "64:ff9b:1::a00:1", "2002:7f00:1::",
]  # fmt: skip
# What some machines take for a name and some for an address.
NOWHERE = [
    "localhost.", "::1%lo", "fe80::1%lo", "fe80::1%1", "127.0.0.1.", "0x7f000001.", "⑯⑨。②⑤④。⑯⑨｡②⑤④", "127.0.0.1 ",
    "a..b", "." * 70, "x" * 300, "\ud800",
]  # fmt: skip
TRICKS = [
    "http://2130706433/", "http://0x7f000001/", "http://0177.1/", "http://127.1/", "http://[::1]/",
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[64:ff9b:1::7f00:1]/", "http://[fe80::1%25lo]/",
    "http://example.com@127.0.0.1/", "http://example.com:80@127.0.0.1/", "http://a@b@127.0.0.1/",
    "http://example.com%40127.0.0.1@127.0.0.1/", "http://127.0.0.1:80#@example.com/", "http://127.0.0.1?@example.com/",
    "http://localhost./", "http://LocalHost/", "http://127.0.0.1./", "https://169.254.169.254/latest/meta-data/",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_private_addresses_are_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", HERE)
def test_every_spelling_of_this_host_is_refused(settings_env: SettingsEnv, host: str) -> None:
    """The resolved address decides, however the name is written."""
    with pytest.raises(Rejected) as refused:
        asyncio.run(resolve(host, 80))
    assert refused.value.code == "private_address"


@pytest.mark.parametrize("host", NOWHERE)
def test_name_without_an_address_is_refused(settings_env: SettingsEnv, host: str) -> None:
    with pytest.raises(Rejected):
        asyncio.run(resolve(host, 80))


@pytest.mark.parametrize("url", TRICKS)
def test_tricky_urls_cannot_hide_a_private_address(settings_env: SettingsEnv, url: str) -> None:
    """The host that is resolved is the one behind the last @ and before any path, query or fragment."""
    host = split_url(url).hostname or ""
    with pytest.raises(Rejected):
        asyncio.run(resolve(host.replace("%25", "%"), 80))


def _v4() -> st.SearchStrategy[ipaddress.IPv4Address]:
    return st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)


def _v6() -> st.SearchStrategy[ipaddress.IPv6Address]:
    """Anywhere, and more often where something special is."""
    prefixes = [0, 0xFFFF << 32, 0x64FF9B << 96, 0x64FF9B0001 << 80, 0x2002 << 112, 0x20010000 << 96, 0xFE80 << 112]
    near = st.tuples(st.sampled_from(prefixes), st.integers(0, 2**32 - 1)).map(lambda pair: pair[0] | pair[1])
    return (st.integers(0, 2**128 - 1) | near).map(ipaddress.IPv6Address)


def _bad(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_reserved
        or address.is_multicast
        or address.is_unspecified
    )


@given(_v4())
def test_special_ipv4_addresses_are_not_public(address: ipaddress.IPv4Address) -> None:
    assert not (is_public(address) and _bad(address))


@given(_v6())
@example(ipaddress.IPv6Address("::ffff:0.0.0.0"))
@example(ipaddress.IPv6Address("64:ff9b::"))
def test_special_ipv6_addresses_are_not_public(address: ipaddress.IPv6Address) -> None:
    """An address that holds a public IPv4 one for those who have no IPv4 is the only exception."""
    if not is_public(address):
        return
    inner = address.ipv4_mapped
    if address in ipaddress.IPv6Network("64:ff9b::/96"):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    assert not _bad(address if inner is None else inner)
    assert not address.is_site_local


@given(_v4())
def test_embedded_ipv4_address_decides(address: ipaddress.IPv4Address) -> None:
    for prefix in (0xFFFF << 32, 0x64FF9B << 96):
        assert is_public(ipaddress.IPv6Address(prefix | int(address))) == is_public(address)
    for prefix in (0, 0x64FF9B0001 << 80):
        assert not is_public(ipaddress.IPv6Address(prefix | int(address)))
    assert not is_public(ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80))


def _says(*answers: list[str] | socket.gaierror) -> tuple[list[str], Resolver]:
    """A name server that answers so, one answer after the other."""
    names: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        names.append(host)
        answer = answers[min(len(names), len(answers)) - 1]
        if isinstance(answer, socket.gaierror):
            raise answer
        return answer

    return names, resolver


@pytest.mark.parametrize(
    "resolved",
    [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["2606:4700::1111", "::1"], ["8.8.8.8", "fe80::1%eth0"]],
)
def test_one_private_address_among_public_ones_is_enough(settings_env: SettingsEnv, resolved: list[str]) -> None:
    _, resolver = _says(resolved)
    with pytest.raises(Rejected, match="not on the public internet"):
        asyncio.run(addresses("example.org", 80, resolver=resolver))


def test_name_is_resolved_once(settings_env: SettingsEnv) -> None:
    """The checked address is the one that is called, so a second answer cannot differ."""
    asked, resolver = _says(["8.8.8.8", "8.8.4.4", "8.8.8.8"], ["127.0.0.1"])
    resolved = asyncio.run(addresses("example.org", 80, resolver=resolver))
    assert (resolved, asked) == (["8.8.8.8", "8.8.4.4"], ["example.org"])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "later"), Unavailable),
        (socket.gaierror(socket.EAI_NONAME, "no"), Rejected),
        ([], Rejected),
        (["not an address"], Rejected),
    ],
)
def test_empty_answer_of_a_name_server_is_an_error(
    settings_env: SettingsEnv, answer: list[str] | socket.gaierror, error: type[Exception]
) -> None:
    _, resolver = _says(answer)
    with pytest.raises(error):
        asyncio.run(addresses("example.org", 80, resolver=resolver))


def test_private_addresses_are_allowed_by_the_setting(settings_env: SettingsEnv) -> None:
    settings_env(fetch_private="true")
    assert asyncio.run(resolve("127.1", 80)) == "127.0.0.1"
    settings_env(fetch_private="false")
    assert asyncio.run(resolve("127.1", 80, private=True)) == "127.0.0.1"
    assert "127.0.0.1" in asyncio.run(look_up("localhost", 80)) or "::1" in asyncio.run(look_up("localhost", 80))
