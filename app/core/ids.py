"""Identifiers: UUIDv7, so that rows sort by creation time (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import datetime

_lock = threading.Lock()
_last = 0
_random = b""
# One system call for many ids: the call costs more than the rest of an id.
_POOL_BYTES = 4096

_DASHES = (8, 13, 18, 23)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


def uuid7() -> str:
    """Return an id that ascends strictly within a process: 48 bits of milliseconds, 12 of their fraction, 62 random."""
    global _last, _random
    with _lock:
        if len(_random) < 8:
            _random = os.urandom(_POOL_BYTES)
        drawn, _random = _random[-8:], _random[:-8]
        ticks = (time.time_ns() << 12) // 1_000_000
        _last = ticks = ticks if ticks > _last else _last + 1
    milliseconds, fraction = ticks >> 12, ticks & 0xFFF
    rest = int.from_bytes(drawn) & 0x3FFF_FFFF_FFFF_FFFF
    value = (milliseconds << 80) | (0x7 << 76) | (fraction << 64) | (0b10 << 62) | rest
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def first_uuid7(moment: datetime) -> str:
    """Return the lowest id that uuid7() may return at that time; all ids made earlier are lower."""
    digits = f"{(int(moment.timestamp() * 1000) << 80) | (0x7 << 76) | (0b10 << 62):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def is_uuid(text: str) -> bool:
    """Return True if the text is a UUID in its canonical lower-case form, like all our ids."""
    return _UUID.fullmatch(text) is not None


def _forget() -> None:
    global _random
    _random = b""


# After a fork, two children must not use the same random bytes.
os.register_at_fork(after_in_child=_forget)


def is_id_prefix(text: str) -> bool:
    """Return True if an id may begin with the text."""
    return (
        bool(text)
        and all(letter in ("-" if place in _DASHES else "0123456789abcdef") for place, letter in enumerate(text[:36]))
        and len(text) <= 36
    )


def prefix_range(prefix: str) -> tuple[str, str]:
    """Return the lowest and the highest id that begins with the prefix."""
    low, high = (prefix + pattern[len(prefix) :] for pattern in ("0" * 36, "f" * 36))
    return _with_dashes(low), _with_dashes(high)


def _with_dashes(text: str) -> str:
    return "".join("-" if place in _DASHES else letter for place, letter in enumerate(text))
