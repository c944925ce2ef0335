"""Which function runs a kind, as this program's modules declared it; and the modules of a user's own kinds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from app.core.errors import ConfigError
from app.jobs.definition import Job


class Declared(NamedTuple):
    """A kind and the function that runs it."""

    definition: type[Job]
    function: Callable[..., Any]


_declared: dict[str, Declared] = {}


def declare(definition: type[Job], function: Callable[..., Any]) -> None:
    """Raises TypeError where the kind has another function."""
    other = _declared.get(definition.kind)
    if other is not None and other.function.__qualname__ != function.__qualname__:
        name = f"{other.function.__qualname__} and {function.__qualname__}"
        raise TypeError(f"kind {definition.kind!r} has two functions: {name}")
    _declared[definition.kind] = Declared(definition, function)


def declared() -> list[Declared]:
    """All of them, in the order of their declaration."""
    return list(_declared.values())


def function_of(kind: str) -> Declared | None:
    return _declared.get(kind)


def import_own(modules: Iterable[str]) -> None:
    """Import what MILLRACE_MODULES names. Raises ConfigError for what cannot be found."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(f"MILLRACE_MODULES names {name}, which cannot be found") from error
            raise ConfigError(f"MILLRACE_MODULES: {name} cannot be imported: {error}") from error
        except ImportError as error:
            raise ConfigError(f"MILLRACE_MODULES: {name} cannot be imported: {error}") from error
