"""`millrace up` and `millrace all-in-one`: the whole system on this machine, or as the program of a container."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.lazy import run_container, run_local
from app.cli.options import AsJson


def up(
    demo: Annotated[
        bool | None,
        typer.Option("--demo/--no-demo", help="Index the project's own pages and search them; the default in a clone."),
    ] = None,
    for_s: Annotated[float | None, typer.Option("--for", metavar="SECONDS", help="Stop after this time.")] = None,
    exit_after_demo: Annotated[bool, typer.Option(help="Stop as soon as the demo is done.")] = False,
    as_json: AsJson = False,
) -> int:
    """Start the whole system on this machine and keep it running until Ctrl-C."""
    return run_local.run(demo=demo, for_s=0.0 if exit_after_demo else for_s, as_json=as_json)


def all_in_one() -> int:
    """Run the whole system in one foreground process, as the only program of a container; logs on stdout."""
    return run_container.run()
