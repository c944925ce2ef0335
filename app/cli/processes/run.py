"""Start one of the four processes of the system; a wrong setting ends it before it serves.

Api and worker check their database and Redis; for relay and scheduler it is done here.
Modules are imported by name, so a worker starts fast: its process becomes another program anyway.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from app.cli import exit_codes
from app.cli.processes.supervised import end_with_parent
from app.core.errors import ConfigError
from app.core.process import hide_memory
from app.core.settings import Settings, get_settings

ROLE = "MILLRACE_ROLE"
PROGRAM = "MILLRACE_PROGRAM"  # set by supervisord
HIDDEN_PROGRAM = "app.cli.processes.hidden_program"


def run(word: str, options: list[str]) -> int:
    """Run the process that `word` names until it ends; return its exit code."""
    if os.environ.get(PROGRAM):
        end_with_parent()
    hide_memory()
    try:
        settings = _load_settings(word)
        if settings.modules:
            _add_working_directory()
        if word == "api":
            return _run_api(settings)
        if word in ("relay", "scheduler"):
            importlib.import_module("app.cli.processes.preflight").check_services(word)
        if word == "relay":
            importlib.import_module("app.jobs.relay.relay").main()
            return exit_codes.OK
        return _replace_process(_make_command(word, settings, options))
    except ConfigError as error:
        sys.stderr.write(f"millrace {word}: {error.message}\n")
    return exit_codes.USAGE


def _load_settings(word: str) -> Settings:
    """Return the settings with the role of this word. Raises ConfigError if MILLRACE_ROLE names another role."""
    role = os.environ.get(ROLE, "")
    if role not in ("", word):
        raise ConfigError(f"{ROLE} is '{role}': this process may not be started as '{word}'")
    os.environ[ROLE] = word
    settings = get_settings()
    if word == "api":
        settings.check_secrets()
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"MILLRACE_DATA_DIR: {error.strerror}: {settings.data_dir}") from error
    return settings


def _add_working_directory() -> None:
    """Add the working directory, which may hold MILLRACE_MODULES, to the import path of this and the next program."""
    here = os.getcwd()
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def _run_api(settings: Settings) -> int:
    importlib.import_module("uvicorn").run(
        "app.main:app",
        host=settings.host,
        port=settings.port,
        **importlib.import_module("app.api.http.server").options(settings),
    )
    return exit_codes.OK


def _make_command(word: str, settings: Settings, options: list[str]) -> list[str]:
    """Return the command line of the program behind the word."""
    if word == "worker":
        # Dramatiq's master handles no signals until its child has booted; killed then, it waits for 30 s.
        # Its lines before our logging is set up would have another format.
        boot_options = ["--worker-fork-timeout", "500", "--skip-logging"]
        return ["dramatiq", "actors.main", "-p", "1", "-t", str(settings.worker_threads), *boot_options, *options]
    return ["periodiq", "actors.periodic", *options]


def _replace_process(command: list[str]) -> int:
    """Replace this process by the program, so that signals reach it directly."""
    installed = Path(sysconfig.get_path("scripts")) / command[0]
    program = str(installed) if installed.is_file() else shutil.which(command[0])
    if program is None:
        raise ConfigError(f"{command[0]} is not installed in this environment")
    os.execv(sys.executable, [sys.executable, "-P", "-m", HIDDEN_PROGRAM, program, *command[1:]])
