"""Kinds of job: the payload as a typed class, and the options of its runs.

    class IngestDocument(Job, kind="documents.ingest", stages={"extract": 1, "embed": 4}):
        document_id: int

A program that enqueues needs only this; the actor that runs the job lives in the worker.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from app.core.errors import InvalidInput
from app.jobs.definition_checks import (
    DefinitionError,
    StoredForm,
    check_fields,
    check_kind_name,
    check_options,
)
from app.jobs.queues import QUEUES, Queue

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.jobs.models import JobRow

OnEnd = Callable[["Session", "JobRow"], None]

OpenTo = Literal["write", "admin", "operator"]

MAX_NAMED_FAULTS = 5

_CALLED = ("on_end", "unique_key", "start_rate_key")


@dataclass(frozen=True, slots=True)
class Throttle:
    """At most one start in `seconds`; later requests get the first job, even after its end."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Debounce:
    """Start `seconds` after the last request, with the last payload, at most max_wait_s after the first."""

    seconds: float
    max_wait_s: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Up to `calls` in `per_s` seconds; `burst` of them may come at once."""

    calls: float
    per_s: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        if self.calls <= 0 or self.per_s <= 0 or self.burst < 1:
            raise ValueError(f"invalid rate: {self}")

    @property
    def gap_s(self) -> float:
        return self.per_s / self.calls


_registry: dict[str, type[Job]] = {}


class Job(BaseModel):
    """A payload; the class variables are the options of its kind.

    time_limit_s: the soft limit; the run is killed grace_s after it. max_tries and retry_delays (seconds): None takes
    the settings. running_cap: number of jobs of the kind that run at once, on all workers together. start_rate: rate of
    starts, for the kind or for each start_rate_key(job). stages: name → weight, in their order; percent is computed
    from them. on_end(session, row) runs inside the transaction that ends the job.
    """

    # Infinities and NaN have no JSON form; where a field allows them, payload_json finds and refuses them.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")

    stored_form: ClassVar[StoredForm] = StoredForm()
    kind: ClassVar[str] = ""
    queue: ClassVar[Queue] = "default"
    time_limit_s: ClassVar[float] = 600.0
    grace_s: ClassVar[float] = 10.0
    max_tries: ClassVar[int | None] = None
    retry_delays: ClassVar[tuple[float, ...] | None] = None
    stages: ClassVar[Mapping[str, float]] = {}
    payload_version: ClassVar[int] = 1
    memory_mb: ClassVar[int | None] = None
    running_cap: ClassVar[int | None] = None
    start_rate: ClassVar[Rate | None] = None
    start_rate_key: ClassVar[Callable[[Any], object] | None] = None
    on_end: ClassVar[OnEnd | None] = None
    unique_key: ClassVar[Callable[[Any], object] | None] = None
    unique: ClassVar[Throttle | Debounce | None] = None
    open_to: ClassVar[OpenTo | None] = None
    priority: ClassVar[int] = 0
    webhook_url: ClassVar[str | None] = None

    def __init_subclass__(cls, *, kind: str = "", **options: Any) -> None:
        super().__init_subclass__()
        for name, value in options.items():
            if name not in Job.__class_vars__ or name == "stored_form":
                raise DefinitionError(f"{cls.__name__}: {name!r} is not an option of a job")
            setattr(cls, name, staticmethod(value) if name in _CALLED and value else value)
        if not kind:
            return
        check_kind_name(cls.__name__, kind)
        check_options(
            cls.__name__, lambda name: getattr(cls, name), {"start_rate": (Rate,), "unique": (Throttle, Debounce)}
        )
        if cls.queue not in QUEUES:
            raise DefinitionError(f"{cls.__name__}: queue {cls.queue!r} is not one of {', '.join(QUEUES)}")
        if cls.open_to is not None and cls.open_to not in get_args(OpenTo):
            raise DefinitionError(f"{cls.__name__}: open_to must be None or one of {', '.join(get_args(OpenTo))}")
        other = _registry.get(kind)
        if other is not None and not is_same_definition(other, cls):
            raise DefinitionError(f"kind {kind!r} is defined twice: by {_name_of(other)} and {_name_of(cls)}")
        cls.kind = kind
        _registry[kind] = cls

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        hidden = sorted(cls.model_fields.keys() & (Job.__class_vars__ | {"load", "upgrade"}))
        if hidden:
            message = f"{hidden[0]!r} is an option of every job; use another name for the field"
            raise DefinitionError(f"{cls.__name__}: {message}")
        cls.stored_form = check_fields(cls)

    @classmethod
    def upgrade(cls, payload: dict[str, Any], version: int) -> dict[str, Any]:
        """Convert the payload of an older version to the present form; kinds whose payload changed override this."""
        return payload

    @classmethod
    def load(cls, payload: dict[str, Any], version: int) -> Self:
        """Return the checked payload; a field may be given by its name or its alias.

        Raises InvalidInput if the payload is not valid (any more); the message and `errors` name the fields.
        """
        if version > cls.payload_version:
            raise InvalidInput(
                f"{cls.kind}: payload version {version} is newer than this program's {cls.payload_version}",
                code="payload_version",
            )
        try:
            current = cls.upgrade(payload, version) if version < cls.payload_version else payload
            if cls.stored_form.is_strict:
                return cls.model_validate_json(json.dumps(current), by_alias=True, by_name=True)
            return cls.model_validate(current, by_alias=True, by_name=True)
        except ValidationError as error:
            faults = [{"field": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
            message = f"{cls.kind}: the payload is not valid: {_summary(faults)}"
            raise InvalidInput(message, code="payload", errors=faults) from error


def _summary(faults: list[dict[str, str]]) -> str:
    """Return the first faults in one line, each with its field."""
    parts = [f"{fault['field'] or 'payload'}: {fault['message']}" for fault in faults[:MAX_NAMED_FAULTS]]
    more = len(faults) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more else "")


def is_same_definition(first: Any, second: Any) -> bool:
    """Return True if both come from one place in the source: a module that was loaded again, or run as a script."""
    modules = {first.__module__, second.__module__} - {"__main__"}
    return bool(first.__qualname__ == second.__qualname__ and len(modules) <= 1)


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def definition(kind: str) -> type[Job] | None:
    """Return the class of a kind, or None if this program does not know it."""
    return _registry.get(kind)


def kinds() -> list[str]:
    return sorted(_registry)


def caps() -> dict[str, int | None]:
    """Return the running_cap of each kind; None where its definition sets none."""
    return {kind: definition.running_cap for kind, definition in _registry.items()}
