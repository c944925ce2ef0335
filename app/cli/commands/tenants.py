"""`millrace tenants`: tenants and their quotas."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import http, output
from app.cli.options import AsJson, LongLimit, new_group

PATH = "/api/tenants"
NO_LIMIT = "none"
QUOTAS = ("max_open_jobs", "max_documents", "max_bytes")

tenants = new_group("Tenants: list, show, create, update.")

TenantId = Annotated[str, typer.Argument(help="Name of the tenant.", metavar="TENANT")]
OpenJobs = Annotated[str | None, typer.Option("--max-open-jobs", help="A number, or none.")]
Documents = Annotated[str | None, typer.Option("--max-documents", help="A number, or none.")]
Bytes = Annotated[str | None, typer.Option("--max-bytes", help="A number, or none.")]
Title = Annotated[str | None, typer.Option("--title", help="Title for people.")]


@tenants.command("list")
def list_tenants(limit: LongLimit = 50, as_json: AsJson = False) -> int:
    """List tenants by name, with their quotas."""
    with http.ApiClient() as api:
        page = api.get(PATH, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("tenant", "title", "open jobs", "documents", "bytes", "")
    for tenant in page["data"]:
        quotas = [tenant["quotas"][name] for name in QUOTAS]
        limits = ["-" if quota is None else str(quota) for quota in quotas]
        state = "disabled" if tenant["disabled_at"] else ""
        table.add_row(output.plain(tenant["id"]), output.plain(tenant["title"]), *limits, state)
    output.print_page(table, page)
    return exit_codes.OK


@tenants.command("show")
def show_tenant(tenant: TenantId, as_json: AsJson = False) -> int:
    """Show a tenant with its quotas and its usage."""
    with http.ApiClient() as api:
        return _print_tenant(api.get(f"{PATH}/{tenant}"), as_json)


@tenants.command("create")
def create_tenant(
    tenant: TenantId,
    title: Title = None,
    max_open_jobs: OpenJobs = None,
    max_documents: Documents = None,
    max_bytes: Bytes = None,
    as_json: AsJson = False,
) -> int:
    """Create a tenant; then create a key for it: millrace keys create NAME --tenant TENANT."""
    quotas = _parse_quotas(max_open_jobs=max_open_jobs, max_documents=max_documents, max_bytes=max_bytes)
    with http.ApiClient() as api:
        return _print_tenant(api.post(PATH, {"id": tenant, "title": title or "", **quotas}), as_json)


@tenants.command("update")
@tenants.command("change", hidden=True)
def update_tenant(
    tenant: TenantId,
    title: Title = None,
    max_open_jobs: OpenJobs = None,
    max_documents: Documents = None,
    max_bytes: Bytes = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Refuse or accept the tenant's keys.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Set a tenant's title or quotas; disable or enable it."""
    given = {name: value for name, value in (("title", title), ("disabled", disabled)) if value is not None}
    quotas = _parse_quotas(max_open_jobs=max_open_jobs, max_documents=max_documents, max_bytes=max_bytes)
    body = given | quotas
    if not body:
        raise CliExit(exit_codes.USAGE, "nothing to update: give --title, a --max-… or --disable")
    with http.ApiClient() as api:
        return _print_tenant(api.patch(f"{PATH}/{tenant}", body), as_json)


def _parse_quotas(**options: str | None) -> dict[str, Any]:
    """Return the quotas that were given: numbers, and None for `none`."""
    quotas: dict[str, Any] = {}
    for name, text in options.items():
        if text is not None:
            if text != NO_LIMIT and not (text.isascii() and text.isdigit()):
                option = name.replace("_", "-")
                raise CliExit(exit_codes.USAGE, f"--{option} must be a number or '{NO_LIMIT}', not {text!r}")
            quotas[name] = None if text == NO_LIMIT else int(text)
    return quotas


def _print_tenant(tenant: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(tenant)
        return exit_codes.OK
    state = "  [yellow]disabled[/]" if tenant["disabled_at"] else ""
    output.out.print(f"[bold]{output.plain(tenant['id'])}[/] {output.plain(tenant['title'])}{state}")
    used = tenant.get("used") or {}
    for name, quota in tenant["quotas"].items():
        resource = name.removeprefix("max_")
        usage = f"{used[resource]} of " if resource in used else ""
        output.out.print(f"  {resource.replace('_', ' ')}: {usage}{'no limit' if quota is None else quota}")
    return exit_codes.OK
