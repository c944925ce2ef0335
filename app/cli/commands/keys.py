"""`millrace keys`: list, create, change, rotate and revoke."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client.http import Server
from app.cli.exit_codes import Quit

READ_AND_WRITE = ("read", "write")


def show_list(*, tenant: str | None, limit: int, as_json: bool) -> int:
    """The newest keys first."""
    with Server() as server:
        page = server.get("/api/keys", tenant=tenant, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("id", "tenant", "name", "scopes", "state", "last used", box=None, pad_edge=False)
    for key in page["data"]:
        used = str(key["last_used_at"] or "never")[:19]
        facts = (key["id"], key["tenant"], key["name"], " ".join(key["scopes"]), key["state"], used)
        table.add_row(*map(output.text, facts))
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK


def create(
    name: str,
    *,
    scopes: Sequence[str] | None,
    tenant: str | None,
    rates: Sequence[str] | None,
    expires: str | None,
    as_json: bool,
) -> int:
    """A new key, shown this once."""
    body = {
        "name": name,
        "scopes": list(scopes or READ_AND_WRITE),
        "tenant": tenant,
        "rate_limits": _rates(rates or ()),
        "expires_at": expires,
    }
    with Server() as server:
        return _show(server.post("/api/keys", body), as_json)


def change(
    key_id: str, *, name: str | None, scopes: Sequence[str] | None, rates: Sequence[str] | None, as_json: bool
) -> int:
    """The key with what was given changed."""
    given = {"name": name, "scopes": scopes, "rate_limits": None if rates is None else _rates(rates)}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise Quit(exit_codes.BAD_USE, "nothing to change: give --name, --scope or --rate")
    with Server() as server:
        return _show(server.patch(f"/api/keys/{key_id}", body), as_json)


def rotate(key_id: str, *, overlap_s: float, as_json: bool) -> int:
    """The key with a new secret, shown this once."""
    with Server() as server:
        return _show(server.post(f"/api/keys/{key_id}/rotate", {"overlap_s": overlap_s}), as_json)


def revoke(key_id: str, *, as_json: bool) -> int:
    with Server() as server:
        return _show(server.delete(f"/api/keys/{key_id}"), as_json)


def _rates(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.rpartition("=") for text in given]
    for route, equals, rate in pairs:
        if not (route and equals and rate):
            raise Quit(
                exit_codes.BAD_USE, "--rate: say ROUTE=RATE, such as 'POST /api/search=600/minute' or '*=unlimited'"
            )
    return {route.strip(): rate.strip() for route, _, rate in pairs}


def _show(key: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(key)
        return exit_codes.OK
    output.out.print(f"[bold]{output.text(key['name'])}[/] {key['id']}  {key['state']}")
    facts = {"tenant": key["tenant"], "scopes": " ".join(key["scopes"]), "expires": key["expires_at"]}
    limits = {f"limit {route}": rate for route, rate in key["rate_limits"].items()}
    for name, value in (facts | limits).items():
        if value is not None:
            output.out.print(f"  {output.text(name)}  {output.text(value)}")
    if "key" in key and key["key"] is None:
        output.err.print(f"It was made, but its secret was lost on the way: millrace keys rotate {key['id']}")
    elif "key" in key:
        output.err.print("Shown this once:")
        output.out.print(output.text(key["key"]))
    return exit_codes.OK
