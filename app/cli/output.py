"""Print results: JSON for programs, tables and progress bars for people. Bars appear only on a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

STATE_STYLES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "retrying": "magenta",
    "queued": "blue",
}

# Columns of tables that hold prose.
PROSE = {"title", "error", "queues", "kinds", "scopes", "payload", "document", "details", "url", ""}
MIN_PROSE_WIDTH = 12
MAX_TABLE_WIDTH = 10_000

NAME_WIDTH = 36  # fixed, so that bars keep their columns while jobs come and go

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def emit(value: Any) -> None:
    """Write one JSON value as a line of stdout."""
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()


def to_json(value: Any) -> str:
    """Return the value as JSON that the terminal's encoding can write."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, ensure_ascii=not is_utf8)


def style_state(state: str) -> str:
    """Return the state of a job in its colour."""
    return f"[{STATE_STYLES.get(state, 'white')}]{state}[/]"


def plain(value: object) -> str:
    """Return the value as text in which rich finds no markup."""
    return escape("" if value is None else str(value))


def new_table(*columns: str) -> Table:
    """Return a table without borders. Only columns of prose are wrapped; ids, names and times never are."""
    wrapped = [
        Column(name, overflow="fold", min_width=MIN_PROSE_WIDTH) if name in PROSE else Column(name, no_wrap=True)
        for name in columns
    ]
    return Table(*wrapped, box=None, pad_edge=False)


def print_table(table: Table) -> None:
    """Print a table without cutting a cell: a pipe gets one line a row, a terminal too narrow for it wraps lines."""
    wide = Console(file=sys.stdout, width=MAX_TABLE_WIDTH, highlight=False, force_terminal=out.is_terminal)
    needed = Measurement.get(wide, wide.options, table)
    wide.width = max(out.width, needed.minimum) if out.is_terminal else needed.maximum
    wide.print(table, crop=False)


def print_page(table: Table, page: dict[str, Any]) -> None:
    """Print the rows of one page of the API, and a hint if more rows exist."""
    print_table(table)
    if page.get("has_more"):
        out.print("[dim]and more: --limit[/]")


def print_job(job: dict[str, Any], as_json: bool) -> None:
    """Print state and id of a job."""
    if as_json:
        emit(job)
    else:
        out.print(f"{style_state(job['state'])}  {job['id']}")


def print_error(job: dict[str, Any]) -> None:
    """Print the error of a job, if it has one."""
    error = job.get("error")
    if error:
        out.print(f"  [red]{plain(error['type'])}[/] {plain(error['message'])}")


def new_progress() -> Progress:
    """Return progress bars on stderr; they stay hidden unless stderr is a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=Column(width=NAME_WIDTH, no_wrap=True)),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("[dim]{task.fields[stage]}[/]", table_column=Column(width=NAME_WIDTH // 2, no_wrap=True)),
        TimeElapsedColumn(),
        console=err,
        disable=not err.is_terminal,
    )
