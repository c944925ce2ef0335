"""Import a Pulse database on the machine of the installation: from database to database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID

from app.cli import exit_codes, output
from app.cli.client.profiles import settings
from app.cli.exit_codes import CliExit
from app.core import logging
from app.core.db import Database, close_database, database
from app.core.errors import AppError, ConfigError, DatabaseUnavailable, NotFound, Unavailable
from app.core.schema import current, head
from app.sources.pulse.database import PulseDatabase
from app.sources.pulse.import_pulse import ImportReport, PulseImport
from app.tenants import directory


def import_pulse(url: str, *, tenant: str, dry_run: bool) -> ImportReport:
    """Copy all rows that fit; the report lists the rows that were left out."""
    settings()
    with _errors_as_exits():
        logging.setup("import")
        pulse = PulseDatabase(url)
        try:
            here = _open_database(tenant)
            with output.new_progress() as bars:
                return PulseImport(pulse, here, tenant, dry_run, StageBars(bars)).run()
        finally:
            pulse.close()
            close_database()


class StageBars:
    """One progress bar for each stage, in the order of the stages."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._of: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._of:
            self._of[stage] = self._bars.add_task(stage, total=total or None, stage="")
        self._bars.update(self._of[stage], completed=done, stage=str(done))


def _open_database(tenant: str) -> Database:
    """Return this installation's database. Raises CliExit if its schema is not this version's."""
    here = database()
    schema = current(here)
    if schema != head():
        message = f"the schema is at {schema or 'nothing'}, not {head()}: run `millrace migrate` first"
        raise CliExit(exit_codes.USAGE, message)
    here.read(directory.get, tenant)
    return here


@contextmanager
def _errors_as_exits() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise CliExit(exit_codes.USAGE, error.message) from error
    except NotFound as error:
        raise CliExit(exit_codes.NOT_FOUND, error.message) from error
    except Unavailable as error:
        code = exit_codes.UNREACHABLE if isinstance(error, DatabaseUnavailable) else exit_codes.FAILED
        raise CliExit(code, f"{error.message}; imported rows stay, run it again for the rest") from error
    except AppError as error:
        raise CliExit(exit_codes.FAILED, error.message) from error
