"""Ends of this process's runs, written to SQL in batches in the background; then the messages are acked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from app.core import clock, redis
from app.core.db import database
from app.core.errors import AppError, ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.admission import push
from app.jobs.events import publish as events
from app.jobs.events.publish import JobEvent
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.ends import End, finish
from app.jobs.lua import LUA
from app.jobs.transition import Moved
from app.jobs.worker.outcome import due_after, judge

# With so many ends waiting for SQL no more jobs are claimed.
MAX_WAITING_ENDS = 1000
BATCH = 500
RETRY_S = 0.1
# After a batch of this size a short wait makes the next one bigger: the cost of a transaction hardly depends on the
# number of its ends.
LINGER_ENDS = 8
LINGER_S = 0.008
IDLE_S = 5.0
# Acks that Redis did not accept are repeated; more than this are left to the relay that finds the worker gone.
MAX_UNACKED = 10_000
# A start is recorded if the run is still going after this time; most runs have ended, and their end holds the start.
MARK_AFTER_S = 0.05

log = get_logger(__name__)


class EndedRun(NamedTuple):
    """An end with its message to ack, and the events to publish before it."""

    end: End
    claim: Claim
    # Queue and Redis id to ack; None if the message is acked already.
    message: tuple[str, str] | None
    events: Sequence[JobEvent] = ()


class Finisher:
    """One thread a process. It writes, then acks: a crash in between redelivers, and the claim makes that harmless."""

    def __init__(self, worker_id: Callable[[], str]) -> None:
        self._worker_id = worker_id
        # Called before ends are published; see ProgressPublisher.settle.
        self.before_ends: Callable[[], None] | None = None
        self._done: list[EndedRun] = []
        self._marks: dict[str, tuple[Claim, datetime]] = {}
        self._marks_due = 0.0
        self._snapshots: dict[str, tuple[Claim, dict[str, Any]]] = {}
        self._unacked: list[tuple[str, str]] = []
        self.problem = ""  # the reason why ends cannot be written now
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._in_hand: list[EndedRun] = []
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="finisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_full(self) -> bool:
        return len(self._done) + len(self._in_hand) >= MAX_WAITING_ENDS

    def submit(self, done: EndedRun) -> None:
        with self._lock:
            self._marks.pop(done.end.id, None)
            self._snapshots.pop(done.end.id, None)
            self._done.append(done)
            self._changed.notify()

    def mark_started(self, claim: Claim, at: datetime) -> None:
        with self._lock:
            if not self._marks:
                self._marks_due = clock.monotonic() + MARK_AFTER_S
                self._changed.notify()
            self._marks[claim.id] = (claim, at)

    def snapshot(self, claim: Claim, progress: dict[str, Any]) -> None:
        with self._lock:
            self._snapshots[claim.id] = (claim, progress)
            self._changed.notify()

    def forget(self, messages: list[tuple[str, str]]) -> None:
        """Ack messages without a claim here: claimed by another worker, unreadable, deleted."""
        with self._lock:
            self._unacked.extend(messages)
            self._changed.notify()

    def unwritten(self) -> set[str]:
        """Return the ids of the jobs whose ends wait to be written."""
        with self._lock:
            return {item.end.id for item in (*self._done, *self._in_hand)}

    def drain(self, timeout_s: float) -> bool:
        """Wait until all submitted ends are written; return False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._done or self._busy), timeout_s)

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(2)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._has_work():
                    self._changed.wait(max(0.001, self._marks_due - clock.monotonic()) if self._marks else IDLE_S)
                if self._stopping and not self._done:
                    return
                done, self._done = self._done[:BATCH], self._done[BATCH:]
                marks, self._marks = list(self._marks.values()), {}
                snapshots, self._snapshots = list(self._snapshots.values()), {}
                self._busy, self._in_hand = True, done
            written = self._write(done, marks, snapshots)
            with self._changed:
                if written is None:
                    self._done[:0] = done
                    for claim, at in marks:
                        self._marks.setdefault(claim.id, (claim, at))
                self._busy, self._in_hand = False, []
                self._changed.notify_all()
            if written is None:
                if self._stopping:
                    return  # the relay that finds this worker gone frees the jobs
                self._pause(RETRY_S)
                continue
            self._ack([item.message for item in done if item.message is not None])
            self._publish(done, written, marks)
            if len(done) >= LINGER_ENDS:
                self._pause(LINGER_S)

    def _has_work(self) -> bool:
        marks = self._marks and clock.monotonic() >= self._marks_due
        return bool(self._stopping or self._done or self._snapshots or self._unacked or marks)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)

    def _write(
        self,
        done: list[EndedRun],
        marks: list[tuple[Claim, datetime]],
        snapshots: list[tuple[Claim, dict[str, Any]]],
    ) -> list[Moved] | None:
        """Write and return the moves; None while SQL cannot be written."""
        if not (done or marks or snapshots):
            return []
        ends = [item.end for item in done]

        def write(session: Any) -> list[Moved]:
            if marks:
                claims.mark_started(session, [(claim.id, claim.fence, at) for claim, at in marks])
            if snapshots:
                claims.snapshot(session, [(claim.id, claim.fence, progress) for claim, progress in snapshots])
            return finish(session, ends) if ends else []

        try:
            moved = database().transaction(write)
            self.problem = ""
            return moved
        except Exception as error:
            if _sql_is_away(error):
                self.problem = f"ends of jobs cannot be written: {error}"
                log.warning("ends_wait_for_sql", ends=len(ends), reason=str(error))
                return None
            # One end, or its on_end, which may be foreign code, cannot be written: the others must not wait for it.
            log.exception("batch_of_ends_refused", ends=len(ends))
            return self._one_by_one(done)

    def _one_by_one(self, done: list[EndedRun]) -> list[Moved] | None:
        moved: list[Moved] = []
        for item in done:
            ends = [item.end, *_fallbacks(item)]
            for end in ends:
                try:
                    moved += database().transaction(finish, [end], call_on_end=end is not ends[-1])
                    break
                except Exception as error:
                    if _sql_is_away(error):
                        return None
                    log.exception("end_refused", job_id=end.id, state=end.state)
        return moved

    def _ack(self, messages: list[tuple[str, str]]) -> None:
        with self._changed:
            waiting, self._unacked = [*self._unacked, *messages][-MAX_UNACKED:], []
        args = [part for message in waiting for part in message]
        if not args:
            return
        try:
            redis.push().script(LUA / "ack.lua", [redis.NAMESPACE, self._worker_id(), *args])
        except (Unavailable, ConfigError):
            with self._changed:
                self._unacked[:0] = waiting
            self._pause(RETRY_S)

    def _publish(self, done: list[EndedRun], moved: list[Moved], marks: list[tuple[Claim, datetime]]) -> None:
        if done and self.before_ends is not None:
            self.before_ends()
        by_id = {move.id: move for move in moved}
        to_publish = [
            JobEvent(claim.id, claim.tenant, "state", "running", claim.tries + 1, claim.progress or {}, _seed(claim))
            for claim, _ in marks
        ]
        for item in done:
            if item.end.id in by_id:
                to_publish += [*item.events, events.event_of_move(by_id[item.end.id])]
        try:
            events.publish(to_publish)
        except (Unavailable, ConfigError) as error:
            log.info("events_not_published", events=len(to_publish), reason=error.message)
        if any(move.state == "queued" for move in moved) or any(item.claim.capped for item in done):
            push.wake_relay()


def _sql_is_away(error: Exception) -> bool:
    """Return True if SQL is unavailable. An on_end that fails because of another service must not delay other ends."""
    return isinstance(error, (Unavailable, ConfigError)) and error.code.startswith("database")


def _seed(claim: Claim) -> int:
    return int((claim.progress or {}).get("seq", 0))


def _fallbacks(item: EndedRun) -> list[End]:
    """Return ends to write if the end itself is refused: the refusal as a failed try, then as a plain failure."""
    refusal = AppError("the end of this run could not be written; see the worker's log", code="end_refused")
    verdict = judge(item.claim, refusal)
    plain = item.end._replace(
        state=verdict.state or "failed",
        outcome=verdict.outcome,
        tries=verdict.tries,
        due_at=clock.now() + due_after(verdict.delay_s or 0),
        error_type="EndRefused",
        error_code=refusal.code,
        error_message=refusal.message,
        traceback=None,
        result=None,
        progress=None,
        wait=None,
    )
    return [plain, plain._replace(state="failed", outcome="failed")]
