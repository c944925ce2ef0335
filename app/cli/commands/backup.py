"""`millrace backup` and `millrace restore`: everything that an installation stores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import backups, output
from app.cli.options import AsJson

STREAM = Path("-")


def backup(
    folder: Annotated[
        Path, typer.Argument(help="A folder that is new or empty, or - for a tar archive on stdout.", metavar="DIR")
    ],
    as_json: AsJson = False,
) -> int:
    """Copy everything that is stored into a folder, while the system runs."""
    if folder == STREAM:
        if sys.stdout.isatty():
            raise CliExit(exit_codes.USAGE, "stdout is a terminal: redirect the archive to a file")
        backups.back_up_to(sys.stdout.buffer)
        return exit_codes.OK
    result = backups.back_up(folder)
    if as_json:
        output.emit(result)
    else:
        size = f"{result['size_bytes'] / 1024**2:.1f} MiB"
        counts = f"schema {result['schema']}  {result['originals']} originals"
        output.out.print(f"{output.plain(result['file'])}  {size}  {counts}")
    return exit_codes.OK


def restore(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder that `millrace backup` wrote, or - for its archive on stdin.", metavar="DIR"),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Replace a database that is not empty.")] = False,
    as_json: AsJson = False,
) -> int:
    """Replace the database by a backup; the system must be stopped."""
    if folder == STREAM:
        result = backups.restore_from(sys.stdin.buffer, replace=replace)
    else:
        result = backups.restore(folder, replace=replace)
    if as_json:
        output.emit(result)
    else:
        output.out.print(f"restored from {result['made_at']}, schema {result['schema_now']}; start the system again")
    return exit_codes.OK
