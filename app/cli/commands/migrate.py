"""`millrace migrate`: the schema brought to the version of this program."""

from __future__ import annotations

from app.cli import exit_codes, output
from app.cli.client.http import settings
from app.cli.exit_codes import Quit
from app.core.db import Database
from app.core.errors import ConfigError, Unavailable
from app.core.migrate import upgrade
from app.core.schema import current


def run(*, as_json: bool) -> int:
    before, after = bring_up_to_date()
    if as_json:
        output.emit({"from": before, "to": after})
    else:
        output.out.print(f"schema at {after}" + ("" if before == after else f" (was {before or 'empty'})"))
    return exit_codes.OK


def bring_up_to_date() -> tuple[str | None, str]:
    """The revisions before and after. Raises Quit where the database cannot be had."""
    here = settings()
    here.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        database = Database(here.sql_url)
    except ConfigError as error:
        raise Quit(exit_codes.BAD_USE, error.message) from error
    try:
        database.ping()
        return current(database), upgrade(database)
    except ConfigError as error:
        raise Quit(exit_codes.BAD_USE, error.message) from error
    except Unavailable as error:
        raise Quit(exit_codes.UNREACHABLE, error.message) from error
    finally:
        database.close()
