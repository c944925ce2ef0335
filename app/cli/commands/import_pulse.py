"""`millrace import pulse DATABASE-URL`, on the machine of the installation: from database to database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.progress import Progress, TaskID
from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client.http import settings
from app.cli.exit_codes import Quit
from app.core import logging
from app.core.db import Database, close_database, database
from app.core.errors import AppError, ConfigError, NotFound, Unavailable
from app.core.schema import current, head
from app.sources.pulse.database import PulseDatabase
from app.sources.pulse.import_pulse import ImportCounts, ImportReport, PulseImport
from app.tenants import directory

# How many of a kind are shown to a person; JSON has all.
SHOWN = 10


def run(url: str, *, tenant: str, dry_run: bool, as_json: bool) -> int:
    """Take what is there; rows that cannot be kept are told, and no failure."""
    settings()
    with _translate_errors():
        logging.setup("import")
        old = PulseDatabase(url)
        try:
            here = _database(tenant)
            with output.progress() as bars:
                report = PulseImport(old, here, tenant, dry_run, Bars(bars)).run()
        finally:
            old.close()
            close_database()
    if as_json:
        output.emit(asdict(report) | {"reasons": report.reasons()})
    else:
        _show(report)
    return exit_codes.OK


class Bars:
    """One for each stage, in their order."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._of: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._of:
            self._of[stage] = self._bars.add_task(stage, total=total or None, stage="")
        self._bars.update(self._of[stage], completed=done, stage=str(done))


def _database(tenant: str) -> Database:
    """This installation's. Raises Quit where its schema is another version's."""
    found = database()
    schema = current(found)
    if schema != head():
        raise Quit(
            exit_codes.BAD_USE, f"the schema is at {schema or 'nothing'}, not {head()}: run `millrace migrate` first"
        )
    found.read(directory.get, tenant)
    return found


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise Quit(exit_codes.BAD_USE, error.message) from error
    except NotFound as error:
        raise Quit(exit_codes.NOT_FOUND, error.message) from error
    except Unavailable as error:
        code = exit_codes.UNREACHABLE if error.code.startswith("database") else exit_codes.FAILED
        raise Quit(code, f"{error.message}; what was taken stays, run it again for the rest") from error
    except AppError as error:
        raise Quit(exit_codes.FAILED, error.message) from error


def _show(report: ImportReport) -> None:
    if report.dry_run:
        output.out.print("dry run: nothing was written")
    table = Table("", "read", "to take" if report.dry_run else "taken", "here before", "left out", box=None)
    _row(table, "crawls", report.crawls)
    _row(table, "pages", report.pages)
    _row(table, "changes", report.changes)
    output.out.print(table)
    for reason, count in report.reasons().items():
        ids = [one.id for one in report.left_out if one.reason == reason]
        output.out.print(f"left out {count}: {output.text(reason)}  [dim]{output.text(_some(ids))}[/]")
    if report.moved:
        pairs = [f"{old} → {new or 'new'}" for old, new in report.moved.items()]
        output.out.print(f"{len(pairs)} under another id, since theirs is taken here: {_some(pairs)}")
    if report.unread:
        output.out.print(f"{report.unread} changes still waited there to be read again: here they are failed")
    if not report.dry_run:
        output.out.print(f"{report.jobs} pages wait to be indexed")


def _row(table: Table, name: str, counts: ImportCounts) -> None:
    table.add_row(name, *(str(number) for number in (counts.read, counts.taken, counts.here, counts.left_out)))


def _some(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more (--json has all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
