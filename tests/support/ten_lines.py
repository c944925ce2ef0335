"""The README's kind of one's own, as files: what tests of a desk and of the image follow letter by letter."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.stack import REPOSITORY

SECTION = "## Your own job in ten lines"


def write(folder: Path) -> list[str]:
    """The section's modules written below the folder; its commands, in their order."""
    section = (REPOSITORY / "README.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    commands: list[str] = []
    for language, text in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
        if language == "sh":
            commands = [line.partition("#")[0].strip() for line in text.splitlines()]
            continue
        path = folder / text.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return commands
