"""`millrace single`: the whole system as one foreground process, made for a container with nothing beside it.

What `millrace up` does for a desk, without its demo: folders, secret, schema; then this process becomes supervisord.
"""

from __future__ import annotations

import os
import sys
import time

from app.cli import exit_codes, output
from app.cli.client.http import settings
from app.cli.commands import migrate
from app.cli.exit_codes import Quit
from app.cli.processes.local_install import Supervisor, prepare
from app.core.errors import ConfigError

WAIT_S = 1.0
SAY_EVERY = 10


def run() -> int:
    """Become supervisord over all programs; ends with its exit code."""
    try:
        here = prepare(settings())
        here.check_secrets()
    except ConfigError as error:
        raise Quit(exit_codes.BAD_USE, error.message) from error
    except OSError as error:
        raise Quit(exit_codes.BAD_USE, f"MILLRACE_DATA_DIR cannot be used: {error}") from error
    _migrate()
    style = here.log_format
    if style == "auto":
        style = "console" if sys.stdout.isatty() else "json"
    supervisor = Supervisor(here, onto_stdout=style)
    if supervisor.runs_already():
        raise Quit(exit_codes.FAILED, f"Millrace already runs on {here.data_dir}")
    supervisor.socket.unlink(missing_ok=True)  # of one that was killed; supervisord would print a line of its own
    os.execve(sys.executable, supervisor.command, supervisor.environment)


def _migrate() -> None:
    """The schema of this version, as soon as the database answers."""
    tries = 0
    while True:
        try:
            migrate.bring_up_to_date()
            return
        except Quit as error:
            if error.code != exit_codes.UNREACHABLE:
                raise
            if tries % SAY_EVERY == 0:
                output.err.print(f"waiting for the database: {output.text(error.message)}")
        tries += 1
        time.sleep(WAIT_S)
