"""`millrace config`: the settings of this installation."""

from __future__ import annotations

from app.cli import exit_codes
from app.cli.lazy import backups, output, profiles, setting_list
from app.cli.options import AsJson, new_group

config = new_group("Settings.")


@config.command("show")
def show_config(as_json: AsJson = False) -> int:
    """Show every setting with its value, source and meaning."""
    rows = setting_list.list_settings(profiles.settings())
    if as_json:
        output.emit(rows)
        return exit_codes.OK
    for row in rows:
        value = output.plain(row["value"]) or "[dim]-[/]"
        output.out.print(f"[bold]{row['name']}[/] = {value}  [dim]{output.plain(row['source'])}[/]")
        output.out.print(f"    {output.plain(row['meaning'])}")
    return exit_codes.OK


@config.command("accept-store")
def accept_store(as_json: AsJson = False) -> int:
    """Make the store of originals of these settings the one that all processes must use."""
    url = backups.accept_store()
    if as_json:
        output.emit({"store": url})
    else:
        output.out.print(f"{output.plain(url)} is the store of originals; start the processes again")
    return exit_codes.OK
