"""`millrace deliveries`: webhooks that other services sent to this one."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.cli import exit_codes
from app.cli.lazy import http, output
from app.cli.options import AsJson, LongLimit, new_group

PATH = "/api/deliveries/in"
COLUMNS = ("id", "received_at", "source", "event_type", "outcome", "jobs", "repeats")

deliveries = new_group("Deliveries: webhooks that other services sent to this one.")

DeliveryId = Annotated[str, typer.Argument(help="Id of the delivery.", metavar="ID")]


@deliveries.command("list")
def list_deliveries(
    source: Annotated[Literal["firecrawl", "changedetection"] | None, typer.Option(help="Only this source.")] = None,
    outcome: Annotated[Literal["accepted", "acknowledged"] | None, typer.Option(help="Only this outcome.")] = None,
    limit: LongLimit = 50,
    as_json: AsJson = False,
) -> int:
    """List deliveries, the newest first."""
    with http.ApiClient() as api:
        page = api.get(PATH, source=source, outcome=outcome, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("id", "received", "source", "event", "outcome", "jobs", "repeats")
    for delivery in page["data"]:
        table.add_row(*(output.plain(delivery[name]) for name in COLUMNS))
    output.print_page(table, page)
    return exit_codes.OK


@deliveries.command("show")
def show_delivery(delivery_id: DeliveryId, as_json: AsJson = False) -> int:
    """Show one delivery, with its body if that is short."""
    with http.ApiClient() as api:
        delivery = api.get(f"{PATH}/{delivery_id}")
    if as_json:
        output.emit(delivery)
        return exit_codes.OK
    for name, value in delivery.items():
        output.out.print(f"[bold]{name}[/]  {output.plain(value)}")
    return exit_codes.OK


@deliveries.command("replay")
def replay_delivery(delivery_id: DeliveryId, as_json: AsJson = False) -> int:
    """Handle a stored delivery again (scope admin)."""
    with http.ApiClient() as api:
        result = api.post(f"{PATH}/{delivery_id}/replay")
    if as_json:
        output.emit(result)
    else:
        output.out.print(f"{result['status']}  {output.plain(result['answer'])}")
    return exit_codes.OK
