"""What happens after an error: one table of class → next state, asked once an attempt."""

from __future__ import annotations

import hashlib
import random
import re
import traceback
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from app.core import clock
from app.core.errors import (
    AppError,
    Cancelled,
    Conflict,
    Interrupted,
    InvalidInput,
    LimitReached,
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
from app.core.settings import get_settings
from app.jobs.child_rules import Wait, WaitForChildren
from app.jobs.definition import definition
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.ends import End
from app.jobs.sandbox.protocol import LaneFailed
from app.jobs.states import Outcome, State

# Another try would end the same way.
PERMANENT = (InvalidInput, NotFound, Conflict, NotAllowed, Rejected, SandboxOutOfMemory)
# Expected now and then: counted, tried again, told without a traceback.
RETRYABLE = (LimitReached, Unavailable, TimeLimitExceeded, SandboxCrashed)
JITTER = 0.1
LONGEST_MESSAGE = 4000
LONGEST_TRACEBACK = 20_000
# What differs between two occurrences of one fault: ids, hashes, numbers.
_VARYING = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,}|\d+")


class Verdict(NamedTuple):
    """The state an attempt ends in; None for one that was lost to another worker: nothing is written."""

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
    """What becomes of the claim after its code returned (None) or raised."""
    if error is None:
        return Verdict("succeeded", "succeeded", claim.tries)
    if isinstance(error, Stale):
        return Verdict(None, "handed_back", claim.tries)
    if isinstance(error, Interrupted):
        return Verdict("queued", "handed_back", claim.tries)
    if isinstance(error, Snooze):
        return Verdict("retrying", "snoozed", claim.tries, delay_s=error.retry_after_s)
    if isinstance(error, WaitForChildren):
        return Verdict("waiting", "waiting", claim.tries, wait=error.wait)
    if isinstance(error, Cancelled):
        return _told(claim, error, "cancelled", "cancelled", claim.tries)
    tries = claim.tries + 1
    if isinstance(error, PERMANENT) or (isinstance(error, LaneFailed) and error.permanent) or tries >= claim.max_tries:
        return _told(claim, error, "failed", "failed", tries)
    return _told(claim, error, "retrying", "retrying", tries, delay_s=_delay(claim, error, tries))


def _delay(claim: Claim, error: BaseException, tries: int) -> float:
    """Seconds until the next try: what the other side asked for, else the kind's own list with some jitter."""
    asked = getattr(error, "retry_after_s", None)
    if asked is not None:
        return float(asked)
    kind = definition(claim.kind)
    delays = (kind.retry_delays if kind else None) or get_settings().retry_delays or [60.0]
    delay = delays[min(tries, len(delays)) - 1]
    return delay * random.uniform(1 - JITTER, 1 + JITTER)


def _told(
    claim: Claim, error: BaseException, state: State, outcome: Outcome, tries: int, *, delay_s: float | None = None
) -> Verdict:
    code = error.code if isinstance(error, AppError) else "unexpected"
    # Not str(): an error that cannot even say what it is must not cost its job the end.
    foreign = "".join(traceback.format_exception_only(error)).strip().partition(": ")[2]
    said = error.message if isinstance(error, (AppError, LaneFailed)) else foreign
    name = error.type_name if isinstance(error, LaneFailed) else type(error).__name__
    message = said[:LONGEST_MESSAGE].replace("\x00", "") or name
    text = None
    if not isinstance(error, (*PERMANENT, *RETRYABLE, Cancelled)):
        text = error.traceback if isinstance(error, LaneFailed) else "".join(traceback.format_exception(error))
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
        traceback=text[-LONGEST_TRACEBACK:].replace("\x00", "") if text else None,
    )


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
    """The verdict as the ledger writes it, now; there must be a state to write."""
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
