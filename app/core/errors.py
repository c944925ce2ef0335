"""The one tree of errors: the class carries the meaning, the API and the outcome table translate it.

AppError
├── InvalidInput                                         the caller's fault; a job that raises it has failed
│   ├── TooLarge                                         a body of too many bytes
│   └── Unsupported                                      a body of a kind that cannot be read
├── NotFound · Conflict · NotAllowed                     as InvalidInput
│   ├── CollectionNotFound (a NotFound)                  no collection of this name, or none the key may use
│   ├── QuotaReached (a Conflict)                        the tenant stores as much as it may
│   └── Unauthenticated (a NotAllowed)                   no valid key
├── LimitReached(retry_after_s)                          a job is retried after that many seconds
│   └── JobQuotaReached                                  the tenant has as many open jobs as it may
├── Snooze(retry_after_s)                                a job asks to run later; no try is counted
├── Cancelled                                            a caller asked the job to stop
├── Stale                                                the fence moved: drop everything, write nothing
├── Interrupted                                          the worker is stopping: handed back, not counted
├── TimeLimitExceeded · SandboxCrashed                   retried, counted
│   └── LoopBlocked (a TimeLimitExceeded)                its process ends, and this job alone is counted
├── SandboxOutOfMemory                                   failed
├── OutsideError
│   ├── Unavailable                                      retried with back-off
│   │   └── DatabaseUnavailable · RedisUnavailable
│   └── Rejected                                         a final no: failed
│       └── UnknownHost · TooManyRedirects
└── ConfigError                                          a setting is wrong: one sentence, exit code 2
"""

from __future__ import annotations

from typing import Any

from app.core.durations import require_seconds


class AppError(Exception):
    """Base of all our errors. `code` is a stable word for programs; `errors` has one dict a fault."""

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


class CollectionNotFound(NotFound):
    code = "collection_not_found"


class Conflict(AppError):
    code = "conflict"


class QuotaReached(Conflict):
    """The tenant stores as many documents or bytes as it may. `code` names the quota."""

    code = "quota_documents"


class NotAllowed(AppError):
    code = "not_allowed"


class Unauthenticated(NotAllowed):
    code = "unauthenticated"


class LimitReached(AppError):
    code = "limit_reached"

    def __init__(self, message: str, retry_after_s: float, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = require_seconds(retry_after_s, "retry_after_s")


class JobQuotaReached(LimitReached):
    code = "quota_open_jobs"


class Snooze(AppError):
    """Raised by a job to run again in `retry_after_s` seconds: it leaves its worker, and no try is counted."""

    code = "later"

    def __init__(self, retry_after_s: float, message: str = "asked to run later", *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = require_seconds(retry_after_s, "retry_after_s")


# The name until 0.1; kept for one release.
Later = Snooze


class Cancelled(AppError):
    code = "cancelled"


class Stale(AppError):
    code = "stale"


class Interrupted(AppError):
    code = "interrupted"


class TimeLimitExceeded(AppError):
    code = "time_limit"


class LoopBlocked(TimeLimitExceeded):
    """A job kept the event loop from all other jobs of its process. `stack` shows where."""

    code = "loop_blocked"

    def __init__(self, message: str, *, stack: str = "", code: str | None = None, errors: Any = None) -> None:
        super().__init__(message, code=code, errors=errors)
        self.stack = stack


class SandboxCrashed(AppError):
    """The child process ended without an answer.

    by_code: its own code did that (a fault of memory, an abort, a broken answer). Otherwise the host may have: the
    kernel kills it when memory runs out, or its fork server has ended.
    """

    code = "lane_crashed"

    def __init__(
        self,
        message: str,
        *,
        by_code: bool = False,
        code: str | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message, code=code, errors=errors)
        self.by_code = by_code


class SandboxOutOfMemory(AppError):
    code = "lane_out_of_memory"


class OutsideError(AppError):
    code = "outside"


class Unavailable(OutsideError):
    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"


class RedisUnavailable(Unavailable):
    code = "redis_unavailable"


class Rejected(OutsideError):
    code = "rejected"


class UnknownHost(Rejected):
    code = "unknown_host"


class TooManyRedirects(Rejected):
    code = "too_many_redirects"


class ConfigError(AppError):
    code = "config"
