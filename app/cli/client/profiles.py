"""Choose the server of a command: a profile, the environment's server, or the installation on this machine.

# ~/.config/millrace/config.toml
profile = "work"                     # the default

[profiles.work]
url = "https://millrace.example.org"
api_key = "mr_…"                     # or api_key_file = "…", a file that holds the key
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.core.errors import ConfigError
from app.core.settings import Settings, get_settings

_chosen = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """Address and key of one server. A key is never sent to another server than the one it belongs to."""

    url: str
    key: str
    source: str


def choose(name: str) -> None:
    """Set the profile of `--profile`; it has precedence over every other source."""
    global _chosen
    _chosen = name


def settings() -> Settings:
    """Return the settings. Raises CliExit if one of them is wrong."""
    try:
        return get_settings()
    except ConfigError as error:
        raise CliExit(exit_codes.USAGE, error.message) from error


def current() -> Profile:
    """Return the profile of this command. Raises CliExit if it does not exist or is incomplete."""
    here = settings()
    name = _chosen or here.profile
    if name:
        return _read_profile(here, name)
    if here.url or here.api_key.get_secret_value():
        key = here.api_key.get_secret_value() or here.api_secret.get_secret_value()
        return Profile(here.api_url, key, "the environment")
    default = _read_file(here).get("profile")
    return _read_profile(here, str(default)) if default else local()


def local() -> Profile:
    """Return the installation on this machine, whatever else is set."""
    here = settings()
    return Profile(here.local_url, here.api_secret.get_secret_value(), installation())


def installation() -> str:
    """Return the words for the installation on this machine, for messages."""
    return f"this machine, data in {settings().data_dir.resolve()}"


def _read_profile(here: Settings, name: str) -> Profile:
    profiles = _read_file(here).get("profiles", {})
    profile = profiles.get(name) if isinstance(profiles, dict) else None
    path = _path(here)
    if not isinstance(profile, dict):
        known = ", ".join(sorted(profiles)) if isinstance(profiles, dict) and profiles else "none"
        raise CliExit(exit_codes.USAGE, f"profile '{name}' is not in {path} (profiles: {known})")
    url = profile.get("url")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        message = f"profile '{name}' in {path} needs a url that begins with http:// or https://, not {url!r}"
        raise CliExit(exit_codes.USAGE, message)
    return Profile(url, _read_key(profile, name, path), f"profile '{name}'")


def _read_key(profile: dict[str, Any], name: str, path: Path) -> str:
    key_file = profile.get("api_key_file")
    if not key_file:
        return str(profile.get("api_key", ""))
    try:
        return (path.parent / Path(str(key_file)).expanduser()).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliExit(exit_codes.USAGE, f"profile '{name}': api_key_file cannot be read: {error}") from error


def _read_file(here: Settings) -> dict[str, Any]:
    path = _path(here)
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CliExit(exit_codes.USAGE, f"{path} cannot be read: {error}") from error


def _path(here: Settings) -> Path:
    try:
        return here.profiles.expanduser()
    except RuntimeError:  # a user without a home folder, as in a container
        return here.profiles
