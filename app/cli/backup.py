"""`millrace backup DIR` and `millrace restore DIR`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from app.cli import exits, migrate, output
from app.cli.exits import Quit
from app.cli.server import settings
from app.core import backup
from app.core.blobs import blobs
from app.core.db import Database, close_database
from app.core.errors import AppError, ConfigError, Unavailable
from app.core.schema import current
from app.documents.files import originals
from app.jobs.ledger import worker_rows


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
    return exits.OK


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
    return exits.OK


def _refuse_where_it_runs(database: Database) -> None:
    """A worker that beats would go on with jobs of another time; those of a killed system are no reason to wait."""
    if current(database) is None:
        return
    known = database.read(worker_rows.alive)
    living = [worker for worker in known if not worker_rows.is_gone(worker.host, worker.pid, worker.pid_birth)]
    if living:
        raise Quit(exits.FAILED, f"{len(living)} workers are alive or not known to be dead: stop the system first")


def _database() -> Database:
    here = settings()
    try:
        return Database(here.sql_url)
    except ConfigError as error:
        raise Quit(exits.BAD_USE, error.message) from error


def _quit(error: Exception) -> Quit:
    if isinstance(error, Unavailable):
        return Quit(exits.UNREACHABLE if "database" in error.code else exits.FAILED, error.message)
    return Quit(exits.BAD_USE if isinstance(error, AppError) else exits.FAILED, str(error))
