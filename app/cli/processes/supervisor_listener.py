"""Event listener of supervisord: start the programs when Redis answers, stop all when one cannot stay up.

supervisord reports state changes and output of the programs over stdin and stdout, so log lines go to stderr. The
process lives as long as the system, so it imports nothing heavy.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import xmlrpc.client
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supervisor.childutils import listener
from supervisor.xmlrpc import SupervisorTransport

from app.core.process import hide_memory

RETRY_PAUSE_S = 0.1
PING_TIMEOUT_S = 2.0
# A server may need long to read its append-only file. After this time the programs start and report it themselves.
MAX_REDIS_START_S = 120.0
MAX_LINE_LETTERS = 2000
NAME = "supervisor-listener"
# Start of the sentence with which each process of ours explains why it refuses to start.
REFUSAL_PREFIX = "millrace "
# Programs that do not log in our format.
FOREIGN_PROGRAMS = {"redis"}


def run(options: list[str]) -> int:
    """Listen until supervisord closes the pipe.

    Options: json|console, socket, redis.conf or -, fault file, programs.
    """
    hide_memory()
    style, rpc_socket, redis_conf, fault, *programs = options
    supervisor_listener = SupervisorListener(style, rpc_socket, Path(fault), programs)
    conf = None if redis_conf == "-" else Path(redis_conf)
    threading.Thread(target=supervisor_listener.start_programs, args=(conf,), name="starter", daemon=True).start()
    supervisor_listener.listen()
    return 0


class SupervisorListener:
    """The programs to start, and the last line of each."""

    def __init__(self, style: str, rpc_socket: str, fault: Path, programs: list[str]) -> None:
        self.style = style
        self.socket = rpc_socket
        self.fault = fault
        self.programs = programs
        self.last_lines: dict[str, str] = {}
        self.ended = threading.Event()
        self._writing = threading.Lock()

    @property
    def rpc(self) -> Any:
        transport = SupervisorTransport("", "", f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    def listen(self) -> None:
        """Answer supervisord's events until it closes the pipe."""
        while True:
            try:
                headers, payload = listener.wait(sys.stdin, sys.stdout)
            except (EOFError, ValueError, IndexError):
                return
            if not headers:
                return
            self.handle(headers["eventname"], payload)
            listener.ok(sys.stdout)

    def handle(self, event: str, payload: str) -> None:
        """Handle one event: a line of a program, or a change of its state."""
        head, _, body = payload.partition("\n")
        fields = dict(pair.split(":", 1) for pair in head.split())
        name = fields.get("processname", "")
        if name == NAME:
            return
        if event.startswith("PROCESS_LOG"):
            self._record(name, body)
        elif event == "PROCESS_STATE_FATAL":
            self.end_all(name, "it ended again and again at its start")
        elif event == "PROCESS_STATE_EXITED" and fields.get("expected") == "1":
            self.end_all(name, "a setting is wrong")
        elif event == "PROCESS_STATE_EXITED":
            self.log("warning", "program_ended", program=name, last_line=self.last_lines.get(name, ""))
        elif event == "PROCESS_STATE_STARTING":
            self.last_lines.pop(name, None)
        elif event == "PROCESS_STATE_RUNNING":
            self.log("info", "program_runs", program=name, pid=int(fields.get("pid", 0)))

    def _record(self, name: str, text: str) -> None:
        lines = [line.strip()[:MAX_LINE_LETTERS] for line in text.split("\n") if line.strip()]
        # A program's sentence about its end has precedence over later lines of its libraries.
        sentences = [line for line in lines if line.startswith(REFUSAL_PREFIX)]
        if sentences:
            self.last_lines[name] = sentences[-1]
        elif lines and not self.last_lines.get(name, "").startswith(REFUSAL_PREFIX):
            self.last_lines[name] = lines[-1]
        if name in FOREIGN_PROGRAMS:
            for line in lines:
                self.log("info", line, program=name)

    def end_all(self, name: str, default_reason: str) -> None:
        """Write the reason to the fault file, which is printed last, and stop supervisord."""
        if self.ended.is_set():
            return
        self.ended.set()
        reason = _extract_reason(self.last_lines.get(name, "")) or default_reason
        self.fault.write_text(f"{name} does not stay up: {reason}\n")
        os.kill(os.getppid(), signal.SIGTERM)

    def start_programs(self, redis_conf: Path | None) -> None:
        """Start the programs once our Redis answers; each waits for the other services it needs."""
        pause = threading.Event()
        if redis_conf is not None:
            tries_left = int(MAX_REDIS_START_S / RETRY_PAUSE_S)
            while tries_left and not self.ended.is_set() and not is_redis_ready(redis_conf):
                tries_left -= 1
                pause.wait(RETRY_PAUSE_S)
            if not tries_left:
                self.log("warning", "redis_does_not_answer", program="redis")
        for name in self._never_started():
            if self.ended.is_set():
                return
            try:
                self.rpc.startProcess(name, False)
            except xmlrpc.client.Fault as error:
                self.end_all(name.partition(":")[2], error.faultString)

    def _never_started(self) -> Iterator[str]:
        """Yield programs without a start. A program that was stopped by hand stays stopped if this process restarts."""
        for info in self.rpc.getAllProcessInfo():
            if info["group"] in self.programs and not info["start"]:
                yield f"{info['group']}:{info['name']}"

    def log(self, level: str, event: str, **values: Any) -> None:
        """Write one line to stderr, in the format of the programs."""
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = format_event(self.style, {"role": NAME, **values, "event": event, "level": level, "timestamp": at})
        with self._writing:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def format_event(style: str, event: dict[str, Any]) -> str:
    """Return the event as one line: JSON, or words for a terminal."""
    if style != "console":
        return json.dumps(event, ensure_ascii=False)
    rest = {name: value for name, value in event.items() if name not in ("event", "level", "timestamp", "role")}
    return " ".join([event["timestamp"], event["level"], event["event"], *(f"{n}={v}" for n, v in rest.items())])


def _extract_reason(line: str) -> str:
    """Return the sentence of a program's last line: of a JSON line its reason or event."""
    if line.startswith("{"):
        try:
            event = json.loads(line)
        except ValueError:
            return line
        return str(event.get("reason") or event.get("event") or line)
    return line


def is_redis_ready(conf: Path) -> bool:
    """Return True if the server of this configuration has read its file and accepts commands."""
    values = dict(line.split(" ", 1) for line in conf.read_text().splitlines() if " " in line)
    request = f"AUTH {values['requirepass']}\r\nPING\r\n".encode()
    try:
        with socket.create_connection((values["bind"], int(values["port"])), timeout=PING_TIMEOUT_S) as connection:
            connection.sendall(request)
            reply = b""
            while reply.count(b"\r\n") < 2:
                data = connection.recv(256)
                if not data:
                    return False
                reply += data
            return b"+PONG" in reply
    except OSError:
        return False
