"""Capabilities of root, as this process holds them and as it gives them up."""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Collection

from app.core.process import libc, prctl

CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SYS_ADMIN = 0, 1, 3, 5, 6, 7, 21
# With one of these, root in an open sandbox could read the memory of other processes or raise its hard limits.
DANGEROUS = frozenset({16, 17, 19, 20, 21, 22, 24, 38, 39, 40})
_PR_CAPBSET_DROP = 24
_VERSION_3 = 0x20080522
_LAST = 63


def held() -> frozenset[int]:
    """Return the effective capabilities of this process; empty outside Linux."""
    if sys.platform != "linux":
        return frozenset()
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            mask = next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
    except OSError:
        return frozenset()
    return frozenset(number for number in range(_LAST + 1) if mask >> number & 1)


def drop(numbers: Collection[int] | None = None) -> None:
    """Give up these capabilities for good, also for programs this process starts; None gives up all."""
    keep = held() - frozenset(numbers) if numbers is not None else frozenset()
    for number in range(_LAST + 1) if numbers is None else numbers:
        prctl(_PR_CAPBSET_DROP, number)
    mask = sum(1 << number for number in keep)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    if libc().capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
