"""Addresses that are never called for a caller: whatever is not out on the public internet."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from app.core.errors import Rejected, Unavailable
from app.core.settings import get_settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether the address is neither private, loopback, link-local, shared, multicast, reserved, nor hides one."""
    if isinstance(address, ipaddress.IPv6Address):
        hidden = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            hidden.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.is_site_local or any(inner is not None and not is_public(inner) for inner in hidden):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


async def resolve(host: str, port: int, *, private: bool | None = None) -> str:
    """One checked address of the host, to be connected to as it is: a second look-up could say something else.

    With `private` it may be anywhere; None leaves that to MILLRACE_FETCH_PRIVATE.

    Raises Rejected where the host is unknown or any of its addresses is not public, Unavailable where nobody knows now.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Unavailable(f"the name {host} cannot be resolved now") from error
        raise Rejected(f"there is no host {host}", code="unknown_host") from error
    except UnicodeError as error:
        raise Rejected(f"{host!r} is no name of a host", code="unknown_host") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not (get_settings().fetch_private if private is None else private):
        for address in addresses:
            if not is_public(address):
                raise Rejected(f"{host} is at {address}, which is not on the public internet", code="private_address")
    return str(addresses[0])
