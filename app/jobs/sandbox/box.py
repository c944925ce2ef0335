"""The two sandboxes: a closed one for parsers of foreign bytes, and an open one for functions of your own kinds.

Both lose the way into other processes: no ptrace, no /proc/PID/environ, no signals where the kernel can tell. Limits
are hard, so that code in the sandbox cannot raise them.

The closed one also loses the network, other programs and processes, and every file but those that Python reads and the
folder of its call. It serves one call, as another user if the host is root. Each layer is taken if the kernel offers
it; `layers` reports which hold.
"""

from __future__ import annotations

import math
import mimetypes
import os
import resource
import signal
import site
import stat
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal

import app
from app.core.process import die_with_parent, prctl
from app.jobs.sandbox import capabilities, landlock, seccomp

Access = Literal["closed", "open"]

MIB = 1024 * 1024
MAX_OPEN_FILES = 256
# Text of 50 million characters, the most that a document may have, needs up to 200 MB.
MIN_FILE_BYTES = 256 * MIB
MAX_TASKS = 64
# Growth that a reused open sandbox may have kept from its earlier calls.
MAX_GROWTH_BYTES = 64 * MIB

_PR_SET_NO_NEW_PRIVS = 38
# The range that systemd sets aside for users without a name; inside every usual map of a container.
_FIRST_UID, _UIDS = 61184, 4336
_NEEDED_OF_ROOT = {
    capabilities.CHOWN, capabilities.DAC_OVERRIDE, capabilities.FOWNER, capabilities.KILL, capabilities.SETGID,
    capabilities.SETUID,
}  # fmt: skip
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/nix/store")
_SYSTEM_FILES = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/fonts", "/etc/alternatives",
    "/dev/urandom", "/dev/random", "/dev/zero", "/sys/devices/system/cpu/online", *mimetypes.knownfiles,
)  # fmt: skip


def uid_of(pid: int) -> int:
    """Return the user of the sandbox with this pid, where sandboxes have their own."""
    return _FIRST_UID + pid % _UIDS


def give_folder(folder: Path, pid: int) -> int | None:
    """Give the folder and its files to the user of this sandbox, and return that user; None if it stays ours.

    Sandboxes get their own user if this process is root with the usual capabilities, and if other users can read the
    program and reach the folder.
    """
    if not _can_have_own_user() or not _is_open_to_others(folder.parent, stat.S_IXOTH):
        return None
    uid = uid_of(pid)
    try:
        os.chown(folder, uid, uid)
        with os.scandir(folder) as entries:
            for entry in entries:
                os.chown(entry.path, uid, uid, follow_symlinks=False)
    except OSError:  # a container that does not map this user
        return None
    return uid


def own_user(pid: int) -> int | None:
    """Return the user for a sandbox without a folder."""
    return uid_of(pid) if _can_have_own_user() else None


@lru_cache(maxsize=1)
def _can_have_own_user() -> bool:
    return (
        hasattr(os, "geteuid")
        and os.geteuid() == 0
        and capabilities.held() >= _NEEDED_OF_ROOT
        and all(_is_open_to_others(path, stat.S_IROTH | stat.S_IXOTH) for path in program_folders() if path.exists())
    )


def _is_open_to_others(path: Path, mode: int) -> bool:
    """Return True if any user may pass all folders above the path and has these rights on it."""
    try:
        path = path.resolve()
        passes = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
        return passes and path.stat().st_mode & mode == mode
    except OSError:
        return False


@lru_cache(maxsize=1)
def program_folders() -> list[Path]:
    """Return the folders with this program, its libraries and Python; the fork server finds them once for all."""
    paths = [Path(app.__file__).parent, *map(Path, site.getsitepackages())]
    # Not the whole path: the working directory may hold the data.
    paths += [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths += [Path(sysconfig.get_path(name)) for name in names]
    paths += [Path(sys.base_prefix) / "lib", Path(sys.base_exec_prefix) / "lib"]
    return list(dict.fromkeys(path.resolve() for path in paths))


def readable_paths(module: str = "") -> list[Path]:
    """Return the paths a closed sandbox may read: Python, this program, the system, the package of `module`."""
    paths = [*program_folders(), *map(Path, (*_SYSTEM, *_SYSTEM_FILES))]
    package = sys.modules.get(module.partition(".")[0])
    paths += [Path(folder) for folder in getattr(package, "__path__", ())]
    tesseract_data = os.environ.get("TESSDATA_PREFIX")
    return paths + ([Path(tesseract_data)] if tesseract_data else [])


def _rights(module: str, folder: Path | None, *, programs: bool) -> Iterator[tuple[Path, int]]:
    for path in readable_paths(module):
        yield path, landlock.READ | (landlock.EXECUTE if programs else 0)
    yield Path(os.devnull), landlock.READ | landlock.WRITE_FILE
    if folder is not None:
        yield folder, landlock.WRITE


def close(
    *, module: str, folder: Path | None, uid: int | None, memory_bytes: int | None, cpu_s: float | None,
    file_bytes: int, programs: bool = False,
) -> None:  # fmt: skip
    """Close this process for good. Its imports are done; from here on it may read foreign bytes.

    `memory_bytes` and `cpu_s` are what it may take in addition to what it has. `programs`: it may start other programs.
    """
    server = os.getppid()
    os.chdir(folder or "/")
    if folder is not None:
        os.environ["TMPDIR"] = os.environ["HOME"] = str(folder)
    _limit_files(file_bytes)
    limit_cpu(cpu_s)
    limit_memory(memory_bytes)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    landlock.confine_files(_rights(module, folder, programs=programs))
    if uid is not None:
        _set_limit(resource.RLIMIT_NPROC, MAX_TASKS)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # The kernel forgets the death signal when the user changes.
        if die_with_parent(signal.SIGKILL) and os.getppid() != server:
            os._exit(1)
    elif capabilities.held():
        capabilities.drop()
    seccomp.deny(may_fork=programs, may_exec=programs)


def open_up() -> None:
    """Make this process an open sandbox: other processes are out of reach, files and network are not."""
    if capabilities.SYS_ADMIN not in capabilities.held():
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
    landlock.confine_to_own_processes()
    if capabilities.held() & capabilities.DANGEROUS:
        capabilities.drop(capabilities.DANGEROUS)
    _set_limit(resource.RLIMIT_CORE, 0)


def limit_memory(additional_bytes: int | None) -> None:
    """Set the hard limit of address space to that of now and this much more (Linux only)."""
    if additional_bytes is not None and sys.platform == "linux":
        _set_limit(resource.RLIMIT_AS, address_space_bytes() + additional_bytes)


def limit_cpu(additional_s: float | None) -> None:
    """End this process when it has used this much more processor time: first by SIGXCPU, a second later by SIGKILL."""
    if additional_s is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime + additional_s)
        _set_limit(resource.RLIMIT_CPU, soft, soft + 1)


def _limit_files(file_bytes: int) -> None:
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _set_limit(resource.RLIMIT_FSIZE, file_bytes)


def _set_limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Lower both limits; never raise one."""
    present = resource.getrlimit(kind)[1]
    ceiling = soft if hard is None else hard
    if present != resource.RLIM_INFINITY:
        ceiling = min(ceiling, present)
    with suppress(ValueError):  # macOS refuses some limits
        resource.setrlimit(kind, (min(soft, ceiling), ceiling))


def address_space_bytes() -> int:
    return memory_bytes()[0]


def memory_bytes() -> tuple[int, int]:
    """Return address space and resident memory of this process in bytes; zeros without /proc."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            pages = statm.read().split()
    except OSError:
        return 0, 0
    return int(pages[0]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize()
