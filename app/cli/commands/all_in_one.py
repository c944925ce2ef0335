"""`millrace all-in-one`: the whole system as the only program of a container."""

from __future__ import annotations

from app.cli.lazy import run_container


def all_in_one() -> int:
    """Run the whole system in one foreground process, as the only program of a container; logs on stdout."""
    return run_container.run()
