"""The table that all benchmarks fill: the measured value, that of the peer, and the target."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """`number` is the target's in the design; `met` None where there is nothing to reach."""

    number: str
    what: str
    ours: str
    peer: str
    target: str
    met: bool | None = None


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies, 0.5 being the median."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> str:
    """Return a line that describes this machine."""
    memory = 0
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        memory = round(int(meminfo.read_text().split()[1]) / 1024**2)
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} shared cores, {memory} GiB, {platform.system()} {platform.machine()}, {python}"


def markdown(rows: Sequence[Row]) -> str:
    """A table for people, with a tick where the target was reached."""
    lines = ["| # | what | here | beside it | to reach | |", "|---|---|---|---|---|---|"]
    for row in rows:
        mark = {True: "yes", False: "**no**", None: ""}[row.met]
        lines.append(f"| {row.number} | {row.what} | {row.ours} | {row.peer} | {row.target} | {mark} |")
    return "\n".join(lines)
