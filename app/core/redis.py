"""Redis: three kinds of client and no more, and the list of every key.

Keys that live: mr:q:*, Dramatiq's own layout (list, bodies, ack sets) and next to each list the messages fetched early
(.early, .turn). All others expire:

mr:wake:{queue}   list    one element a push, read by BLPOP; wakes an idle worker        60 s
mr:wake:relay     list    wakes a relay                                                  60 s
mr:window         hash    queue -> how many ids its window may hold                       60 s
mr:epoch          string  which life of Redis this is; missing or other = empty window    1 day
mr:seq:{job}      string  the number of a job's last event                               1 day, 1 h after the end
mr:ev:{job}       stream  a job's last 200 events                                        1 day, 1 h after the end
mr:ev:t:{tenant}  stream  a tenant's last 10,000 events                                  1 day
mr:rl:{bucket}    string  requests of a key at a route in a window                       the window and 1 s
mr:rate:{key}     string  when the next call to an outside service is due                   until then
mr:host:{host}    hash    whose turn it is at a host, and the line behind                until its last turn and 1 s
mr:robots:{origin} string a site's robots.txt, compressed, up to 32 KiB                    1 h
mr:robots         zset    the keys of up to 1,000 sites, by their end                        1 day
mr:quarantine     list    messages that cannot be decoded                                   7 days
mr:probe          string  written by health checks                                          60 s

Channels: mr:e:{job} (its events), mr:e:t:{tenant} (all of its jobs', each after its place in the stream), mr:cancel
(ids of jobs to stop), mr:orders (ids of workers to look at their row).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import redis
import redis.asyncio
import redis.client
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
from redis.retry import Retry

from app.core import clock, redis_url
from app.core.errors import ConfigError, RedisUnavailable
from app.core.settings import get_settings

T = TypeVar("T")

NAMESPACE = "mr:q"
WAKE = "mr:wake:{}"
WAKE_RELAY = "mr:wake:relay"
WINDOW = "mr:window"
EPOCH = "mr:epoch"
SEQUENCE = "mr:seq:{}"
EVENTS = "mr:ev:{}"
TENANT_EVENTS = "mr:ev:t:{}"
RATE = "mr:rl:{}"
QUARANTINE = "mr:quarantine"
PROBE = "mr:probe"
CALL_RATE = "mr:rate:{}"
HOST_TURN = "mr:host:{}"
ROBOTS = "mr:robots:{}"
ROBOTS_INDEX = "mr:robots"
CHANNEL = "mr:e:{}"
NOTICES_CHANNEL = CHANNEL.format("notices")
CANCEL_CHANNEL = "mr:cancel"
ORDERS_CHANNEL = "mr:orders"

PROBE_TTL_S = 60
CONNECT_TIMEOUT_S = 0.05
ANSWER_TIMEOUT_S = 2.0
CIRCUIT_OPEN_S = 1.0
# A blocking read may take its own timeout plus this long before the connection counts as lost.
BLOCK_MARGIN_S = 2.0


class Push:
    """Short commands without retries; after a failure no command is sent for a second, so that callers do not queue up.

    redis-py's own defaults cost 4 s on a refused connection (measured).
    """

    def __init__(self, url: str) -> None:
        self.client: redis.Redis = _from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=ANSWER_TIMEOUT_S
        )
        self._open_until = 0.0
        self._scripts: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Return True if Redis failed less than a second ago."""
        return clock.monotonic() < self._open_until

    def give_up(self) -> None:
        """Stop sending commands: this process has no Redis, and work stays in SQL."""
        self._open_until = float("inf")

    def call(self, command: Callable[[redis.Redis], T]) -> T:
        """Return the command's result. Raises Unavailable at once while the circuit is open."""
        if self.is_open:
            raise RedisUnavailable("Redis failed less than a second ago", retry_after_s=1)
        try:
            return command(self.client)
        except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
            raise ConfigError(f"MILLRACE_REDIS_URL: Redis refuses access: {error}") from error
        except RedisError as error:
            if str(error).startswith(("NOAUTH", "WRONGPASS")) or "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise ConfigError(f"MILLRACE_REDIS_URL: Redis refuses access: {error}") from error
            self._open_until = clock.monotonic() + CIRCUIT_OPEN_S
            raise RedisUnavailable(f"Redis: {error}", retry_after_s=1) from error

    def refusal(self) -> str | None:
        """Write a key and return why Redis refuses; None if it was written.

        Redis also answers while it takes no writes: out of memory, a replica after a fail-over, a full disk. The text
        holds no address.
        """
        try:
            self.client.set(PROBE, 1, ex=PROBE_TTL_S)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            return "not reachable"
        except RedisError as error:
            return f"refuses writes: {error}"
        return None

    def script(self, path: Path, args: list[Any]) -> Any:
        """Run the Lua script in this file; it is loaded once, by its digest."""
        with self._lock:
            script = self._scripts.get(path.name)
            if script is None:
                script = self._scripts[path.name] = self.client.register_script(path.read_text())
        return self.call(lambda client: script(args=args, client=client))


@lru_cache(maxsize=1)
def push() -> Push:
    return Push(get_settings().redis_url.get_secret_value())


def blocking(timeout_s: float) -> redis.Redis:
    """Return a client for blocking reads of up to timeout_s."""
    url = get_settings().redis_url.get_secret_value()
    return _from_url(url, socket_connect_timeout=1.0, socket_timeout=timeout_s + BLOCK_MARGIN_S)


def subscription() -> redis.client.PubSub:
    """Return a subscription for one thread; its owner reconnects."""
    url = get_settings().redis_url.get_secret_value()
    client = _from_url(url, socket_connect_timeout=1.0, socket_timeout=None, health_check_interval=10)
    return redis.client.PubSub(client.connection_pool, ignore_subscribe_messages=True)


def async_client() -> redis.asyncio.Redis:
    """Return a client for the event loop."""
    return _async_from_url("millrace-events", socket_connect_timeout=1.0, socket_timeout=None)


def async_push() -> redis.asyncio.Redis:
    """Return a client for short commands on the event loop; callers continue without an answer if it takes long."""
    return _async_from_url("millrace-limits", socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=ANSWER_TIMEOUT_S)


def ping() -> None:
    """Raises Unavailable if Redis does not answer, ConfigError if these settings can never work."""
    push().call(lambda client: client.ping())


def _from_url(url: str, **options: Any) -> redis.Redis:
    # Bytes that are not text pass unchanged: one broken message must not make a whole answer unreadable.
    text = {"decode_responses": True, "encoding_errors": "surrogateescape"}
    return redis_url.client(url, retry=Retry(NoBackoff(), 0), **text, **options)


def _async_from_url(name: str, **options: Any) -> redis.asyncio.Redis:
    return redis_url.async_client(
        get_settings().redis_url.get_secret_value(),
        decode_responses=True,
        encoding_errors="replace",
        client_name=name,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        **options,
    )
