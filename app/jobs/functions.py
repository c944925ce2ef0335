"""The function that runs each kind, as modules declared it, and the import of a user's modules."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from app.core.errors import ConfigError
from app.jobs.definition import Job


class DeclaredFunction(NamedTuple):
    """A kind and the function that runs it."""

    definition: type[Job]
    function: Callable[..., Any]


_declared: dict[str, DeclaredFunction] = {}


def declare(definition: type[Job], function: Callable[..., Any]) -> None:
    """Register the function of a kind. Raises TypeError if the kind has another function."""
    other = _declared.get(definition.kind)
    if other is not None and other.function.__qualname__ != function.__qualname__:
        name = f"{other.function.__qualname__} and {function.__qualname__}"
        raise TypeError(f"kind {definition.kind!r} has two functions: {name}")
    _declared[definition.kind] = DeclaredFunction(definition, function)


def list_declared() -> list[DeclaredFunction]:
    """Return all declarations in their order."""
    return list(_declared.values())


def function_of(kind: str) -> DeclaredFunction | None:
    return _declared.get(kind)


def import_modules(modules: Iterable[str]) -> None:
    """Import the modules that MILLRACE_MODULES names. Raises ConfigError for one that cannot be imported."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(f"MILLRACE_MODULES names {name}, which cannot be found") from error
            raise ConfigError(f"MILLRACE_MODULES: {name} cannot be imported: {error}") from error
        except ImportError as error:
            raise ConfigError(f"MILLRACE_MODULES: {name} cannot be imported: {error}") from error
