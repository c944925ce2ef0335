"""Guard against requests to addresses outside of the public internet."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import unicodedata
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from app.core.errors import Rejected, Unavailable, UnknownHost
from app.core.settings import get_settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# A resolver of host and port; raises like getaddrinfo.
Resolver = Callable[[str, int], Awaitable[list[str]]]

# Names that networks give to their own machines.
_PRIVATE_NAMES = (
    ".localhost", ".local", ".localdomain", ".internal", ".intranet", ".private", ".corp", ".home", ".lan",
    ".home.arpa", ".svc",
)  # fmt: skip
_BLANKS = "".join(map(chr, range(33)))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Public by number but reserved; Python's tables contain some of them, depending on its version.
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # reserved for protocols; Oracle Cloud's metadata service
        "192.88.99.0/24",  # relays of 6to4
        "168.63.129.16/32",  # Azure's metadata service
        "2002::/16",  # 6to4, which hides an IPv4 address
        "2001::/23",  # Teredo, which hides two, and other protocols' addresses
        "2001:db8::/32",
        "3fff::/20",
    )
)


def is_public(address: Address) -> bool:
    """Return True if the address is neither private, loopback, link-local, shared, multicast nor reserved, and hides
    none."""
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
    """Return True if the URL names a private host, decided without a look-up: an address in any spelling, a name
    without a dot, or a name of private networks.

    For pages that another service fetches and resolves. Always False with MILLRACE_FETCH_PRIVATE.
    """
    if get_settings().fetch_private:
        return False
    host = _host_as_browsers_read(url)
    try:
        return not is_public(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return not is_public(ipaddress.IPv4Address(socket.inet_aton(host)))  # 127.1, 0x7f000001
    except (OSError, UnicodeError, ValueError):
        return "." not in host or f".{host}".endswith(_PRIVATE_NAMES)


def _host_as_browsers_read(url: str) -> str:
    """Return the host by the rules of WHATWG, by which the other service reads the URL; Python's are narrower.

    `http:\\\\127.0.0.1`, `http:127.0.0.1`, `http://%31%32%37.0.0.1` and `http://１２７。0.0.1` are the loopback there.
    """
    text = re.sub(r"[\t\r\n]", "", url.strip(_BLANKS)).replace("\\", "/")
    rest = re.sub(r"^[a-zA-Z][a-zA-Z0-9+.-]*:/*", "", text)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    name = authority[1:].partition("]")[0] if authority.startswith("[") else authority.rpartition(":")[0] or authority
    return unicodedata.normalize("NFKC", unquote(name)).replace("\u3002", ".").lower().strip().rstrip(".")


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of the host by this machine's resolver. Raises socket.gaierror, UnicodeError."""
    results = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in results]


async def resolve(host: str, port: int, *, private: bool | None = None) -> str:
    """Return one checked address of the host; connect to it directly, since a second look-up could differ.

    With `private` any address is allowed; None uses MILLRACE_FETCH_PRIVATE.

    Raises Rejected if the host is unknown or one of its addresses is not public, Unavailable if the resolver fails.
    """
    return (await addresses(host, port, private=private))[0]


async def addresses(
    host: str, port: int, *, private: bool | None = None, resolver: Resolver | None = None
) -> list[str]:
    """Return all addresses in the resolver's order, each once. Raises like resolve()."""
    try:
        texts = await (resolver or look_up)(host, port)
        result = [ipaddress.ip_address(text.partition("%")[0]) for text in dict.fromkeys(texts)]
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Unavailable(f"the name {host} cannot be resolved now") from error
        raise UnknownHost(f"host {host} does not exist") from error
    except ValueError as error:
        raise UnknownHost(f"{host!r} is not a valid host name") from error
    if not result:
        raise UnknownHost(f"host {host} does not exist")
    if not (get_settings().fetch_private if private is None else private):
        for address in result:
            if not is_public(address):
                raise Rejected(f"{host} is at {address}, which is not on the public internet", code="private_address")
    return [str(address) for address in result]
