"""Cache of robots.txt files: compressed, in Redis for all workers, in this process for large ones and without Redis.

Crawled sites choose the size of their files, so both places have a bound.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from app.core import clock, redis
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger

T = TypeVar("T")

SCRIPT = Path(__file__).with_name("robots_store.lua")
# In Redis: 32 MiB at most. A usual file takes 1 to 5 KiB.
MAX_SITES = 1000
MAX_VALUE_CHARACTERS = 32 * 1024
# In a process.
MAX_HELD_BYTES = 8 * 1024 * 1024
MAX_PARSED_BYTES = 4 * 1024 * 1024

log = get_logger(__name__)


class BoundedCache(Generic[T]):
    """Values by key, up to a sum of their sizes; the least recently stored are dropped first. Safe for threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[float, int, T]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        return self._size

    def get(self, key: str) -> T | None:
        with self._lock:
            due, _, value = self._entries.get(key, (0.0, 0, None))
            return value if due > clock.monotonic() else None

    def put(self, key: str, value: T, size: int, seconds: float) -> None:
        """Hold the value for so many seconds; a value larger than the cache is not held."""
        with self._lock:
            _, old, _ = self._entries.pop(key, (0.0, 0, None))
            self._size -= old
            if size > self._max_bytes:
                return
            self._entries[key] = (clock.monotonic() + seconds, size, value)
            self._size += size
            while self._size > self._max_bytes:
                _, (_, dropped, _) = self._entries.popitem(last=False)
                self._size -= dropped


_held: BoundedCache[bytes] = BoundedCache(MAX_HELD_BYTES)
_parsed: BoundedCache[Any] = BoundedCache(MAX_PARSED_BYTES)


def read(origin: str) -> str | None:
    """Return the stored value of the origin; None without one."""
    try:
        packed = redis.push().call(lambda client: client.get(_name(origin)))
    except (Unavailable, ConfigError):
        packed = None
    if isinstance(packed, str):
        try:
            return zlib.decompress(base64.b64decode(packed, validate=True)).decode()
        except (binascii.Error, ValueError, zlib.error):
            return None  # of another version
    held = _held.get(origin)
    return None if held is None else zlib.decompress(held).decode()


def store(origin: str, value: str, seconds: int) -> None:
    """Store the value for so many seconds: for all workers, or for this process alone if it is large."""
    packed = zlib.compress(value.encode("utf-8", "replace"))
    text = base64.b64encode(packed).decode("ascii")
    if len(text) <= MAX_VALUE_CHARACTERS:
        try:
            args = [_name(origin), text, seconds, redis.ROBOTS_INDEX, MAX_SITES]
            redis.push().script(SCRIPT, args)
            return
        except (Unavailable, ConfigError) as error:
            log.info("robots_kept_alone", origin=origin, reason=error.message)
    _held.put(origin, packed, len(packed), seconds)


def parsed(text: str, parse: Callable[[str], T], seconds: float) -> T:
    """Return parse(text), from memory if it was parsed before."""
    key = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    rules: T | None = _parsed.get(key)
    if rules is None:
        rules = parse(text)
        _parsed.put(key, rules, len(text) + 1000, seconds)
    return rules


def _name(origin: str) -> str:
    """Return the key of the origin; another one than that of earlier versions, which would misread the value."""
    return redis.ROBOTS.format(hashlib.sha256(f"zlib {origin}".encode("utf-8", "replace")).hexdigest()[:32])
