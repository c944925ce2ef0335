"""`millrace backup DIR` and `millrace restore DIR`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from app.cli import exit_codes, output
from app.cli.client.http import settings
from app.cli.commands import migrate
from app.cli.exit_codes import Quit
from app.core import backup
from app.core.blobs import blobs
from app.core.db import Database, close_database
from app.core.errors import AppError, ConfigError, Unavailable
from app.core.schema import current
from app.documents.files import originals
from app.jobs.ledger import worker_host, workers


def run(folder: Path, *, as_json: bool) -> int:
    """Copy what this system keeps; it may run on."""
    database = _database()
    try:
        made = backup.back_up(database, folder)
        kept = asyncio.run(originals.back_up(blobs(), folder))
    except (AppError, OSError) as error:
        raise _quit(error) from error
    finally:
        database.close()
        close_database()
    if as_json:
        output.emit(asdict(made) | {"originals": kept})
    else:
        size = f"{made.size_bytes / 1024**2:.1f} MiB"
        output.out.print(f"{output.text(made.file)}  {size}  schema {made.schema}  {kept} originals")
    return exit_codes.OK


def restore(folder: Path, *, replace: bool, as_json: bool) -> int:
    """Put a backup in the place of the database, then bring it to this version's schema."""
    database = _database()
    try:
        _refuse_where_it_runs(database)
        backup.check(database, folder, replace=replace)
        kept = asyncio.run(originals.restore(blobs(), folder))
        taken = backup.restore(database, folder, replace=replace)
    except (AppError, OSError) as error:
        raise _quit(error) from error
    finally:
        database.close()
    _, schema = migrate.bring_up_to_date()
    if as_json:
        output.emit(asdict(taken) | {"schema_now": schema, "originals": kept})
    else:
        output.out.print(f"restored from {taken.made_at}, schema {schema}; start the system again")
    return exit_codes.OK


def _refuse_where_it_runs(database: Database) -> None:
    """A worker that beats would go on with jobs of another time; those of a killed system are no reason to wait."""
    if current(database) is None:
        return
    known = database.read(workers.list_alive)
    living = [worker for worker in known if not worker_host.has_exited(worker.host, worker.pid, worker.pid_birth)]
    if living:
        raise Quit(exit_codes.FAILED, f"{len(living)} workers are alive or not known to be dead: stop the system first")


def _database() -> Database:
    here = settings()
    try:
        return Database(here.sql_url)
    except ConfigError as error:
        raise Quit(exit_codes.BAD_USE, error.message) from error


def _quit(error: Exception) -> Quit:
    if isinstance(error, Unavailable):
        return Quit(exit_codes.UNREACHABLE if "database" in error.code else exit_codes.FAILED, error.message)
    return Quit(exit_codes.BAD_USE if isinstance(error, AppError) else exit_codes.FAILED, str(error))
