"""List the settings: each with its value, its source and its meaning."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_settings import DotEnvSettingsSource

from app.cli.client.profiles import settings
from app.core.logging import mask
from app.core.settings import PREFIX, Settings


def list_settings(here: Settings) -> list[dict[str, Any]]:
    """Return one row a setting. A secret is shown as set or not; the password of a URL is masked."""
    files = {str(path): _names_in(path) for path in (".env", here.data_dir / ".env")}
    rows = []
    for field, about in Settings.model_fields.items():
        name = f"{PREFIX}{field.upper()}"
        row = {"name": name, "value": _format_value(getattr(here, field)), "source": _source(name, files)}
        rows.append(row | {"meaning": about.description or ""})
    return rows


def is_set_by_person(name: str) -> bool:
    """Return True if the setting comes neither from its default nor from the .env that `millrace up` writes."""
    path = Path(".env")
    # In a container the working directory is the data folder.
    is_written_by_up = path.resolve() == (settings().data_dir / ".env").resolve()
    return _source(name, {} if is_written_by_up else {".env": _names_in(path)}) != "default"


def _format_value(value: object) -> str:
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
