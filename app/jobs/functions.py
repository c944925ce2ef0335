"""The function that runs each kind, as modules declared it, and the import of a user's modules."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, NamedTuple

from app.core.errors import ConfigError
from app.jobs.definition import Job, is_same_definition
from app.jobs.definition_checks import DefinitionError, check_function


class DeclaredFunction(NamedTuple):
    """A kind and the function that runs it."""

    definition: type[Job]
    function: Callable[..., Any]


_declared: dict[str, DeclaredFunction] = {}


def declare(definition: type[Job], function: Callable[..., Any]) -> None:
    """Register the function of a kind.

    Raises DefinitionError if the kind has another function, or if this one could not run a job.
    """
    check_function(definition, function)
    other = _declared.get(definition.kind)
    if other is not None and not is_same_definition(other.function, function):
        names = " and ".join(f"{each.__module__}.{each.__qualname__}" for each in (other.function, function))
        raise DefinitionError(f"kind {definition.kind!r} has two functions: {names}")
    _declared[definition.kind] = DeclaredFunction(definition, function)


def list_declared() -> list[DeclaredFunction]:
    """Return all declarations in their order."""
    return list(_declared.values())


def function_of(kind: str) -> DeclaredFunction | None:
    return _declared.get(kind)


def import_modules(modules: Iterable[str]) -> None:
    """Import the modules that MILLRACE_MODULES names.

    Raises ConfigError, in one sentence with the module's name, for one that cannot be imported or declares a kind
    that could not run.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except DefinitionError as error:
            raise ConfigError(f"MILLRACE_MODULES: {name}: {error}") from error
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(f"MILLRACE_MODULES names {name}, which cannot be found") from error
            raise ConfigError(f"MILLRACE_MODULES: {name} cannot be imported: {error}") from error
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split()) or "no message"
            reason = f"{type(error).__name__}: {text}{_place_of(error)}"
            raise ConfigError(f"MILLRACE_MODULES: {name} cannot be imported: {reason}") from error
    _check_names()


def _place_of(error: BaseException) -> str:
    """Return the file and line that raised, in parentheses."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _check_names() -> None:
    """Raise ConfigError for a plain function that a sandbox could not find by its name."""
    for definition, function in _declared.values():
        if inspect.iscoroutinefunction(function):
            continue
        name = f"{function.__module__}.{function.__qualname__}"
        try:
            target = reduce(getattr, function.__qualname__.split("."), sys.modules[function.__module__])
        except (AttributeError, KeyError):
            target = None
        if not callable(target):
            raise ConfigError(
                f"MILLRACE_MODULES: {definition.__module__}: the function of {definition.kind!r} cannot be run in a "
                f"child process: {name} is not a name in its module; define it at the top level of the module"
            )
