"""Checks of a job definition when it is declared, so that a wrong one stops the start and not each run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, PlainSerializer, Secret, SecretBytes, SecretStr, Strict, WrapSerializer
from pydantic.fields import FieldInfo

MAX_KIND_CHARS = 100
MAX_PRIORITY = 100
_SECRETS = (SecretStr, SecretBytes)
_SERIALIZERS = (PlainSerializer, WrapSerializer)


class DefinitionError(TypeError):
    """A job definition that could not work; the message is one sentence that names the class."""


class StoredForm(NamedTuple):
    """Rules for storing and loading the payloads of a kind.

    needs_check: fields define serializers, so each payload is loaded once before it is stored.
    is_strict: fields accept only their own type, so a payload is validated as JSON text.
    """

    needs_check: bool = False
    is_strict: bool = False


class _Option(NamedTuple):
    is_valid: Callable[[Any], bool]
    expected: str


def _is_number(value: Any, *, above: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > above


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _are_delays(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(item == 0 or _is_number(item, above=0) for item in value)


def _are_stages(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and _is_number(weight, above=0) for name, weight in value.items()
    )


def _is_web_address(value: Any) -> bool:
    return isinstance(value, str) and urlsplit(value).scheme in ("http", "https") and bool(urlsplit(value).hostname)


_SECONDS = _Option(lambda value: _is_number(value, above=0), "a number of seconds above 0")
_COUNT = _Option(lambda value: value is None or _is_count(value), "a whole number from 1, or None")
_FUNCTION = _Option(lambda value: value is None or callable(value), "a function, or None")
_OPTIONS: dict[str, _Option] = {
    "time_limit_s": _SECONDS,
    "grace_s": _Option(lambda value: value == 0 or _is_number(value, above=0), "a number of seconds from 0"),
    "max_tries": _COUNT,
    "retry_delays": _Option(
        lambda value: value is None or _are_delays(value), "a tuple of seconds such as (60,), or None"
    ),
    "stages": _Option(_are_stages, "a dictionary of stage names with weights above 0"),
    "payload_version": _Option(_is_count, "a whole number from 1"),
    "memory_mb": _COUNT,
    "running_cap": _COUNT,
    "priority": _Option(
        lambda value: type(value) is int and abs(value) <= MAX_PRIORITY,
        f"a whole number between -{MAX_PRIORITY} and {MAX_PRIORITY}",
    ),
    "webhook_url": _Option(lambda value: value is None or _is_web_address(value), "an http or https address, or None"),
    "start_rate_key": _FUNCTION,
    "on_end": _FUNCTION,
    "unique_key": _FUNCTION,
}


def check_kind_name(owner: str, kind: Any) -> None:
    """Raise DefinitionError for a kind that no caller could name."""
    if not isinstance(kind, str) or not kind or len(kind) > MAX_KIND_CHARS or kind.split() != [kind]:
        message = f"must be a name of up to {MAX_KIND_CHARS} characters without blanks, not {kind!r}"
        raise DefinitionError(f"{owner}: kind {message}")


def check_options(owner: str, option_of: Callable[[str], Any], types: Mapping[str, tuple[type, ...]]) -> None:
    """Raise DefinitionError for the first option with a wrong value.

    types: options whose value is None or of these classes.
    """
    for name, option in _OPTIONS.items():
        value = option_of(name)
        if not option.is_valid(value):
            raise DefinitionError(f"{owner}: {name} must be {option.expected}, not {value!r}")
    for name, classes in types.items():
        value = option_of(name)
        if value is not None and not isinstance(value, classes):
            names = " or ".join(each.__name__ for each in classes)
            raise DefinitionError(f"{owner}: {name} must be a {names}, or None, not {value!r}")


def check_fields(model: type[BaseModel]) -> StoredForm:
    """Return how payloads of this definition are stored.

    Raises DefinitionError for a field whose value would not survive being stored: one that is excluded, a secret, or
    one whose alias is the name of another field.
    """
    owner = model.__name__
    for name, field in model.model_fields.items():
        for alias in (field.alias, field.validation_alias):
            if isinstance(alias, str) and alias != name and alias in model.model_fields:
                raise DefinitionError(f"{owner}: the alias {alias!r} of {name!r} is the name of another field")
    needs_check, is_strict = False, model.model_config.get("strict") is True
    for part in _walk_model(model, "", frozenset()):
        if part.is_secret:
            raise DefinitionError(
                f"{owner}: {part.path!r} is a secret, and a payload is stored as plain text; "
                "pass the name of the secret, and let the job read it"
            )
        if part.is_excluded:
            raise DefinitionError(
                f"{owner}: {part.path!r} is excluded from the stored payload, so no job could read it"
            )
        needs_check |= part.has_serializer
        is_strict |= part.is_strict
    return StoredForm(needs_check, is_strict)


def check_function(definition: type, function: Any) -> None:
    """Raise DefinitionError for a function that cannot run jobs of the definition."""
    owner = definition.__name__
    if not inspect.isroutine(function):
        raise DefinitionError(f"{owner}: a job is run by a function, not by {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(f"{owner}: {function.__qualname__} yields; the function of a job returns")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise DefinitionError(f"{owner}: {function.__qualname__} must take two arguments: (job, progress)") from None


class _Part(NamedTuple):
    path: str
    is_secret: bool = False
    is_excluded: bool = False
    has_serializer: bool = False
    is_strict: bool = False


def _walk_model(model: type[BaseModel], path: str, outer: frozenset[type]) -> Iterator[_Part]:
    """Yield the parts of all fields, also of models inside the model; a recursive model is walked once."""
    if model in outer:
        return
    decorators = model.__pydantic_decorators__
    if decorators.field_serializers or decorators.model_serializers:
        yield _Part(path or model.__name__, has_serializer=True)
    for name, field in model.model_fields.items():
        yield from _walk_field(field, f"{path}.{name}" if path else name, outer | {model})


def _walk_field(field: FieldInfo, path: str, outer: frozenset[type]) -> Iterator[_Part]:
    yield _Part(path, is_excluded=bool(field.exclude) or getattr(field, "exclude_if", None) is not None)
    yield from _walk_metadata(field.metadata, path)
    yield from _walk_annotation(field.annotation, path, outer)


def _walk_metadata(metadata: Any, path: str) -> Iterator[_Part]:
    for item in metadata:
        yield _Part(
            path,
            has_serializer=isinstance(item, _SERIALIZERS),
            is_strict=isinstance(item, Strict) and item.strict,
        )


def _walk_annotation(annotation: Any, path: str, outer: frozenset[type]) -> Iterator[_Part]:
    if isinstance(annotation, type):
        if issubclass(annotation, _SECRETS):
            yield _Part(path, is_secret=True)
        elif issubclass(annotation, BaseModel):
            yield from _walk_model(annotation, path, outer)
        elif hasattr(annotation, "__get_pydantic_core_schema__") and not annotation.__module__.startswith("pydantic"):
            yield _Part(path, has_serializer=True)
    if get_origin(annotation) is Secret:
        yield _Part(path, is_secret=True)
    yield from _walk_metadata(getattr(annotation, "__metadata__", ()), path)
    for inner in get_args(annotation):
        yield from _walk_annotation(inner, path, outer)
