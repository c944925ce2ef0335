"""Programs that a parser may start: tesseract, by a helper process made before the sandbox was closed.

A closed sandbox can start nothing. If its call names programs, it forks a helper first, which closes itself, too, and
then starts a named program when the parser asks for it, one at a time. A program that runs cannot start another
process. Outside of a sandbox, programs are started directly.

    ended = programs.run("tesseract", ["stdin", "stdout"], data=png, timeout_s=60)
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from app.jobs.sandbox import seccomp

_LENGTHS = struct.Struct("!QQ")
_ENVIRONMENT = ("PATH", "LANG", "TZ", "TMPDIR", "TESSDATA_PREFIX")


class EndedProgram(NamedTuple):
    returncode: int
    stdout: bytes
    stderr: bytes


def is_installed(name: str) -> bool:
    return shutil.which(name) is not None


def run(name: str, arguments: Sequence[str], *, data: bytes = b"", timeout_s: float) -> EndedProgram:
    """Run the program with `data` as its input. Raises TimeoutError, and OSError if it cannot be started."""
    if _helper is None:
        return _run(name, arguments, data, timeout_s, None)
    header = json.dumps({"name": name, "arguments": list(arguments), "timeout_s": timeout_s}).encode()
    _send(_helper, header, data)
    answer, output = _receive(_helper)
    fields: dict[str, Any] = json.loads(answer)
    if "error" in fields:
        raise (TimeoutError if fields["error"] == "timeout" else OSError)(fields["message"])
    return EndedProgram(fields["returncode"], output[: fields["stdout"]], output[fields["stdout"] :])


_helper: socket.socket | None = None


def fork_helper(names: Sequence[str], close: Callable[[], None], keep: Sequence[int]) -> None:
    """Fork the helper if one of the programs is installed. `close` closes it; `keep` are its descriptors to close."""
    global _helper
    allowed = frozenset(filter(is_installed, names))
    if not allowed:
        return
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            for descriptor in keep:
                os.close(descriptor)
            close()
            _serve(theirs, allowed)
        finally:
            os._exit(1)
    theirs.close()
    _helper = ours


def _serve(channel: socket.socket, allowed: frozenset[str]) -> None:
    while True:
        try:
            header, data = _receive(channel)
        except EOFError:
            os._exit(0)
        request = json.loads(header)
        name = str(request["name"])
        try:
            if name not in allowed:
                raise PermissionError(f"{name} may not be started in this sandbox")
            ended = _run(name, list(map(str, request["arguments"])), data, float(request["timeout_s"]), _become_program)
            fields = {"returncode": ended.returncode, "stdout": len(ended.stdout)}
            _send(channel, json.dumps(fields).encode(), ended.stdout + ended.stderr)
        except TimeoutError as error:
            _send(channel, json.dumps({"error": "timeout", "message": str(error)}).encode(), b"")
        except (OSError, MemoryError) as error:
            _send(channel, json.dumps({"error": "os", "message": str(error)}).encode(), b"")


def _become_program() -> None:
    """Deny forks to the program that is about to be started."""
    if seccomp.is_known_machine():
        seccomp.deny(may_exec=True)


def _run(
    name: str, arguments: Sequence[str], data: bytes, timeout_s: float, before: Callable[[], None] | None
) -> EndedProgram:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {"OMP_THREAD_LIMIT": "1"}
    try:
        ended = subprocess.run(
            [shutil.which(name) or name, *arguments],
            input=data,
            capture_output=True,
            check=False,
            timeout=timeout_s,
            env=environment,
            preexec_fn=before,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{name} took longer than {timeout_s:g} s") from error
    except subprocess.SubprocessError as error:  # the filter could not be set
        raise OSError(f"{name} could not be started: {error}") from error
    return EndedProgram(ended.returncode, ended.stdout, ended.stderr)


def _send(channel: socket.socket, header: bytes, data: bytes) -> None:
    channel.sendall(_LENGTHS.pack(len(header), len(data)) + header)
    channel.sendall(data)


def _receive(channel: socket.socket) -> tuple[bytes, bytes]:
    header, data = _LENGTHS.unpack(_receive_exactly(channel, _LENGTHS.size))
    return _receive_exactly(channel, header), _receive_exactly(channel, data)


def _receive_exactly(channel: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = channel.recv(min(size, 1024 * 1024))
        if not part:
            raise EOFError("the other end has closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
