"""Which server a command talks to: a profile's, the one the environment names, or the installation at hand.

# ~/.config/millrace/config.toml
profile = "work"                     # for commands that say nothing else

[profiles.work]
url = "https://millrace.example.org"
api_key = "mr_…"                     # or api_key_file = "…", a file that holds it
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.cli import exit_codes
from app.cli.exit_codes import Quit
from app.core.errors import ConfigError
from app.core.settings import Settings, get_settings

_chosen = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Address and key, which belong together: no key is ever sent to another server than its own."""

    url: str
    key: str
    source: str


def choose(profile: str) -> None:
    """What `--profile` said; it goes before everything else."""
    global _chosen
    _chosen = profile


def settings() -> Settings:
    """The settings of this command; a wrong one ends it with one sentence."""
    try:
        return get_settings()
    except ConfigError as error:
        raise Quit(exit_codes.BAD_USE, error.message) from error


def place() -> Place:
    """Raises Quit where a profile is asked for and is not there, or not whole."""
    here = settings()
    named = _chosen or here.profile
    if named:
        return _profile(here, named)
    if here.url or here.api_key.get_secret_value():
        return Place(here.api_url, _own_key(here), "the environment")
    usual = _file(here).get("profile")
    return _profile(here, str(usual)) if usual else local()


def local() -> Place:
    """The installation at hand, whatever else is set."""
    here = settings()
    return Place(f"http://{here.host}:{here.port}", here.api_secret.get_secret_value(), "this machine")


def _own_key(here: Settings) -> str:
    return here.api_key.get_secret_value() or here.api_secret.get_secret_value()


def _profile(here: Settings, name: str) -> Place:
    profiles = _file(here).get("profiles", {})
    profile = profiles.get(name) if isinstance(profiles, dict) else None
    path = _path(here)
    if not isinstance(profile, dict):
        known = ", ".join(sorted(profiles)) if isinstance(profiles, dict) and profiles else "none"
        raise Quit(exit_codes.BAD_USE, f"there is no profile '{name}' in {path} (there: {known})")
    url = profile.get("url")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise Quit(exit_codes.BAD_USE, f"profile '{name}' in {path} needs a url that begins with http:// or https://")
    return Place(url, _key(profile, name, path), f"profile '{name}'")


def _key(profile: dict[str, Any], name: str, path: Path) -> str:
    beside = profile.get("api_key_file")
    if not beside:
        return str(profile.get("api_key", ""))
    try:
        return (path.parent / Path(str(beside)).expanduser()).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Quit(exit_codes.BAD_USE, f"profile '{name}': the key cannot be read: {error}") from error


def _file(here: Settings) -> dict[str, Any]:
    path = _path(here)
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Quit(exit_codes.BAD_USE, f"{path} cannot be read: {error}") from error


def _path(here: Settings) -> Path:
    return here.profiles.expanduser()
