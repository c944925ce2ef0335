"""System calls that a closed sandbox may not make, as a seccomp filter in the kernel.

A denied call fails with EPERM; one that this table does not know fails with ENOSYS, and libraries then use an older
one. Threads may be started, processes may not.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator
from errno import ENOSYS, EPERM

from app.core.process import libc

# Name → number on x86_64 and on aarch64; None where the architecture has no such call.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # Network. The channel to the host is open already.
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # Other processes.
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "setsid": (112, 157), "setpgid": (109, 154),
    # Files outside the folder: links into it, and changes by path that need no open file.
    "symlink": (88, None), "symlinkat": (266, 36), "link": (86, None), "linkat": (265, 37), "mknod": (133, None),
    "mknodat": (259, 33), "truncate": (76, 45), "chmod": (90, None), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "utimensat": (280, 88), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429),
    "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "quotactl": (179, 60), "quotactl_fd": (443, 443), "acct": (163, 89),
    # Memory that the limit does not count, or that outlives the process.
    "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    # Large and rarely used parts of the kernel.
    "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "personality": (135, 92), "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58),
    "vmsplice": (278, 75), "remap_file_pages": (216, 234),
}  # fmt: skip
_FORKS = {"fork": (57, None), "vfork": (58, None)}
_EXECS = {"execve": (59, 221), "execveat": (322, 281)}
_CLONE, _CLONE3, _KILL, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (62, 129), (234, 131), (302, 261)
# Calls above this number are newer than the table.
_LAST_KNOWN = 456
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000

_LD_W_ABS, _JEQ, _JGT, _JGE, _JSET, _RET = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _TSYNC = 1, 1

_Line = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def is_known_machine() -> bool:
    return sys.platform == "linux" and sys.maxsize > 2**32 and platform.machine() in _ARCHITECTURES


def deny(*, may_fork: bool = False, may_exec: bool = False) -> bool:
    """Deny these calls to all threads of this process and to its descendants, for good.

    Return False if the kernel has no seccomp or the machine is not in the table. Needs no_new_privs or CAP_SYS_ADMIN.
    """
    machine = platform.machine()
    if not is_known_machine():
        return False
    lines = list(_lines(*_ARCHITECTURES[machine], may_fork, may_exec, os.getpid()))
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(lines), ctypes.addressof(buffer))
    return bool(libc().syscall(_SECCOMP[machine], _SET_MODE_FILTER, _TSYNC, ctypes.byref(program)) == 0)


def _lines(column: int, architecture: int, may_fork: bool, may_exec: bool, own_pid: int) -> Iterator[_Line]:
    """Yield the lines of the filter, each (code, jump if true, jump if false, value)."""
    refuse = (_RET, 0, 0, _ERRNO | EPERM)
    allow = (_RET, 0, 0, _ALLOW)
    unknown = (_RET, 0, 0, _ERRNO | ENOSYS)
    yield (_LD_W_ABS, 0, 0, _ARCHITECTURE_AT)
    yield (_JEQ, 1, 0, architecture)
    yield (_RET, 0, 0, _KILL_PROCESS)
    yield (_LD_W_ABS, 0, 0, _NUMBER_AT)
    yield (_JGE, 0, 1, _X32)
    yield unknown
    yield (_JGT, 0, 1, _LAST_KNOWN)
    yield unknown
    yield (_JEQ, 0, 1, _CLONE3[column])  # its flags lie in memory, where a filter cannot read them
    yield unknown
    denied = _NUMBERS | ({} if may_exec else _EXECS) | ({} if may_fork else _FORKS)
    if not may_fork:
        yield from _if_call(_CLONE[column], (_JSET, 1, 0, _CLONE_THREAD), refuse, allow)
        for call in (_KILL, _TGKILL):
            yield from _if_call(call[column], (_JEQ, 1, 0, own_pid), refuse, allow)
        # 0 is this process as well.
        yield (_JEQ, 0, 5, _PRLIMIT[column])
        yield (_LD_W_ABS, 0, 0, _ARGUMENTS_AT)
        yield (_JEQ, 2, 0, 0)
        yield (_JEQ, 1, 0, own_pid)
        yield refuse
        yield allow
    for numbers in denied.values():
        number = numbers[column]
        if number is not None:
            yield (_JEQ, 0, 1, number)
            yield refuse
    yield allow


def _if_call(number: int, condition: _Line, refuse: _Line, allow: _Line) -> Iterator[_Line]:
    """Yield lines that allow the call if its first argument meets the condition, and refuse it otherwise."""
    yield (_JEQ, 0, 4, number)
    yield (_LD_W_ABS, 0, 0, _ARGUMENTS_AT)
    yield condition
    yield refuse
    yield allow
