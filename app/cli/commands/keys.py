"""`millrace keys`: API keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import http, output
from app.cli.options import AsJson, LongLimit, new_group

PATH = "/api/keys"
DEFAULT_SCOPES = ("read", "write")
RATE_EXAMPLES = "'POST /api/search=600/minute' or '*=unlimited'"

keys = new_group("API keys: list, create, update, rotate, revoke.")

KeyId = Annotated[str, typer.Argument(help="Id of the key, or its first letters.", metavar="ID")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Another tenant; requires the scope operator.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="read, write, admin, operator, kind:NAME or collection:NAME; repeatable."),
]
Rates = Annotated[list[str] | None, typer.Option("--rate", help=f"{RATE_EXAMPLES}; repeatable.")]


@keys.command("list")
def list_keys(tenant: Tenant = None, limit: LongLimit = 50, as_json: AsJson = False) -> int:
    """List keys, the newest first; `--tenant '*'` lists those of all tenants."""
    with http.ApiClient() as api:
        page = api.get(PATH, tenant=tenant, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("id", "tenant", "name", "scopes", "state", "last used")
    for key in page["data"]:
        last_used = str(key["last_used_at"] or "never")[:19]
        cells = (key["id"], key["tenant"], key["name"], " ".join(key["scopes"]), key["state"], last_used)
        table.add_row(*map(output.plain, cells))
    output.print_page(table, page)
    return exit_codes.OK


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Purpose of the key.")],
    scope: Scopes = None,
    tenant: Tenant = None,
    rate: Rates = None,
    expires: Annotated[str | None, typer.Option(help="End of validity: 2027-01-31T00:00:00Z.")] = None,
    as_json: AsJson = False,
) -> int:
    """Create a key and show its secret this once; without --scope it may read and write."""
    body = {
        "name": name,
        "scopes": list(scope or DEFAULT_SCOPES),
        "tenant": tenant,
        "rate_limits": _parse_rates(rate or ()),
        "expires_at": expires,
    }
    with http.ApiClient() as api:
        return _print_key(api.post(PATH, body), as_json)


@keys.command("update")
@keys.command("change", hidden=True)
def update_key(
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="Purpose of the key.")] = None,
    scope: Scopes = None,
    rate: Rates = None,
    as_json: AsJson = False,
) -> int:
    """Set the name, the scopes or the rate limits of a key."""
    given = {"name": name, "scopes": scope, "rate_limits": None if rate is None else _parse_rates(rate)}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise CliExit(exit_codes.USAGE, "nothing to update: give --name, --scope or --rate")
    with http.ApiClient() as api:
        return _print_key(api.patch(f"{PATH}/{api.full_id(PATH, key_id)}", body), as_json)


@keys.command("rotate")
def rotate_key(
    key_id: KeyId,
    overlap_s: Annotated[
        float, typer.Option("--overlap", metavar="SECONDS", min=0, help="Time the old secret stays valid.")
    ] = 0,
    as_json: AsJson = False,
) -> int:
    """Give a key a new secret and show it this once."""
    with http.ApiClient() as api:
        return _print_key(api.post(f"{PATH}/{api.full_id(PATH, key_id)}/rotate", {"overlap_s": overlap_s}), as_json)


@keys.command("revoke")
def revoke_key(key_id: KeyId, as_json: AsJson = False) -> int:
    """Revoke a key and close the streams that were opened with it."""
    with http.ApiClient() as api:
        return _print_key(api.delete(f"{PATH}/{api.full_id(PATH, key_id)}"), as_json)


def _parse_rates(options: Sequence[str]) -> dict[str, str]:
    rates = {}
    for option in options:
        route, equals, rate = option.rpartition("=")
        if not (route and equals and rate):
            raise CliExit(exit_codes.USAGE, f"--rate must be ROUTE=RATE, such as {RATE_EXAMPLES}, not {option!r}")
        rates[route.strip()] = rate.strip()
    return rates


def _print_key(key: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(key)
        return exit_codes.OK
    output.out.print(f"[bold]{output.plain(key['name'])}[/] {key['id']}  {key['state']}")
    facts = {"tenant": key["tenant"], "scopes": " ".join(key["scopes"]), "expires": key["expires_at"]}
    limits = {f"limit {route}": rate for route, rate in key["rate_limits"].items()}
    for name, value in (facts | limits).items():
        if value is not None:
            output.out.print(f"  {output.plain(name)}  {output.plain(value)}")
    if "key" in key and key["key"] is None:
        output.err.print(f"The key exists, but its secret was lost: run millrace keys rotate {key['id']}")
    elif "key" in key:
        output.err.print("Shown this once:")
        output.out.print(output.plain(key["key"]))
    return exit_codes.OK
