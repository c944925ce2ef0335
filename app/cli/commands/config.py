"""`millrace config show`: each setting with its value, where that came from, and what it means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_settings import DotEnvSettingsSource

from app.cli import exit_codes, output
from app.cli.client.http import settings
from app.core.logging import mask
from app.core.settings import PREFIX, Settings


def show(*, as_json: bool) -> int:
    rows = described(settings())
    if as_json:
        output.emit(rows)
        return exit_codes.OK
    for row in rows:
        value = output.text(row["value"]) or "[dim]-[/]"
        output.out.print(f"[bold]{row['name']}[/] = {value}  [dim]{output.text(row['source'])}[/]")
        output.out.print(f"    {output.text(row['meaning'])}")
    return exit_codes.OK


def described(here: Settings) -> list[dict[str, Any]]:
    """One row a setting; secrets are told as set or not, passwords in URLs are masked."""
    files = {str(path): _names_in(path) for path in (".env", here.data_dir / ".env")}
    rows = []
    for field, about in Settings.model_fields.items():
        name = f"{PREFIX}{field.upper()}"
        row = {"name": name, "value": _shown(getattr(here, field)), "source": _source(name, files)}
        rows.append(row | {"meaning": about.description or ""})
    return rows


def given_by_person(name: str) -> bool:
    """Whether a person set it, rather than the default or what `millrace up` keeps in the data folder."""
    here = Path(".env")
    # In a container the working directory is the data folder.
    kept = here.resolve() == (settings().data_dir / ".env").resolve()
    return _source(name, {} if kept else {".env": _names_in(here)}) != "default"


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        if "://" in secret:
            return mask(secret)
        return "(set)" if secret else ""
    if isinstance(value, list):
        return ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return mask(str(value))


def _names_in(path: Any) -> set[str]:
    source = DotEnvSettingsSource(Settings, env_file=path)
    return {name.upper() for name in source.env_vars}


def _source(name: str, files: dict[str, set[str]]) -> str:
    if name in os.environ:
        return "environment"
    if f"{name}_FILE" in os.environ:
        return f"file {os.environ[f'{name}_FILE']}"
    return next((path for path, names in files.items() if name in names), "default")
