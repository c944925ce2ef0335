"""The minder under supervisord: starts programs once what they need answers, and ends all when one cannot stay up.

An event listener (supervisord tells it what happens to programs, and what they say), so its stdout belongs to that
protocol and its own lines go to stderr. It imports nothing heavy: it lives as long as the system.
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

PAUSE_S = 0.1
ANSWER_S = 2.0
# A server that reads a long append-only file is waited for; whatever still does not answer then is said by its users.
REDIS_WITHIN_S = 120.0
LONGEST_LINE = 2000
OWN_NAME = "minder"
# How every process of ours says why it refuses to start.
SENTENCE = "millrace "
OUTSIDE_FORMAT = {"redis"}


def run(options: list[str]) -> int:
    """Mind until supervisord ends us. Options: json|console, socket, redis.conf or -, fault file, programs."""
    style, rpc_socket, redis_conf, fault, *programs = options
    minder = Minder(style, rpc_socket, Path(fault), programs)
    conf = None if redis_conf == "-" else Path(redis_conf)
    threading.Thread(target=minder.start_programs, args=(conf,), name="starter", daemon=True).start()
    minder.listen()
    return 0


class Minder:
    """What one listener knows: which programs to start, and the last line of each."""

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
            self.hear(headers["eventname"], payload)
            listener.ok(sys.stdout)

    def hear(self, event: str, payload: str) -> None:
        """One event: a line of a program, or a change of its state."""
        head, _, body = payload.partition("\n")
        about = dict(pair.split(":", 1) for pair in head.split())
        name = about.get("processname", "")
        if name == OWN_NAME:
            return
        if event.startswith("PROCESS_LOG"):
            self._keep(name, body)
        elif event == "PROCESS_STATE_FATAL":
            self.end_all(name, "it ended again and again at its start")
        elif event == "PROCESS_STATE_EXITED" and about.get("expected") == "1":
            self.end_all(name, "a setting is wrong")
        elif event == "PROCESS_STATE_EXITED":
            self.say("warning", "program_ended", program=name, last_line=self.last_lines.get(name, ""))
        elif event == "PROCESS_STATE_STARTING":
            self.last_lines.pop(name, None)
        elif event == "PROCESS_STATE_RUNNING":
            self.say("info", "program_runs", program=name, pid=int(about.get("pid", 0)))

    def _keep(self, name: str, text: str) -> None:
        lines = [line.strip()[:LONGEST_LINE] for line in text.split("\n") if line.strip()]
        # A program's own sentence about its end counts more than what its library says afterwards.
        said = [line for line in lines if line.startswith(SENTENCE)] or lines
        if said and not (self.last_lines.get(name, "").startswith(SENTENCE) and said is lines):
            self.last_lines[name] = said[-1]
        if name in OUTSIDE_FORMAT:
            for line in lines:
                self.say("info", line, program=name)

    def end_all(self, name: str, why: str) -> None:
        """Leave the reason where supervisord's starter prints it last, and end supervisord."""
        if self.ended.is_set():
            return
        self.ended.set()
        reason = _told(self.last_lines.get(name, "")) or why
        self.fault.write_text(f"{name} does not stay up: {reason}\n")
        os.kill(os.getppid(), signal.SIGTERM)

    def start_programs(self, redis_conf: Path | None) -> None:
        """Our Redis first, when it answers all others; each of those waits by itself for what is not there yet."""
        pause = threading.Event()
        if redis_conf is not None:
            left = int(REDIS_WITHIN_S / PAUSE_S)
            while left and not self.ended.is_set() and not redis_answers(redis_conf):
                left -= 1
                pause.wait(PAUSE_S)
            if not left:
                self.say("warning", "redis_does_not_answer", program="redis")
        for name in self._never_started():
            if self.ended.is_set():
                return
            try:
                self.rpc.startProcess(name, False)
            except xmlrpc.client.Fault as error:
                self.end_all(name.partition(":")[2], error.faultString)

    def _never_started(self) -> Iterator[str]:
        """A program that somebody stopped by hand stays stopped, also when this process starts anew."""
        for one in self.rpc.getAllProcessInfo():
            if one["group"] in self.programs and not one["start"]:
                yield f"{one['group']}:{one['name']}"

    def say(self, level: str, event: str, **values: Any) -> None:
        """One line on stderr, in the form of the programs' own."""
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = render(self.style, {"role": OWN_NAME, **values, "event": event, "level": level, "timestamp": at})
        with self._writing:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def render(style: str, event: dict[str, Any]) -> str:
    """The event as a line: JSON, or words for a terminal."""
    if style != "console":
        return json.dumps(event, ensure_ascii=False)
    rest = {name: value for name, value in event.items() if name not in ("event", "level", "timestamp", "role")}
    return " ".join([event["timestamp"], event["level"], event["event"], *(f"{n}={v}" for n, v in rest.items())])


def _told(line: str) -> str:
    """The sentence in a program's last line; of a JSON line its reason or event."""
    if line.startswith("{"):
        try:
            event = json.loads(line)
        except ValueError:
            return line
        return str(event.get("reason") or event.get("event") or line)
    return line


def redis_answers(conf: Path) -> bool:
    """Whether the server of this configuration has read its file and takes commands."""
    words = dict(line.split(" ", 1) for line in conf.read_text().splitlines() if " " in line)
    question = f"AUTH {words['requirepass']}\r\nPING\r\n".encode()
    try:
        with socket.create_connection((words["bind"], int(words["port"])), timeout=ANSWER_S) as connection:
            connection.sendall(question)
            answer = b""
            while answer.count(b"\r\n") < 2:
                more = connection.recv(256)
                if not more:
                    return False
                answer += more
            return b"+PONG" in answer
    except OSError:
        return False
