"""The one tree of errors: the class carries the meaning, doors and the outcome table translate it.

AppError
├── InvalidInput · NotFound · Conflict · NotAllowed      the caller's; a job that raises one has failed
│   └── TooLarge · Unsupported                           a body of too many bytes, or of no kind that can be read
├── LimitReached(retry_after_s)                          later; a job is retried after that many seconds
├── Later(retry_after_s)                                 a job asks to be run later; no try is counted
├── Cancelled                                            somebody asked the job to stop
├── Stale                                                the fence moved: drop everything, write nothing
├── Interrupted                                          the worker is stopping: handed back, not counted
├── TimeLimitExceeded · LaneCrashed                      retried, counted
├── LaneOutOfMemory                                      failed
├── OutsideError
│   ├── Unavailable                                      retried with backing off
│   └── Rejected                                         a final no: failed
└── ConfigError                                          a setting is wrong: one sentence, exit code 2
"""

from __future__ import annotations

from typing import Any


class AppError(Exception):
    """`code` is a stable word for programs; `errors` lists details, one dict a fault."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.errors = errors or []


class InvalidInput(AppError):
    code = "invalid_input"


class TooLarge(InvalidInput):
    code = "body_too_large"


class Unsupported(InvalidInput):
    code = "unsupported_type"


class NotFound(AppError):
    code = "not_found"


class Conflict(AppError):
    code = "conflict"


class NotAllowed(AppError):
    code = "not_allowed"


class LimitReached(AppError):
    code = "limit_reached"

    def __init__(self, message: str, retry_after_s: float, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class Later(AppError):
    """Raised by a job that would rather run again in so many seconds: it leaves its worker, and no try is counted."""

    code = "later"

    def __init__(self, retry_after_s: float, message: str = "asked to run later", *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class Cancelled(AppError):
    code = "cancelled"


class Stale(AppError):
    code = "stale"


class Interrupted(AppError):
    code = "interrupted"


class TimeLimitExceeded(AppError):
    code = "time_limit"


class LaneCrashed(AppError):
    code = "lane_crashed"


class LaneOutOfMemory(AppError):
    code = "lane_out_of_memory"


class OutsideError(AppError):
    code = "outside"


class Unavailable(OutsideError):
    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class Rejected(OutsideError):
    code = "rejected"


class ConfigError(AppError):
    code = "config"
