"""Print results: JSON for programs, tables and progress bars for people. Bars appear only on a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
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

NAME_WIDTH = 36  # fixed, so that bars keep their columns while jobs come and go

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def emit(value: Any) -> None:
    """Write one JSON value as a line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def style_state(state: str) -> str:
    """Return the state of a job in its colour."""
    return f"[{STATE_STYLES.get(state, 'white')}]{state}[/]"


def plain(value: object) -> str:
    """Return the value as text in which rich finds no markup."""
    return escape("" if value is None else str(value))


def new_table(*columns: str) -> Table:
    """Return a table without borders."""
    return Table(*columns, box=None, pad_edge=False)


def print_page(table: Table, page: dict[str, Any]) -> None:
    """Print the rows of one page of the API, and a hint if more rows exist."""
    out.print(table)
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
