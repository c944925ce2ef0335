"""`millrace tenants`: list, show, create and change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client.http import Server
from app.cli.exit_codes import Quit

NO_LIMIT = "none"


def show_list(*, limit: int, as_json: bool) -> int:
    """By name."""
    with Server() as server:
        page = server.get("/api/tenants", limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("tenant", "title", "open jobs", "documents", "bytes", "", box=None, pad_edge=False)
    for tenant in page["data"]:
        quotas = [tenant["quotas"][name] for name in ("max_open_jobs", "max_documents", "max_bytes")]
        limits = ["-" if quota is None else str(quota) for quota in quotas]
        state = "disabled" if tenant["disabled_at"] else ""
        table.add_row(output.text(tenant["id"]), output.text(tenant["title"]), *limits, state)
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK


def show_one(tenant: str, *, as_json: bool) -> int:
    with Server() as server:
        return _show(server.get(f"/api/tenants/{tenant}"), as_json)


def create(tenant: str, *, title: str | None, quotas: Mapping[str, str | None], as_json: bool) -> int:
    with Server() as server:
        return _show(server.post("/api/tenants", {"id": tenant, "title": title or "", **_numbers(quotas)}), as_json)


def change(
    tenant: str, *, title: str | None, quotas: Mapping[str, str | None], disabled: bool | None, as_json: bool
) -> int:
    """The tenant with what was given changed."""
    given = {name: value for name, value in (("title", title), ("disabled", disabled)) if value is not None}
    body = given | _numbers(quotas)
    if not body:
        raise Quit(exit_codes.BAD_USE, "nothing to change: give --title, a --max-… or --disable")
    with Server() as server:
        return _show(server.patch(f"/api/tenants/{tenant}", body), as_json)


def _numbers(quotas: Mapping[str, str | None]) -> dict[str, Any]:
    """What was given: numbers, and `none` for no limit."""
    found: dict[str, Any] = {}
    for name, text in quotas.items():
        if text is not None:
            if text != NO_LIMIT and not (text.isascii() and text.isdigit()):
                raise Quit(exit_codes.BAD_USE, f"--{name.replace('_', '-')}: a number or '{NO_LIMIT}', not {text!r}")
            found[name] = None if text == NO_LIMIT else int(text)
    return found


def _show(tenant: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(tenant)
        return exit_codes.OK
    state = "  [yellow]disabled[/]" if tenant["disabled_at"] else ""
    output.out.print(f"[bold]{output.text(tenant['id'])}[/] {output.text(tenant['title'])}{state}")
    used = tenant.get("used") or {}
    for name, quota in tenant["quotas"].items():
        what = name.removeprefix("max_")
        held = f"{used[what]} of " if what in used else ""
        output.out.print(f"  {what.replace('_', ' ')}: {held}{'no limit' if quota is None else quota}")
    return exit_codes.OK
