"""Progress of a job: reported by its code, published at most ten times a second, stored every two seconds.

Percent never falls within a try: it is computed from the weights of the stages, in their order.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from app.core import clock
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.definition import definition
from app.jobs.events.publish import JobEvent, publish
from app.jobs.ledger.claims import Claim

MIN_EVENT_GAP_S = 0.1
MIN_SNAPSHOT_GAP_S = 2.0
IDLE_S = 1.0
MAX_TEXT_CHARS = 1000
# Redis answers within 2 s, or the publication fails.
MAX_SETTLE_S = 2.5

log = get_logger(__name__)
StoreSnapshot = Callable[[Claim, dict[str, Any]], None]


class Progress:
    """The object to which a job's code reports; `claim` holds the job and its fence."""

    def __init__(self, claim: Claim, publisher: ProgressPublisher) -> None:
        self.claim = claim
        self.closed = False
        self.next_event = self.next_snapshot = 0.0
        self._publisher = publisher
        self._lock = threading.Lock()
        kind = definition(claim.kind)
        self._weights = dict(kind.stages) if kind else {}
        last = claim.progress or {}
        self.seq = int(last.get("seq", 0))
        self._now: dict[str, Any] = {"percent": 0.0, "stage": None, "done": None, "total": None}
        self._now |= {"unit": None, "message": None}
        if claim.continues:  # the try goes on, and its percent must not fall
            dropped = ("seq", "message", "blocked")
            self._now |= {name: value for name, value in last.items() if name not in dropped and value is not None}
        self._unpublished: list[dict[str, Any]] = []

    def report(
        self,
        done: float | None = None,
        total: float | None = None,
        *,
        unit: str | None = None,
        stage: str | None = None,
        message: str | None = None,
    ) -> None:
        """Report the job's progress; never blocks, may be called from any thread.

        Fields that are left out keep their values, but a new stage begins with nothing done.
        """
        with self._lock:
            if self.closed:
                return
            before = self._now
            stage, unit, message = _text(stage), _text(unit), _text(message)
            new_stage = stage is not None and stage != before["stage"]
            now = {"stage": stage, "done": None, "total": None, "unit": None, "message": None} if new_stage else {}
            fields = {"done": _number(done), "total": _number(total), "unit": unit, "message": message}
            now = before | now | {name: value for name, value in fields.items() if value is not None}
            now["percent"] = max(before["percent"], self._percent(now))
            if new_stage or not self._unpublished:
                self._unpublished.append(now)
                if new_stage:
                    self.next_event = self.next_snapshot = 0.0
            else:
                self._unpublished[-1] = now
            self._now = now
        self._publisher.wake(self)

    def _percent(self, now: dict[str, Any]) -> float:
        done, total = now["done"], now["total"]
        part = min(1.0, max(0.0, done / total)) if done is not None and total else 0.0
        everything = sum(self._weights.values())
        if now["stage"] not in self._weights or not everything:
            return round(100 * part, 1) if not self._weights else 0.0
        names = list(self._weights)
        before = sum(self._weights[name] for name in names[: names.index(now["stage"])])
        return round(100 * (before + self._weights[now["stage"]] * part) / everything, 1)

    def take(self) -> list[dict[str, Any]]:
        """Return the unpublished states; they count as published from now on."""
        with self._lock:
            unpublished, self._unpublished = self._unpublished, []
            return unpublished

    def state(self) -> dict[str, Any]:
        """Return the state to store in the ledger."""
        return self._now | {"seq": self.seq}

    def close(self, *, succeeded: bool) -> tuple[dict[str, Any] | None, list[JobEvent]]:
        """Return the final state to store (None if no progress was reported) and the events still to publish."""
        with self._lock:
            self.closed = True
            if succeeded and self._now["stage"] is not None:
                self._now = self._now | {"percent": 100.0}
            unpublished, self._unpublished = self._unpublished, []
            has_reported = (
                self.seq > 0 or bool(unpublished) or self._now["stage"] is not None or self._now["done"] is not None
            )
        return (self.state() if has_reported else None), [self.event(state) for state in unpublished]

    def event(self, state: dict[str, Any]) -> JobEvent:
        claim = self.claim
        return JobEvent(claim.id, claim.tenant, "progress", "running", claim.tries + 1, state, self.seq)


def _number(value: float | None) -> float | None:
    """Return the number, or None if JSON cannot hold it: a wrong number must not fail the job."""
    if value is None or type(value) is int:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _text(value: str | None) -> str | None:
    """Return the text of any value, such as an error as the message or an enum member as the stage."""
    return None if value is None else str(value)[:MAX_TEXT_CHARS]


class ProgressPublisher:
    """One thread a process that publishes the progress of all its jobs."""

    def __init__(self, snapshot: StoreSnapshot) -> None:
        self._snapshot = snapshot
        self._dirty: dict[str, Progress] = {}
        self._changed = threading.Condition()
        self._published = threading.Condition()
        self._publishing = False
        self._rounds = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(2)

    def wake(self, progress: Progress) -> None:
        with self._changed:
            if progress.claim.id not in self._dirty:
                self._dirty[progress.claim.id] = progress
                self._changed.notify()
            elif progress.next_event == 0.0:
                self._changed.notify()

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                now = clock.monotonic()
                due = [progress for progress in self._dirty.values() if progress.next_event <= now]
                if not due:
                    later = min((p.next_event for p in self._dirty.values()), default=now + IDLE_S)
                    self._changed.wait(max(0.001, later - now))
                    continue
                for progress in due:
                    del self._dirty[progress.claim.id]
                    progress.next_event = now + MIN_EVENT_GAP_S
                self._publishing = True
            self._publish(due)
            with self._published:
                self._publishing = False
                self._rounds += 1
                self._published.notify_all()

    def settle(self) -> None:
        """Wait for the publication under way: the end of a job must be published after it."""
        with self._published:
            rounds = self._rounds
            self._published.wait_for(lambda: not self._publishing or self._rounds != rounds, MAX_SETTLE_S)

    def _publish(self, due: list[Progress]) -> None:
        events = [
            (progress, progress.event(state)) for progress in due if not progress.closed for state in progress.take()
        ]
        try:
            numbers = publish([event for _, event in events])
        except (Unavailable, ConfigError) as error:
            log.info("progress_not_published", reason=error.message)
            numbers = [progress.seq for progress, _ in events]
        for (progress, _), number in zip(events, numbers, strict=True):
            progress.seq = max(progress.seq, number)
        now = clock.monotonic()
        for progress in due:
            if not progress.closed and progress.next_snapshot <= now:
                progress.next_snapshot = now + MIN_SNAPSHOT_GAP_S
                self._snapshot(progress.claim, progress.state())
