"""Landlock: this process and its descendants reach no file but those listed, and no process outside."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.core.process import libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = 1, 2, 4, 8, 16, 32
MAKE_DIR, MAKE_REG, MAKE_BLOCK, REFER, TRUNCATE, IOCTL_DEV = 1 << 7, 1 << 8, 1 << 11, 1 << 13, 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
# No links, sockets, pipes or devices: whatever the host opens in such a folder is a plain file.
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | TRUNCATE
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_ALL_OF_VERSION_1 = (1 << 13) - 1
_SCOPE_ABSTRACT_SOCKET, _SCOPE_SIGNAL = 1, 2


def version() -> int:
    """Return the version of Landlock's interface; 0 where the kernel has none, has it switched off or forbids it."""
    if sys.platform != "linux":
        return 0
    return max(0, int(libc().syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)))


def confine_files(rights: Iterable[tuple[Path, int]]) -> bool:
    """Allow these rights below these paths and nothing elsewhere; also cut off other processes. False: not possible.

    Needs no_new_privs or CAP_SYS_ADMIN. Paths that do not exist are left out.
    """
    here = version()
    handled = _ALL_OF_VERSION_1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        handled |= right if here >= since else 0
    ruleset = _create(here, handled, _SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL)
    if ruleset < 0:
        return False
    try:
        for path, allowed in rights:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _add(ruleset, path, allowed & handled)
        return bool(libc().syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def confine_to_own_processes() -> bool:
    """Cut this process off from the memory of processes outside, on newer kernels also from signalling them.

    Its files stay as they are. Return False if that is not possible.
    """
    here = version()
    # Before version 6 a domain needs a right to handle: making block devices, which no job does.
    ruleset = _create(here, 0 if here >= 6 else MAKE_BLOCK, _SCOPE_SIGNAL)
    if ruleset < 0:
        return False
    try:
        return bool(libc().syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _create(here: int, handled: int, scoped: int) -> int:
    if here == 0:
        return -1
    fields = [handled, 0, scoped] if here >= 6 else [handled]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    return int(libc().syscall(_CREATE_RULESET, attributes, len(attributes), 0))


def _add(ruleset: int, path: Path, allowed: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            allowed &= _OF_FILES
        rule = struct.pack("=Qi", allowed, descriptor)
        if allowed and libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_add_rule", str(path))
    finally:
        os.close(descriptor)
