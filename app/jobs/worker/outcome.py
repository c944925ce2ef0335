"""The outcome table: error class → next state, asked once an attempt."""

from __future__ import annotations

import hashlib
import random
import re
import traceback
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from app.core import clock
from app.core.durations import FALLBACK_RETRY_S, seconds_or_none
from app.core.errors import (
    AppError,
    Cancelled,
    Conflict,
    Interrupted,
    InvalidInput,
    LimitReached,
    LoopBlocked,
    NotAllowed,
    NotFound,
    Rejected,
    SandboxCrashed,
    SandboxOutOfMemory,
    Snooze,
    Stale,
    TimeLimitExceeded,
    Unavailable,
)
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.jobs.child_rules import Wait, WaitForChildren
from app.jobs.definition import definition
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.ends import End
from app.jobs.sandbox.protocol import SandboxFailed
from app.jobs.states import Outcome, State

# Another try would end the same way.
PERMANENT = (InvalidInput, NotFound, Conflict, NotAllowed, Rejected, SandboxOutOfMemory)
# Expected errors: counted, tried again, recorded without a traceback.
RETRYABLE = (LimitReached, Unavailable, TimeLimitExceeded, SandboxCrashed)
JITTER = 0.1
MAX_MESSAGE_CHARS = 4000
MAX_TRACEBACK_CHARS = 20_000
# Parts that differ between two occurrences of the same fault: ids, hashes, numbers.
_VARYING = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,}|\d+")

log = get_logger(__name__)


class Verdict(NamedTuple):
    """The state an attempt ends in; None for an attempt that another worker took over: nothing is written."""

    state: State | None
    outcome: Outcome
    tries: int
    delay_s: float | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    fingerprint: str | None = None
    traceback: str | None = None
    wait: Wait | None = None


def judge(claim: Claim, error: BaseException | None) -> Verdict:
    """Return the verdict for a claim whose code returned (None) or raised. Never raises itself."""
    try:
        return _judge(claim, error)
    except Exception as fault:  # reading foreign code's error may raise anything; the attempt must end
        log.exception("error_unreadable", job_id=claim.id, kind=claim.kind)
        return _unreadable(claim, error, fault)


def _unreadable(claim: Claim, error: BaseException | None, fault: Exception) -> Verdict:
    """Return the verdict for an error that cannot be read: a counted try that names both classes."""
    tries = claim.tries + 1
    outcome: Literal["failed", "retrying"] = "failed" if tries >= claim.max_tries else "retrying"
    name = type(error).__name__[:200]
    return Verdict(
        outcome,
        outcome,
        tries,
        delay_s=None if outcome == "failed" else FALLBACK_RETRY_S,
        error_type=name,
        error_code="unexpected",
        error_message=f"{name}; reading this error raised {type(fault).__name__}",
        fingerprint=hashlib.sha256(f"{claim.kind} {name} unreadable".encode("utf-8", "replace")).hexdigest()[:32],
    )


def _judge(claim: Claim, error: BaseException | None) -> Verdict:
    if error is None:
        return Verdict("succeeded", "succeeded", claim.tries)
    if isinstance(error, Stale):
        return Verdict(None, "handed_back", claim.tries)
    if isinstance(error, Interrupted):
        return Verdict("queued", "handed_back", claim.tries)
    if isinstance(error, Snooze):
        delay_s = seconds_or_none(error.retry_after_s)
        return Verdict("retrying", "snoozed", claim.tries, delay_s=FALLBACK_RETRY_S if delay_s is None else delay_s)
    if isinstance(error, WaitForChildren):
        return Verdict("waiting", "waiting", claim.tries, wait=error.wait)
    if isinstance(error, Cancelled):
        return _with_error(claim, error, "cancelled", "cancelled", claim.tries)
    tries = claim.tries + 1
    is_permanent = isinstance(error, PERMANENT) or (isinstance(error, SandboxFailed) and error.permanent)
    if is_permanent or tries >= claim.max_tries:
        return _with_error(claim, error, "failed", "failed", tries)
    return _with_error(claim, error, "retrying", "retrying", tries, delay_s=_delay(claim, error, tries))


def _delay(claim: Claim, error: BaseException, tries: int) -> float:
    """Return the seconds until the next try: the requested time, else the kind's delays with jitter."""
    requested_s = seconds_or_none(getattr(error, "retry_after_s", None))
    if requested_s is not None:
        return requested_s
    kind = definition(claim.kind)
    delays = (kind.retry_delays if kind else None) or get_settings().retry_delays or [FALLBACK_RETRY_S]
    delay = delays[min(tries, len(delays)) - 1]
    return delay * random.uniform(1 - JITTER, 1 + JITTER)


def _with_error(
    claim: Claim, error: BaseException, state: State, outcome: Outcome, tries: int, *, delay_s: float | None = None
) -> Verdict:
    code = error.code if isinstance(error, AppError) else "unexpected"
    text = error.message if isinstance(error, (AppError, SandboxFailed)) else _message_of(error)
    name = error.type_name if isinstance(error, SandboxFailed) else type(error).__name__
    message = text[:MAX_MESSAGE_CHARS].replace("\x00", "") or name
    trace = None
    if not isinstance(error, (*PERMANENT, *RETRYABLE, Cancelled)):
        trace = error.traceback if isinstance(error, SandboxFailed) else _traceback_of(error)
    elif isinstance(error, LoopBlocked):
        trace = error.stack
    shape = _VARYING.sub("#", f"{claim.kind} {name} {message}")
    return Verdict(
        state,
        outcome,
        tries,
        delay_s=delay_s,
        error_type=name[:200],
        error_code=code[:100],
        error_message=message,
        fingerprint=hashlib.sha256(shape.encode("utf-8", "replace")).hexdigest()[:32],
        traceback=trace[-MAX_TRACEBACK_CHARS:].replace("\x00", "") if trace else None,
    )


def _message_of(error: BaseException) -> str:
    """Return the text of a foreign error; "" if its own code fails."""
    try:
        return "".join(traceback.format_exception_only(error)).strip().partition(": ")[2]
    except Exception:  # noqa: BLE001  for example a SyntaxError whose text is bytes
        pass
    try:
        return str(error)
    except Exception:  # noqa: BLE001  its __str__ is foreign code, too
        return ""


def _traceback_of(error: BaseException) -> str:
    """Return the traceback; of an error that cannot be formatted, its stack alone."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  as in _message_of
        return "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__


def due_after(delay_s: float) -> timedelta:
    return timedelta(seconds=max(0.0, min(delay_s, timedelta(days=365).total_seconds())))


def end_of(
    claim: Claim,
    verdict: Verdict,
    *,
    started_at: datetime | None,
    result: dict[str, Any] | None,
    progress: dict[str, Any] | None,
) -> End:
    """Return the verdict as the ledger writes it, ended now; the verdict must have a state."""
    assert verdict.state is not None
    now = clock.now()
    return End(
        id=claim.id,
        fence=claim.fence,
        kind=claim.kind,
        state=verdict.state,
        outcome=verdict.outcome,
        tries=verdict.tries,
        finished_at=now,
        started_at=started_at,
        due_at=None if verdict.delay_s is None else now + due_after(verdict.delay_s),
        error_type=verdict.error_type,
        error_code=verdict.error_code,
        error_message=verdict.error_message,
        fingerprint=verdict.fingerprint,
        traceback=verdict.traceback,
        result=result if verdict.state == "succeeded" else None,
        progress=progress,
        parent_id=claim.parent_id,
        wait=verdict.wait,
    )
