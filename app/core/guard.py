"""Addresses that are never called for a caller: whatever is not out on the public internet."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from app.core.errors import Rejected, Unavailable, UnknownHost
from app.core.settings import get_settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# What a name server says of a host and port; raises as getaddrinfo does.
Resolver = Callable[[str, int], Awaitable[list[str]]]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Public by number and not in use: Python's tables know some of them, depending on its version.
_NEVER = tuple(
    ipaddress.ip_network(said)
    for said in (
        "192.0.0.0/24",  # protocols' own, and what Oracle's machines find their host at
        "192.88.99.0/24",  # relays of 6to4
        "168.63.129.16/32",  # what Azure's machines find their host at
        "2002::/16",  # 6to4, which hides an IPv4 address
        "2001::/23",  # Teredo, which hides two, and other protocols' own
        "2001:db8::/32",
        "3fff::/20",
    )
)


def is_public(address: Address) -> bool:
    """Whether the address is neither private, loopback, link-local, shared, multicast, reserved, nor hides one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address.version == known.version and address in known for known in _NEVER):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_private)


def is_private_by_name(url: str) -> bool:
    """Whether the URL names a host that is not out on the public internet, told without a look-up: an address in
    whatever spelling, or a name without a dot. For pages that another service fetches, which looks names up itself.

    Never where MILLRACE_FETCH_PRIVATE is set.
    """
    if get_settings().fetch_private:
        return False
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return False  # no address at all, which others say better
    try:
        return not is_public(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return not is_public(ipaddress.IPv4Address(socket.inet_aton(host)))  # 127.1, 0x7f000001
    except (OSError, UnicodeError):
        return "." not in host or host.endswith(".localhost")


async def look_up(host: str, port: int) -> list[str]:
    """The addresses that this machine knows the host by. Raises socket.gaierror, UnicodeError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def resolve(host: str, port: int, *, private: bool | None = None) -> str:
    """One checked address of the host, to be connected to as it is: a second look-up could say something else.

    With `private` it may be anywhere; None leaves that to MILLRACE_FETCH_PRIVATE.

    Raises Rejected where the host is unknown or any of its addresses is not public, Unavailable where nobody knows now.
    """
    return (await addresses(host, port, private=private))[0]


async def addresses(
    host: str, port: int, *, private: bool | None = None, resolver: Resolver | None = None
) -> list[str]:
    """All of them, in the resolver's order, each once. Raises as resolve() does."""
    try:
        said = await (resolver or look_up)(host, port)
        found = [ipaddress.ip_address(one.partition("%")[0]) for one in dict.fromkeys(said)]
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Unavailable(f"the name {host} cannot be resolved now") from error
        raise UnknownHost(f"there is no host {host}") from error
    except ValueError as error:
        raise UnknownHost(f"{host!r} is no name of a host") from error
    if not found:
        raise UnknownHost(f"there is no host {host}")
    if not (get_settings().fetch_private if private is None else private):
        for address in found:
            if not is_public(address):
                raise Rejected(f"{host} is at {address}, which is not on the public internet", code="private_address")
    return [str(address) for address in found]
