"""The address of Redis: one server by its URL, plain or with TLS, or the master that its sentinels name.

redis://[user:password@]host:port/db        rediss://… with TLS
redis+sentinel://[user:password@]host:port,host:port/service[/db]        rediss+sentinel://… with TLS to all of them

A query adds ssl_ca_certs, ssl_certfile and ssl_keyfile (paths), ssl_cert_reqs (required, optional, none) and
ssl_check_hostname; for sentinels also sentinel_username and sentinel_password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from app.core.errors import ConfigError

EXAMPLE = "redis://127.0.0.1:6379/0"
SENTINEL_PORT = 26379
# A TLS handshake takes two or three round trips more than a connect.
TLS_CONNECT_TIMEOUT_S = 0.5
# An unreachable sentinel must not delay asking the others.
SENTINEL_TIMEOUTS = {"socket_connect_timeout": 0.2, "socket_timeout": 0.5}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS = (*_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The sentinels of one service, with the options for them and for the master."""

    hosts: list[tuple[str, int]]
    service: str
    master: dict[str, Any]
    sentinel: dict[str, Any] = field(default_factory=dict)


def client(url: str, **options: Any) -> redis.Redis:
    """Return a client for threads. Raises ConfigError for an invalid URL."""
    options = _patient(url, options)
    sentinels_ = sentinels(url)
    if sentinels_ is None:
        made: redis.Redis = _of_url(redis.Redis, url, options)
        return made
    master: redis.Redis = _master(redis.sentinel.Sentinel, sentinels_, options)
    return master


def async_client(url: str, **options: Any) -> redis.asyncio.Redis:
    """Return a client for the event loop, like client()."""
    options = _patient(url, options)
    sentinels_ = sentinels(url)
    if sentinels_ is None:
        made: redis.asyncio.Redis = _of_url(redis.asyncio.Redis, url, options)
        return made
    master: redis.asyncio.Redis = _master(redis.asyncio.sentinel.Sentinel, sentinels_, options)
    return master


def sentinels(url: str) -> Sentinels | None:
    """Return the sentinels in the URL; None if it names a server. Raises ConfigError for an invalid URL."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _no_url() from error
    query = dict(parse_qsl(parts.query))
    _check_files(query)
    if not parts.scheme.endswith("+sentinel"):
        return None
    names, _, hosts = parts.netloc.rpartition("@")
    service, *rest = parts.path.strip("/").split("/")
    if parts.scheme not in ("redis+sentinel", "rediss+sentinel") or not service or len(rest) > 1:
        raise _no_url()
    unknown = set(query) - {*_TLS_OPTIONS, *_SENTINEL_OPTIONS}
    if unknown:
        raise ConfigError(f"MILLRACE_REDIS_URL: unknown option {sorted(unknown)[0]!r}")
    tls: dict[str, Any] = {name: query[name] for name in _TLS_OPTIONS if name in query}
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = tls["ssl_check_hostname"].lower() in ("1", "true", "yes")
    if parts.scheme == "rediss+sentinel":
        tls["ssl"] = True
    user, _, password = names.partition(":")
    try:
        master = {"db": int(rest[0]) if rest else 0, "username": unquote(user) or None, **tls}
        addresses = [_address(host) for host in hosts.split(",")]
    except ValueError as error:
        raise _no_url() from error
    master["password"] = unquote(password) or None
    asked = {name.removeprefix("sentinel_"): query[name] for name in _SENTINEL_OPTIONS if name in query}
    return Sentinels(addresses, unquote(service), master, asked | tls)


def _master(kind: Any, service: Sentinels, options: dict[str, Any]) -> Any:
    """Return a client that asks the sentinels for the master at each new connection."""
    known = kind(service.hosts, sentinel_kwargs=service.sentinel | SENTINEL_TIMEOUTS)
    return known.master_for(service.service, **(options | service.master))


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(text)
    return parts.hostname, parts.port or SENTINEL_PORT


def _of_url(kind: Any, url: str, options: dict[str, Any]) -> Any:
    try:
        return kind.from_url(url, **options)
    except ValueError as error:
        raise _no_url() from error


def _patient(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Add time for a TLS handshake where there is one."""
    if not url.startswith("rediss") or options.get("socket_connect_timeout") is None:
        return options
    return options | {"socket_connect_timeout": max(options["socket_connect_timeout"], TLS_CONNECT_TIMEOUT_S)}


def _check_files(query: dict[str, str]) -> None:
    for name in _FILES:
        if name in query and not Path(query[name]).is_file():
            raise ConfigError(f"MILLRACE_REDIS_URL: {name}: file {query[name]} does not exist")


def _no_url() -> ConfigError:
    return ConfigError(f"MILLRACE_REDIS_URL is not a Redis URL (example: {EXAMPLE})")
