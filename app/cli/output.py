"""How commands speak: JSON for programs, tables and bars for people; bars only where a terminal shows them."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

STATE_STYLE = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "retrying": "magenta",
    "queued": "blue",
}

NAME_WIDTH = 36  # fixed, so that bars stand still while jobs come and go

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def emit(value: Any) -> None:
    """One JSON value on a line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def state(word: str) -> str:
    return f"[{STATE_STYLE.get(word, 'white')}]{word}[/]"


def text(value: object) -> str:
    """Foreign text, its brackets harmless."""
    return escape("" if value is None else str(value))


def progress() -> Progress:
    """Bars on stderr, that are not there at all without a terminal."""
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
