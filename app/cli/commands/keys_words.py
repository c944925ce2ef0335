"""The words `millrace keys` and `millrace tenants` with their options; the work is in keys.py and tenants.py."""

from __future__ import annotations

from typing import Annotated

import typer

EXITS = "Exit codes: see millrace --help."
keys = typer.Typer(
    help="API keys: list, create, change, rotate, revoke.", no_args_is_help=True, epilog=EXITS, rich_markup_mode=None
)
tenants = typer.Typer(
    help="Tenants: list, show, create, change.", no_args_is_help=True, epilog=EXITS, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]
KeyId = Annotated[str, typer.Argument(help="The key's id.", metavar="ID")]
TenantId = Annotated[str, typer.Argument(help="The tenant's name.", metavar="TENANT")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="Another tenant; needs the scope operator.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="read, write, admin, operator, kind:NAME or collection:NAME; may be given again."),
]
Rates = Annotated[
    list[str] | None, typer.Option("--rate", help="'POST /api/search=600/minute', '*=unlimited'; may be given again.")
]
OpenJobs = Annotated[str | None, typer.Option("--max-open-jobs", help="A number, or none.")]
Documents = Annotated[str | None, typer.Option("--max-documents", help="A number, or none.")]
Bytes = Annotated[str | None, typer.Option("--max-bytes", help="A number, or none.")]
Title = Annotated[str | None, typer.Option("--title", help="For people.")]


@keys.command("list")
def keys_list(
    tenant: OfTenant = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
    as_json: Json = False,
) -> int:
    """The newest keys; `--tenant '*'` for those of all tenants."""
    from app.cli.commands import keys as command

    return command.show_list(tenant=tenant, limit=limit, as_json=as_json)


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Scopes = None,
    tenant: OfTenant = None,
    rate: Rates = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: 2027-01-31T00:00:00Z.")] = None,
    as_json: Json = False,
) -> int:
    """Make a key and show it, this once; without --scope it reads and writes."""
    from app.cli.commands import keys as command

    return command.create(name, scopes=scope, tenant=tenant, rates=rate, expires=expires, as_json=as_json)


@keys.command("change")
def keys_change(
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    scope: Scopes = None,
    rate: Rates = None,
    as_json: Json = False,
) -> int:
    """Give a key another name, other scopes or rate limits."""
    from app.cli.commands import keys as command

    return command.change(key_id, name=name, scopes=scope, rates=rate, as_json=as_json)


@keys.command("rotate")
def keys_rotate(
    key_id: KeyId,
    overlap_s: Annotated[
        float, typer.Option("--overlap", metavar="SECONDS", min=0, help="How long the old one works on.")
    ] = 0,
    as_json: Json = False,
) -> int:
    """Give a key a new secret and show it, this once."""
    from app.cli.commands import keys as command

    return command.rotate(key_id, overlap_s=overlap_s, as_json=as_json)


@keys.command("revoke")
def keys_revoke(key_id: KeyId, as_json: Json = False) -> int:
    """End a key, and the streams that were opened with it."""
    from app.cli.commands import keys as command

    return command.revoke(key_id, as_json=as_json)


@tenants.command("list")
def tenants_list(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50, as_json: Json = False
) -> int:
    """All tenants by name."""
    from app.cli.commands import tenants as command

    return command.show_list(limit=limit, as_json=as_json)


@tenants.command("show")
def tenants_show(tenant: TenantId, as_json: Json = False) -> int:
    """One tenant with its quotas and what it holds."""
    from app.cli.commands import tenants as command

    return command.show_one(tenant, as_json=as_json)


@tenants.command("create")
def tenants_create(
    tenant: TenantId,
    title: Title = None,
    max_open_jobs: OpenJobs = None,
    max_documents: Documents = None,
    max_bytes: Bytes = None,
    as_json: Json = False,
) -> int:
    """Make a tenant; keys make it useful: millrace keys create NAME --tenant TENANT."""
    from app.cli.commands import tenants as command

    quotas = {"max_open_jobs": max_open_jobs, "max_documents": max_documents, "max_bytes": max_bytes}
    return command.create(tenant, title=title, quotas=quotas, as_json=as_json)


@tenants.command("change")
def tenants_change(
    tenant: TenantId,
    title: Title = None,
    max_open_jobs: OpenJobs = None,
    max_documents: Documents = None,
    max_bytes: Bytes = None,
    disabled: Annotated[bool | None, typer.Option("--disable/--enable", help="Whether its keys open anything.")] = None,
    as_json: Json = False,
) -> int:
    """Change a tenant's title or quotas, disable or enable it."""
    from app.cli.commands import tenants as command

    quotas = {"max_open_jobs": max_open_jobs, "max_documents": max_documents, "max_bytes": max_bytes}
    return command.change(tenant, title=title, quotas=quotas, disabled=disabled, as_json=as_json)
