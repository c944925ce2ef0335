"""How far a job is: reported by its code, told at most ten times a second, kept in the ledger every two.

A bar never falls within a try: percent is made of the weights of the stages, in their order.
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

EVENT_GAP_S = 0.1
SNAPSHOT_GAP_S = 2.0
IDLE_S = 1.0
LONGEST_TEXT = 1000
# Redis answers or is given up within 2 s.
SETTLE_S = 2.5

log = get_logger(__name__)
Snapshot = Callable[[Claim, dict[str, Any]], None]


class Progress:
    """What the code of a job reports to; `claim` says which job and fence it runs for."""

    def __init__(self, claim: Claim, teller: Teller) -> None:
        self.claim = claim
        self.closed = False
        self.next_event = self.next_snapshot = 0.0
        self._teller = teller
        self._lock = threading.Lock()
        kind = definition(claim.kind)
        self._weights = dict(kind.stages) if kind else {}
        last = claim.progress or {}
        self.seq = int(last.get("seq", 0))
        self._now: dict[str, Any] = {"percent": 0.0, "stage": None, "done": None, "total": None}
        self._now |= {"unit": None, "message": None}
        if claim.continues:  # the try goes on, and its bar must not fall
            self._now |= {
                name: value for name, value in last.items() if name not in ("seq", "message") and value is not None
            }
        self._untold: list[dict[str, Any]] = []

    def report(
        self,
        done: float | None = None,
        total: float | None = None,
        *,
        unit: str | None = None,
        stage: str | None = None,
        message: str | None = None,
    ) -> None:
        """Say how far the job is. Never blocks, from any thread; what is left out stays as it was, but a new stage
        begins with nothing done."""
        with self._lock:
            if self.closed:
                return
            before = self._now
            stage, unit, message = _text(stage), _text(unit), _text(message)
            new_stage = stage is not None and stage != before["stage"]
            now = {"stage": stage, "done": None, "total": None, "unit": None, "message": None} if new_stage else {}
            given = {"done": _number(done), "total": _number(total), "unit": unit, "message": message}
            now = before | now | {name: value for name, value in given.items() if value is not None}
            now["percent"] = max(before["percent"], self._percent(now))
            if new_stage or not self._untold:
                self._untold.append(now)
                if new_stage:
                    self.next_event = self.next_snapshot = 0.0
            else:
                self._untold[-1] = now
            self._now = now
        self._teller.wake(self)

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
        """What has not been told yet; it counts as told from now on."""
        with self._lock:
            untold, self._untold = self._untold, []
            return untold

    def now(self) -> dict[str, Any]:
        """The state to keep in the ledger."""
        return self._now | {"seq": self.seq}

    def close(self, *, succeeded: bool) -> tuple[dict[str, Any] | None, list[JobEvent]]:
        """The last word: the state to keep (None if nothing was ever reported) and the events still to tell."""
        with self._lock:
            self.closed = True
            if succeeded and self._now["stage"] is not None:
                self._now = self._now | {"percent": 100.0}
            untold, self._untold = self._untold, []
            told = self.seq > 0 or bool(untold) or self._now["stage"] is not None or self._now["done"] is not None
        return (self.now() if told else None), [self.event(state) for state in untold]

    def event(self, state: dict[str, Any]) -> JobEvent:
        claim = self.claim
        return JobEvent(claim.id, claim.tenant, "progress", "running", claim.tries + 1, state, self.seq)


def _number(value: float | None) -> float | None:
    """The number as JSON has it; None for what is none: a bar is not worth a job."""
    if value is None or type(value) is int:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _text(value: str | None) -> str | None:
    """The text as JSON has it, whatever was given: an error as the message, a member of an enum as the stage."""
    return None if value is None else str(value)[:LONGEST_TEXT]


class Teller:
    """One thread a process that tells of all its jobs' progress."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._dirty: dict[str, Progress] = {}
        self._changed = threading.Condition()
        self._told = threading.Condition()
        self._telling = False
        self._tells = 0
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
                    progress.next_event = now + EVENT_GAP_S
                self._telling = True
            self._tell(due)
            with self._told:
                self._telling = False
                self._tells += 1
                self._told.notify_all()

    def settle(self) -> None:
        """Wait for what is being told just now: the end of a job is to be told after it."""
        with self._told:
            tells = self._tells
            self._told.wait_for(lambda: not self._telling or self._tells != tells, SETTLE_S)

    def _tell(self, due: list[Progress]) -> None:
        told = [
            (progress, progress.event(state)) for progress in due if not progress.closed for state in progress.take()
        ]
        try:
            numbers = publish([event for _, event in told])
        except (Unavailable, ConfigError) as error:
            log.info("progress_not_published", reason=error.message)
            numbers = [progress.seq for progress, _ in told]
        for (progress, _), number in zip(told, numbers, strict=True):
            progress.seq = max(progress.seq, number)
        now = clock.monotonic()
        for progress in due:
            if not progress.closed and progress.next_snapshot <= now:
                progress.next_snapshot = now + SNAPSHOT_GAP_S
                self._snapshot(progress.claim, progress.now())
