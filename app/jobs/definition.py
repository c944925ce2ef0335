"""What a kind of job is: its payload as a typed class, and how it is run.

    class IngestDocument(Job, kind="documents.ingest", stages={"extract": 1, "embed": 4}):
        document_id: int

The program that enqueues needs only this; the actor that runs it lives in the worker.
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
    """At most one start in so many seconds: others get the first job, even when it has ended."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Debounce:
    """Starts so many seconds after the last call, with the last payload; at the latest max_wait_s after the first."""

    seconds: float
    max_wait_s: float


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls in so many seconds; `burst` of them may come at once."""

    calls: float
    per_s: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        if self.calls <= 0 or self.per_s <= 0 or self.burst < 1:
            raise ValueError(f"not a rate: {self}")

    @property
    def gap_s(self) -> float:
        return self.per_s / self.calls


_registry: dict[str, type[Job]] = {}


class Job(BaseModel):
    """A payload; the class variables say how jobs of this kind run.

    time_limit_s: the soft limit; grace_s after it the run is killed. max_tries and retry_delays (seconds): None takes
    the settings' own. running_cap: how many of the kind run at once, on all workers together. start_rate: how many
    start in a time, of the kind or of what start_rate_key(job) says. stages: name → weight, in their order; percent
    is made of them. on_end(session, row) runs inside the transaction that ends the job.
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
                raise TypeError(f"{cls.__name__}: a job has no option {name!r}")
            setattr(cls, name, staticmethod(value) if name in _CALLED and value else value)
        if not kind:
            return
        if cls.queue not in QUEUES:
            raise TypeError(f"{cls.__name__}: no queue {cls.queue!r}; one of {', '.join(QUEUES)}")
        if cls.open_to is not None and cls.open_to not in get_args(OpenTo):
            raise TypeError(f"{cls.__name__}: open_to is None or one of {', '.join(get_args(OpenTo))}")
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
            raise TypeError(f"{cls.__name__}: {hidden[0]!r} is an option of every job; name the field otherwise")

    @classmethod
    def upgrade(cls, payload: dict[str, Any], version: int) -> dict[str, Any]:
        """The payload of an older version in today's form; kinds whose payload changed override this."""
        return payload

    @classmethod
    def load(cls, payload: dict[str, Any], version: int) -> Self:
        """The checked payload. Raises InvalidInput where it is none (any more)."""
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
    """The class of a kind, None where this program does not know it."""
    return _registry.get(kind)


def kinds() -> list[str]:
    return sorted(_registry)


def caps() -> dict[str, int | None]:
    """How many of each kind may run at once, as the definitions say; None where they say nothing."""
    return {kind: found.running_cap for kind, found in _registry.items()}
