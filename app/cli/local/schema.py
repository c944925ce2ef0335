"""Bring the database to the schema of this version."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from app.cli import exit_codes
from app.cli.client.profiles import installation, settings
from app.cli.exit_codes import CliExit
from app.core.db import Database
from app.core.errors import ConfigError, Unavailable
from app.core.migrate import upgrade
from app.core.schema import current


def upgrade_schema() -> tuple[str | None, str]:
    """Return the revisions before and after. Raises CliExit if the database cannot be reached."""
    here = settings()
    here.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        database = Database(here.sql_url)
    except ConfigError as error:
        raise CliExit(exit_codes.USAGE, error.message, source=installation()) from error
    try:
        database.ping()
        return current(database), upgrade(database)
    except ConfigError as error:
        raise CliExit(exit_codes.USAGE, error.message, source=installation()) from error
    except Unavailable as error:
        raise CliExit(exit_codes.UNREACHABLE, error.message, source=installation()) from error
    except DBAPIError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        message = (
            f"the migration failed and was rolled back: {reason}; docs/troubleshooting.md: the schema is incomplete"
        )
        raise CliExit(exit_codes.FAILED, message, source=installation()) from error
    finally:
        database.close()
