"""Write docs/settings.md from the settings themselves: `python scripts/settings_page.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.core.settings import PREFIX, Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
OPENING = """\
# Settings

Every setting is an environment variable or a line of a `.env` file in the working directory; `millrace up` also keeps
a `.env` in its data folder, for the secret and the Redis address it made up. The environment wins over a secret's
file, that over `.env`, and that over the one in the data folder. Any setting may come from a mounted file instead:
`MILLRACE_API_SECRET_FILE=/run/secrets/api` reads the value of `MILLRACE_API_SECRET` there.

`millrace config show` tells what is in force on a machine, and where each value came from. A wrong value stops a
process at its start with one sentence and exit code 2; all wrong ones are named at once.

This page is written by `scripts/settings_page.py`; `make fix` does it.

| variable | default | meaning |
|---|---|---|
"""


def shown(field: FieldInfo) -> str:
    """The default as one would write it in the environment."""
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, list):
        value = ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    if isinstance(value, bool):
        value = "true" if value else "false"
    return f"`{value}`" if str(value) else ""


def page() -> str:
    rows = [
        f"| `{PREFIX}{name.upper()}` | {shown(field)} | {(field.description or '').replace('|', '/')} |"
        for name, field in Settings.model_fields.items()
    ]
    return OPENING + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"wrote {PAGE}\n")
