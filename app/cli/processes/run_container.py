"""Run the whole system as one foreground process, the only program of a container.

Like `millrace up` without its demo: create folders, secret and schema; then this process becomes supervisord.
"""

from __future__ import annotations

import os
import sys
import time

from app.cli import exit_codes, output
from app.cli.client.profiles import settings
from app.cli.exit_codes import CliExit
from app.cli.local.schema import upgrade_schema
from app.cli.processes.local_install import prepare, write_health_ports
from app.cli.processes.supervisor_client import Supervisor
from app.core.errors import ConfigError

RETRY_PAUSE_S = 1.0
RETRIES_PER_MESSAGE = 10


def run() -> int:
    """Become supervisord over all programs; it returns only by raising CliExit."""
    try:
        here = prepare(settings())
        here.check_secrets()
    except ConfigError as error:
        raise CliExit(exit_codes.USAGE, error.message) from error
    except OSError as error:
        raise CliExit(exit_codes.USAGE, f"MILLRACE_DATA_DIR cannot be used: {error}") from error
    _upgrade_schema()
    style = here.log_format
    if style == "auto":
        style = "console" if sys.stdout.isatty() else "json"
    supervisor = Supervisor(here, stdout_style=style)
    if supervisor.is_running():
        raise CliExit(exit_codes.FAILED, f"Millrace already runs on {here.data_dir}")
    supervisor.end_leftovers()
    supervisor.socket.unlink(missing_ok=True)  # of a supervisord that was killed; a new one would log a line about it
    write_health_ports(here, supervisor.health_ports)
    os.execve(sys.executable, supervisor.command, supervisor.environment)


def _upgrade_schema() -> None:
    """Upgrade the schema as soon as the database answers."""
    tries = 0
    while True:
        try:
            upgrade_schema()
            return
        except CliExit as error:
            if error.code != exit_codes.UNREACHABLE:
                raise
            if tries % RETRIES_PER_MESSAGE == 0:
                output.err.print(f"waiting for the database: {output.plain(error.message)}")
        tries += 1
        time.sleep(RETRY_PAUSE_S)
