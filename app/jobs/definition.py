"""Kinds of job: the payload as a typed class, and the options of its runs.

    class IngestDocument(Job, kind="documents.ingest", stages={"extract": 1, "embed": 4}):
        document_id: int

A program that enqueues needs only this; the actor that runs the job lives in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from app.core.errors import InvalidInput
from app.jobs.queues import QUEUES, Queue

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.jobs.models import JobRow

OnEnd = Callable[["Session", "JobRow"], None]

OpenTo = Literal["write", "admin", "operator"]

MAX_PRIORITY = 100
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

    model_config = ConfigDict(extra="forbid", frozen=True)

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
            if name not in Job.__class_vars__:
                raise TypeError(f"{cls.__name__}: {name!r} is not an option of a job")
            setattr(cls, name, staticmethod(value) if name in _CALLED and value else value)
        if not kind:
            return
        if cls.queue not in QUEUES:
            raise TypeError(f"{cls.__name__}: queue {cls.queue!r} is not one of {', '.join(QUEUES)}")
        if cls.open_to is not None and cls.open_to not in get_args(OpenTo):
            raise TypeError(f"{cls.__name__}: open_to must be None or one of {', '.join(get_args(OpenTo))}")
        if abs(cls.priority) > MAX_PRIORITY:
            raise TypeError(f"{cls.__name__}: priority is between -{MAX_PRIORITY} and {MAX_PRIORITY}")
        other = _registry.get(kind)
        if other is not None and other.__qualname__ != cls.__qualname__:
            raise TypeError(f"kind {kind!r} is defined twice: {other.__qualname__} and {cls.__qualname__}")
        cls.kind = kind
        _registry[kind] = cls

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        hidden = sorted(cls.model_fields.keys() & (Job.__class_vars__ | {"load", "upgrade"}))
        if hidden:
            raise TypeError(f"{cls.__name__}: {hidden[0]!r} is an option of every job; use another name for the field")

    @classmethod
    def upgrade(cls, payload: dict[str, Any], version: int) -> dict[str, Any]:
        """Convert the payload of an older version to the present form; kinds whose payload changed override this."""
        return payload

    @classmethod
    def load(cls, payload: dict[str, Any], version: int) -> Self:
        """Return the checked payload. Raises InvalidInput if it is not valid (any more)."""
        if version > cls.payload_version:
            raise InvalidInput(
                f"{cls.kind}: payload version {version} is newer than this program's {cls.payload_version}",
                code="payload_version",
            )
        try:
            return cls.model_validate(cls.upgrade(payload, version) if version < cls.payload_version else payload)
        except ValidationError as error:
            faults = [{"field": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
            raise InvalidInput(f"{cls.kind}: the payload is not valid", code="payload", errors=faults) from error


def definition(kind: str) -> type[Job] | None:
    """Return the class of a kind, or None if this program does not know it."""
    return _registry.get(kind)


def kinds() -> list[str]:
    return sorted(_registry)


def caps() -> dict[str, int | None]:
    """Return the running_cap of each kind; None where its definition sets none."""
    return {kind: definition.running_cap for kind, definition in _registry.items()}
