"""`millrace audit`: the actions of administrators."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from app.cli import exit_codes
from app.cli.lazy import http, output
from app.cli.options import AsJson, DefaultGroup, LongLimit, new_group

PATH = "/api/audit-log"

audit = new_group("Audit log: the actions of administrators. Without a command: log.", cls=DefaultGroup.of("log"))


@audit.command("log")
@audit.command("list", hidden=True)
def list_entries(
    action: Annotated[str | None, typer.Option(help="Only this action, such as key.create.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only this key's id, or `secret`.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Another tenant, or '*'; requires the scope operator.")] = None,
    limit: LongLimit = 50,
    as_json: AsJson = False,
) -> int:
    """List the actions of administrators, the newest first (scope admin)."""
    with http.ApiClient() as api:
        page = api.get(PATH, action=action, actor=actor, tenant=tenant, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("at", "tenant", "actor", "action", "subject", "details")
    for entry in page["data"]:
        cells = [entry[name] for name in ("tenant", "actor", "action", "subject")]
        details = json.dumps(entry["details"], ensure_ascii=False) if entry["details"] else ""
        table.add_row(str(entry["at"])[:19], *map(output.plain, [*cells, details]))
    output.print_page(table, page)
    return exit_codes.OK
