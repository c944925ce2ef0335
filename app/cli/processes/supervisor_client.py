"""Start supervisord over the programs of this machine, ask it for their states, and stop it."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.processes import leftovers
from app.cli.processes.local_install import (
    choose_health_ports,
    find_redis_server,
    uses_local_redis,
    write_health_ports,
)
from app.cli.processes.supervised import end_with_parent
from app.core.settings import Settings

TOP = Path(__file__).resolve().parents[3]
# In the top folder of a clone, next to this module in an installed wheel.
CONFIGURATION = next(
    (path for path in (TOP / "supervisord.conf", Path(__file__).with_name("supervisord.conf")) if path.is_file()),
    TOP / "supervisord.conf",
)
BROKEN_STATES = {"FATAL", "EXITED"}
MAX_SOCKET_PATH_LETTERS = 100  # the kernel's limit is 108, on macOS 104
STOP_MARGIN_S = 15
HURRY_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class ProgramState:
    """One process under supervisord, as supervisord reports it."""

    name: str
    state: str
    reason: str


class Supervisor:
    """supervisord as a child process; the kernel ends it when this process ends.

    With `stdout_style` (json or console) the programs log to stdout, for a container; without it each has a file.
    """

    def __init__(self, settings: Settings, *, stdout_style: str = "") -> None:
        self.settings = settings
        self.folder = settings.data_dir.resolve()
        self.socket = _socket_path(self.folder)
        self.health_ports = choose_health_ports(settings)
        self._stop_s = math.ceil(settings.grace_s) + STOP_MARGIN_S
        fault = self.folder / "run" / "fault"
        style = stdout_style or "console"
        self.command = [sys.executable, "-m", "app.cli.processes.supervisor", style, str(fault), str(CONFIGURATION)]
        self.environment = self._make_environment(settings) | self._make_log_environment(stdout_style)
        redis_conf = str(self.folder / "redis" / "redis.conf") if uses_local_redis() else "-"
        words = [style, str(self.socket), redis_conf, str(fault), *settings.programs]
        self.environment["MILLRACE_SUPERVISOR_LISTENER"] = shlex.join(words)
        self._process: subprocess.Popen[bytes] | None = None

    def _make_log_environment(self, stdout_style: str) -> dict[str, str]:
        """Return the log files of the programs. supervisord expands %(...)s, so a real percent sign is doubled."""
        if stdout_style:
            stdout = "/dev/stdout"
            values = {"LOG": stdout, "WORKER_LOG": stdout, "REDIS_LOG": "NONE", "LOG_BYTES": "0"}
            values |= {"SILENT": "true", "LOG_FORMAT": stdout_style}
        else:
            folder = str(self.folder / "logs").replace("%", "%%")
            log, worker_log = f"{folder}/%(program_name)s.log", f"{folder}/%(program_name)s_%(process_num)02d.log"
            values = {"LOG": log, "WORKER_LOG": worker_log, "REDIS_LOG": log, "LOG_BYTES": "10MB", "SILENT": "false"}
        return {f"MILLRACE_{name}": value for name, value in values.items()}

    def _make_environment(self, settings: Settings) -> dict[str, str]:
        local = uses_local_redis()
        server = find_redis_server()
        if local and server is None:
            raise CliExit(exit_codes.FAILED, "redis-server is missing; install it or set MILLRACE_REDIS_URL")
        inherited = {name: value for name, value in os.environ.items() if name != "MILLRACE_ROLE"}
        return inherited | {
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "MILLRACE_DATA_DIR": str(self.folder),
            "MILLRACE_SOCKET": str(self.socket),
            # Each program has its own port for /health; the api reads their metrics there.
            "MILLRACE_HEALTH_PORTS": ",".join(f"{name}={port}" for name, port in self.health_ports.items()),
            "MILLRACE_LOCAL_REDIS": "true" if local else "false",
            "MILLRACE_REDIS_SERVER": server or "redis-server",
            "MILLRACE_WORKER_COUNT": str(settings.worker_count),
            "MILLRACE_STOP_S": str(self._stop_s),
        }

    @property
    def rpc(self) -> Any:
        transport = SupervisorTransport("", "", f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    def is_running(self) -> bool:
        """Return True if a supervisord of this data folder answers, started by this process or another."""
        try:
            return bool(self.rpc.getState())
        except (OSError, xmlrpc.client.Error):
            return False

    def end_leftovers(self) -> None:
        """End programs whose supervisord was killed; they would hold the ports of new ones."""
        leftovers.end(self.socket, self._stop_s)

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)  # of a supervisord that was killed
        write_health_ports(self.settings, self.health_ports)
        with (self.folder / "logs" / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C reaches only this process, which decides when supervisord stops its programs.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def programs(self) -> list[ProgramState]:
        """Return all programs with their states; an empty list while supervisord does not answer."""
        return [
            ProgramState(info["name"], info["statename"], info["spawnerr"] or info["description"])
            for info in self._process_info()
        ]

    def fault(self) -> str | None:
        """Return one sentence if the system cannot run, else None."""
        if not self.is_alive:
            return f"supervisord ended: {self.last_line('start')}"
        for program in self.programs():
            if program.state in BROKEN_STATES:
                return f"{program.name} does not stay up: {self.last_line(program.name) or program.reason}"
        return None

    def last_line(self, name: str) -> str:
        """Return the last line of a program's log that is not empty."""
        try:
            lines = (self.folder / "logs" / f"{name}.log").read_text(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def stop(self) -> None:
        """Stop all programs within their grace period; a Ctrl-C during the stop hands running jobs back at once."""
        process = self._process
        if process is None:
            return
        signals: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):  # first of all: a second signal may arrive at once
            signal.signal(number, lambda received, _: signals.append(received))
        groups = self._worker_groups()
        if process.poll() is None:
            process.terminate()
        else:
            self.end_leftovers()
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=HURRY_PAUSE_S)
            # The second SIGTERM makes a worker stop at once; supervisord's first one may still be on its way.
            for group in groups if signals else []:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGTERM)

    def _worker_groups(self) -> list[int]:
        """Return the workers' process groups; supervisord answers no more requests once it stops."""
        return [info["pid"] for info in self._process_info() if info["pid"] and info["group"] == "worker"]

    def _process_info(self) -> list[dict[str, Any]]:
        try:
            info: list[dict[str, Any]] = self.rpc.getAllProcessInfo()
        except (OSError, xmlrpc.client.Error):
            return []
        return info


def _socket_path(folder: Path) -> Path:
    """Return a path in the data folder, or in the temporary folder if that path is too long for a socket."""
    path = folder / "run" / "supervisor.sock"
    if len(str(path)) <= MAX_SOCKET_PATH_LETTERS:
        return path
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"millrace-{os.getuid()}-{digest}.sock"
