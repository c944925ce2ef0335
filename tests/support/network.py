"""Tests may connect to the loopback only; any other connection raises an error."""

from __future__ import annotations

import ipaddress
import socket
import sys

LOCAL_NAMES = {None, "", "localhost", "localhost.localdomain", "ip6-localhost", socket.gethostname().lower()}


class NetworkClosed(RuntimeError):
    """A test tried to reach another machine."""


def _is_local(host: object) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if not isinstance(name, str) or name.lower().removesuffix(".") in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(name.split("%")[0]).is_loopback
    except ValueError:
        return False


def _is_address(host: object) -> bool:
    """Also one written as a number or a part of one, which no name server is asked for."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        try:
            socket.inet_aton(name.encode("idna").decode())
        except (OSError, UnicodeError):
            return False
    return True


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"}:
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            raise NetworkClosed(f"a test may not reach {address[0]}:{address[1]}")
    elif event == "socket.getaddrinfo" and not _is_local(arguments[0]) and not _is_address(arguments[0]):
        raise socket.gaierror(socket.EAI_NONAME, f"no name server in tests: {arguments[0]!r}")


def close_network() -> None:
    """For the rest of this process; an audit hook, since nothing of ours is patched and it cannot be undone."""
    sys.addaudithook(_watch)
