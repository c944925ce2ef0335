"""`millrace import`: move the data of another system into this one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import exit_codes
from app.cli.lazy import output, pulse
from app.cli.options import AsJson, DryRun, new_group

if TYPE_CHECKING:
    from app.sources.pulse.import_pulse import ImportReport

MAX_SHOWN = 10  # per reason; --json prints all

imports = new_group("Import the data of another system.")


@imports.command("pulse")
def import_pulse(
    url: Annotated[
        str,
        typer.Argument(help="PostgreSQL of the older service: postgresql://user@host/name.", metavar="DATABASE-URL"),
    ],
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Tenant that gets the data.")] = "default",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> int:
    """Import crawls, pages and changes of the schema webhook; another run imports only what is new."""
    report = pulse.import_pulse(url, tenant=tenant, dry_run=dry_run)
    if as_json:
        output.emit(asdict(report) | {"reasons": report.reasons()})
    else:
        _print_report(report)
    return exit_codes.OK


def _print_report(report: ImportReport) -> None:
    if report.dry_run:
        output.out.print("dry run: nothing was written")
    table = output.new_table("", "read", "to import" if report.dry_run else "imported", "present before", "left out")
    for name, counts in (("crawls", report.crawls), ("pages", report.pages), ("changes", report.changes)):
        table.add_row(name, *map(str, (counts.read, counts.taken, counts.here, counts.left_out)))
    output.print_table(table)
    for reason, count in report.reasons().items():
        ids = [row.id for row in report.left_out if row.reason == reason]
        output.out.print(f"left out {count}: {output.plain(reason)}  [dim]{output.plain(_shorten(ids))}[/]")
    if report.moved:
        pairs = [f"{old} → {new or 'new'}" for old, new in report.moved.items()]
        output.out.print(f"{len(pairs)} under another id, because theirs is in use here: {_shorten(pairs)}")
    if report.unread:
        output.out.print(f"{report.unread} changes still waited there for a new scrape: here they are failed")
    if not report.dry_run:
        output.out.print(f"{report.jobs} pages wait to be indexed")


def _shorten(names: list[str]) -> str:
    more = f", and {len(names) - MAX_SHOWN} more (--json prints all)" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more
