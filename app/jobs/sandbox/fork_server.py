"""Fork server of the sandboxes: one thread, warm modules, a new sandbox for each order it receives.

An order is JSON of ORDER_BYTES, `{"access", "module"}`, with two or three descriptors: the sandbox's channel, a leash
that the server keeps, and for a closed sandbox the pipe for its output. The server imports the module of a closed
sandbox, which serves one call only, so that the next one finds it imported. Over the leash
the server sends the sandbox's pid and, after its death, its exit code (negative: the signal), both as eight bytes. The
host closes the leash (or dies) to end the sandbox. Only then does the server kill its group and reap it, so the pid
that the host knows is not reused before. Descendants that left the group are adopted and killed, too.

EOF on the control socket, or another parent than the host, ends the server and every sandbox.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from app.core.process import adopt_orphans, die_with_parent, name_process
from app.jobs.sandbox import box
from app.jobs.sandbox.child import serve_calls, serve_one_call, set_up_logging

ORDER_BYTES = 512
NUMBER = struct.Struct("!q")


@dataclass
class _Child:
    leash: socket.socket | None
    exit_code: int | None = None


class ForkServer:
    """The server's loop: orders from the host, and deaths of sandboxes."""

    def __init__(self, control: socket.socket, host: int) -> None:
        self._control = control
        self._host = host
        self._children: dict[int, _Child] = {}
        self._by_leash: dict[int, int] = {}
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def serve(self) -> None:
        """Serve until the host is gone; afterwards no sandbox lives."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # A handler, not SIG_IGN: programs that a sandbox starts would inherit that.
            signal.signal(number, lambda *_: None)
        has_death_signal = die_with_parent(signal.SIGTERM)
        adopt_orphans()
        try:
            while os.getppid() == self._host and self._run_turn(None if has_death_signal else 1000):
                pass
        finally:
            self._end_all()

    def _run_turn(self, timeout_ms: int | None) -> bool:
        for descriptor, _ in self._poll.poll(timeout_ms):
            if descriptor == self._control.fileno():
                if not self._take_order():
                    return False
            elif descriptor == self._woken.fileno():
                with suppress(BlockingIOError):
                    while self._woken.recv(512):
                        pass
                self._reap()
            else:
                self._release(self._by_leash.pop(descriptor))
        return True

    def _take_order(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, ORDER_BYTES, 3)
        if not message:
            return False
        order = json.loads(message)
        if len(descriptors) == (3 if order["access"] == "closed" else 2):
            if order["access"] == "closed":
                _import(order["module"])
            self._fork(*descriptors)
        else:  # the descriptor table is full: the host sees the leash close
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, channel: int, leash_end: int, output: int | None = None) -> None:
        leash = socket.socket(fileno=leash_end)
        try:
            pid = os.fork()
        except OSError as error:
            sys.stderr.write(f"millrace: no sandbox could be forked: {error}\n")
            pid = -1
        if pid == 0:
            leash.close()
            self._become_sandbox(socket.socket(fileno=channel), output)
        os.close(channel)
        if output is not None:
            os.close(output)
        if pid < 0:
            leash.close()
            return
        with suppress(OSError):  # the child has already made the group
            os.setpgid(pid, pid)
        leash.setblocking(False)
        self._children[pid] = _Child(leash)
        self._by_leash[leash.fileno()] = pid
        self._poll.register(leash, select.POLLIN)
        _send_number(leash, pid)

    def _become_sandbox(self, channel: socket.socket, output: int | None) -> NoReturn:
        exit_code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for child in self._children.values():
                if child.leash is not None:
                    child.leash.close()
            for end in (self._control, self._wake, self._woken):
                end.close()
            if output is None:
                serve_calls(channel)
            else:
                serve_one_call(channel, output)
            exit_code = 0
        except BaseException:  # noqa: BLE001 - an exception must not continue the server's loop in a second process
            traceback.print_exc()
        finally:
            os._exit(exit_code)

    def _release(self, pid: int) -> None:
        child = self._children[pid]
        assert child.leash is not None
        self._poll.unregister(child.leash)
        child.leash.close()
        child.leash = None
        _kill_group(pid)
        if child.exit_code is not None:
            self._forget(pid)

    def _reap(self) -> None:
        dead = []
        for pid, child in self._children.items():
            if child.exit_code is None:
                child.exit_code = _exit_code(pid)
                if child.exit_code is not None:
                    _kill_group(pid)
                    dead.append(pid)
        for pid in self._orphans():
            _kill(pid)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        for pid in dead:
            child = self._children[pid]
            if child.leash is None:
                self._forget(pid)
            else:
                _send_number(child.leash, child.exit_code or 0)

    def _forget(self, pid: int) -> None:
        del self._children[pid]
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def _end_all(self) -> None:
        """Kill all sandboxes and wait for each death; descendants of the dead become ours, and are killed next."""
        dying = list(self._children)
        for pid in dying:
            _kill_group(pid)
        self._children.clear()
        while dying:
            for pid in dying:
                _kill(pid)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)
            dying = list(self._orphans())

    def _orphans(self) -> Iterator[int]:
        """Yield our children that are no sandboxes: descendants of dead ones, since live sandboxes adopt theirs."""
        own = os.getpid()
        for name in os.listdir("/proc") if sys.platform == "linux" else ():
            if not name.isdigit():
                continue
            with suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as stat:
                parent = int(stat.read().rpartition(b")")[2].split()[1])
                if parent == own and int(name) not in self._children:
                    yield int(name)


def _exit_code(pid: int) -> int | None:
    """Return the child's exit code, None while it lives. It stays a zombie (not on macOS), so its pid is not reused."""
    if not hasattr(os, "waitid"):
        ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None
    result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def _send_number(leash: socket.socket, number: int) -> None:
    with suppress(OSError):  # the host has closed the leash
        leash.send(NUMBER.pack(number))


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses to signal a group of zombies
        os.killpg(pid, signal.SIGKILL)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _import(module: str) -> None:
    if module in sys.modules:
        return
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  the call that needs it raises the same error
        sys.stderr.write(f"millrace: sandboxes could not preload {module}: {error}\n")
    _freeze()


def _freeze() -> None:
    """Set up logging for all sandboxes, and keep the collector from writing to memory that they share."""
    set_up_logging(closed=True)
    box.program_folders()
    gc.collect()
    gc.freeze()


def main(boot: dict[str, Any]) -> None:
    """`boot`: control (a descriptor), host (its pid), preload (module names)."""
    os.dup2(2, 1)
    name_process("mr-sandboxes")
    for module in boot["preload"]:
        _import(module)
    _freeze()
    ForkServer(socket.socket(fileno=boot["control"]), boot["host"]).serve()
