"""Addresses of callers as keys of counters."""

from __future__ import annotations

import ipaddress

MAX_CHARACTERS = 64


def network_of(address: str) -> str:
    """Return the network that one caller has: an IPv4 address, or the /64 of an IPv6 address.

    A caller with IPv6 has 2**64 addresses. Other text, as a proxy may send it, is cut.
    """
    try:
        host = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:MAX_CHARACTERS]
    if isinstance(host, ipaddress.IPv4Address):
        return str(host)
    if host.ipv4_mapped is not None:
        return str(host.ipv4_mapped)
    return str(ipaddress.ip_network((host, 64), strict=False))
