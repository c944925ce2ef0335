"""`millrace kinds`: the kinds of job that a caller may start."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import http, output
from app.cli.options import AsJson

FACTS = ("queue", "priority", "max_attempts", "time_limit_s", "payload_version", "unique")


def kinds(
    name: Annotated[str | None, typer.Argument(help="Only this kind, with its schema.", metavar="KIND")] = None,
    as_json: AsJson = False,
) -> int:
    """List the kinds of job that can be started."""
    with http.ApiClient() as api:
        page = api.get("/api/kinds")
    if name is not None:
        kind = next((kind for kind in page["data"] if kind["kind"] == name), None)
        if kind is None:
            raise CliExit(exit_codes.NOT_FOUND, f"kind '{name}' does not exist, or this key may not start it")
        return _print_kind(kind, as_json)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("kind", "queue", "payload", "")
    for kind in page["data"]:
        description = (kind["description"] or "").split("\n")[0]
        table.add_row(kind["kind"], kind["queue"], ", ".join(_list_fields(kind)), output.plain(description))
    output.print_table(table)
    return exit_codes.OK


def _print_kind(kind: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(kind)
        return exit_codes.OK
    output.out.print(f"[bold]{output.plain(kind['kind'])}[/]  {output.plain(kind['description'])}")
    for name in FACTS:
        if kind.get(name) is not None:
            output.out.print(f"  {name:<15} {output.plain(kind[name])}")
    output.out.print(output.plain(json.dumps(kind["schema"], indent=2, ensure_ascii=False)))
    return exit_codes.OK


def _list_fields(kind: dict[str, Any]) -> list[str]:
    """Return the payload's fields with their types; optional fields have a question mark."""
    schema = kind["schema"] or {}
    required = schema.get("required", [])
    fields = schema.get("properties", {}).items()
    return [f"{name}{'' if name in required else '?'}: {about.get('type', 'any')}" for name, about in fields]
