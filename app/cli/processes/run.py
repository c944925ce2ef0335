"""The four processes of the system, each started by its word; wrong settings end it before it serves.

Api and worker look at their database and Redis by themselves; for the others that is done here.
Imports by name keep a worker's start short: it becomes another program anyway.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from app.cli import exit_codes
from app.core.errors import ConfigError
from app.core.settings import Settings, get_settings

ROLE = "MILLRACE_ROLE"


def run(word: str, options: list[str]) -> int:
    """Be the process that `word` names, until it ends; the exit code."""
    try:
        settings = _settings_for(word)
        if settings.modules:
            _look_here_too()
        if word == "api":
            return _api(settings)
        if word in ("relay", "scheduler"):
            importlib.import_module("app.cli.processes.preflight").refuse_what_never_works(word)
        if word == "relay":
            importlib.import_module("app.jobs.relay.relay").main()
            return exit_codes.OK
        return _become(_command(word, settings, options))
    except ConfigError as error:
        sys.stderr.write(f"millrace {word}: {error.message}\n")
    return exit_codes.BAD_USE


def _settings_for(word: str) -> Settings:
    """The settings, with the role that this word gives. Raises ConfigError for another role's process."""
    given = os.environ.get(ROLE, "")
    if given not in ("", word):
        raise ConfigError(f"{ROLE} is '{given}': this process may not be started as '{word}'")
    os.environ[ROLE] = word
    settings = get_settings()
    if word == "api":
        settings.check_secrets()
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"MILLRACE_DATA_DIR: {error.strerror}: {settings.data_dir}") from error
    return settings


def _look_here_too() -> None:
    """Modules of one's own may lie in the working directory, for us and for the program that we become."""
    here = os.getcwd()
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def _api(settings: Settings) -> int:
    importlib.import_module("uvicorn").run(
        "app.main:app",
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
        # What a WebSocket's client says is not listened to; compressing what it hears would cost more than it holds.
        ws_max_size=64 * 1024,
        ws_per_message_deflate=False,
    )
    return exit_codes.OK


def _command(word: str, settings: Settings, options: list[str]) -> list[str]:
    """The program behind the word: what a person would type without us."""
    if word == "worker":
        # Its master is deaf until its child has booted, and waits 30 s for one that was killed at that.
        # Its own lines before we set up the log would not be in our form.
        patience = ["--worker-fork-timeout", "500", "--skip-logging"]
        return ["dramatiq", "actors.main", "-p", "1", "-t", str(settings.worker_threads), *patience, *options]
    return ["periodiq", "actors.periodic", *options]


def _become(command: list[str]) -> int:
    """Replace this process, so that signals reach the program itself."""
    beside = Path(sysconfig.get_path("scripts")) / command[0]
    program = str(beside) if beside.is_file() else shutil.which(command[0])
    if program is None:
        raise ConfigError(f"{command[0]} is not installed in this environment")
    os.execv(program, command)
