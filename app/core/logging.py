"""Structured log lines on stderr: JSON, or colours on a terminal; never a secret, never a body."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from app.core.settings import Settings, get_settings
from app.core.telemetry.log_repeats import Repeats

_repeats = Repeats()
# One variable for all names: structlog's own, one per name, cost a job more than its claim.
_standing: dict[str, Any] = {}  # on every line of this process
_bound: ContextVar[dict[str, Any]] = ContextVar("bound", default={})  # noqa: B039  replaced, never changed

_SECRET_NAMES = re.compile(r"secret|password|authorization|api_?key|token$", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(Bearer\s+)\S+|(://[^/\s:@]*:)[^@\s/]+(@)|(mr_[A-Za-z0-9]+_)[A-Za-z0-9_-]+")


def mask(text: str) -> str:
    """Return the text without bearer tokens, API keys and passwords in URLs."""
    return _SECRET_TEXT.sub(lambda m: f"{m[1] or m[2] or m[4] or ''}***{m[3] or ''}", text)


def _masked(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = "***"
        elif isinstance(value, str):
            event[name] = mask(value)
    return event


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return a record as plain masked values: `at` (seconds since 1970), `level`, `logger`, `event` and `fields`.

    `fields` has all other values except those bound to the task; its `exception` is the text of a traceback.
    """
    values = dict(record.msg) if isinstance(record.msg, dict) else {"event": record.getMessage()}
    error: Any = values.pop("exc_info", None) or record.exc_info
    if error is True:
        error = sys.exc_info()
    raised = error[1] if isinstance(error, tuple) else error
    if isinstance(raised, BaseException):
        values["exception"] = "".join(traceback.format_exception(raised))
    event = _masked(None, "", values).pop("event", "")
    own = {"role", "level", "logger", "timestamp", *_bound.get()}
    return {
        "at": record.created,
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": str(event),
        "fields": {str(name): value for name, value in values.items() if name not in own},
    }


def _without_repeats(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Drop repetitions, but no line of a job: its owner reads each of them."""
    return event if "job_id" in _bound.get() else _repeats(logger, name, event)


def _with_bound(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {**_standing, **_bound.get(), **event}


def setup(role: str, *, read_files: bool = True) -> None:
    """Route structlog and the standard library's loggers to one format.

    Without `read_files` only the environment counts: a process that must not hold secrets reads no file of settings.
    """
    global _standing
    settings = get_settings() if read_files else Settings(_env_file=None)
    _standing = {"role": role} | ({"program": settings.program} if settings.program else {})
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        _with_bound,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain tracebacks: the default prints the locals of every frame, with bodies and secrets, and takes a second.
    plain = structlog.dev.plain_traceback
    renderer: list[Any] = [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    if not console:
        renderer = [structlog.processors.format_exc_info, _masked, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[_without_repeats, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _masked, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in ("httpx", "httpcore", "dramatiq.worker.WorkerThread", "trafilatura", "htmldate", "charset_normalizer"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    for chatty in ("alembic", "periodiq", "dramatiq"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for own in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(own).handlers[:] = []
        logging.getLogger(own).propagate = own != "uvicorn.access"


class _Lines(logging.Handler):
    """Passes every line to a collector."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        if "job_id" not in _bound.get():
            return
        try:
            self._take(line_of(record))
        except Exception:  # noqa: BLE001  a line that cannot be stored must not fail its job
            self.handleError(record)


def send_lines(take: Callable[[dict[str, Any]], None] | None) -> None:
    """Pass every line that a job's code logs also to `take`, in the logging thread; None stops it.

    A second call replaces the first.
    """
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, _Lines)]
    if take is not None:
        root.addHandler(_Lines(take))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def fault_over(event: str) -> None:
    """Log the next line of this event at once: the service it complains about has answered again."""
    _repeats.forget(event)


def bind(**values: Any) -> None:
    """Bind values to every line that this thread or task logs from now on."""
    _bound.set(_bound.get() | values)


def unbind(*names: str) -> None:
    _bound.set({name: value for name, value in _bound.get().items() if name not in names})


def bound() -> dict[str, Any]:
    """Return the values bound to this thread's or task's lines."""
    return _bound.get()
