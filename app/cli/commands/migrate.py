"""`millrace migrate`: bring the database to the schema of this version."""

from __future__ import annotations

from app.cli import exit_codes
from app.cli.lazy import output, schema
from app.cli.options import AsJson


def migrate(as_json: AsJson = False) -> int:
    """Bring the database to the newest schema."""
    before, after = schema.upgrade_schema()
    if as_json:
        output.emit({"from": before, "to": after})
    else:
        output.out.print(f"schema at {after}" + ("" if before == after else f" (was {before or 'empty'})"))
    return exit_codes.OK
