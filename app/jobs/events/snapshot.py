"""State of a job by the ledger, and the first events a new subscriber gets: plain decisions, without a connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.logging import get_logger
from app.jobs.events.subscription import StreamTail
from app.jobs.models import JobRow
from app.jobs.states import ENDED, PROGRESS_FIELDS, attempt_number

log = get_logger(__name__)

MAX_IDS_PER_QUERY = 1000


class StreamEvent:
    """One event as JSON, with the fields that order it. `wire` holds a connection's own rendering."""

    __slots__ = ("attempt", "name", "percent", "seq", "stage", "state", "text", "wire")

    def __init__(self, data: dict[str, Any], text: str | None = None) -> None:
        self.seq = int(data["seq"])
        self.name = str(data["event"])
        self.state = str(data["state"])
        self.stage = data.get("stage")
        self.attempt = int(data["attempt"])
        self.percent = float(data.get("percent") or 0)
        self.text = json.dumps(data) if text is None else text
        self.wire = b""

    @property
    def id(self) -> str:
        return str(self.seq)

    @classmethod
    def parse(cls, text: str) -> StreamEvent | None:
        """Return the event, or None if the text is not one: Redis may hold anything."""
        try:
            return cls(json.loads(text), text)
        except (ValueError, KeyError, TypeError):
            log.warning("event_not_readable", text=text[:200])
            return None

    def is_news_after(self, last: StreamEvent | None) -> bool:
        """Return True if a subscriber that has `last` needs this event.

        Numbers restart after a flush of Redis, so another state is news whatever its number.
        """
        if last is not None and (self.name, self.state) == ("progress", "waiting") != ("progress", last.state):
            return False  # counted by children that ended before the parent went on
        if last is not None and self.falls_behind(last):
            return False
        if last is None or self.seq > last.seq:
            return True
        return self.name != "progress" and not self.repeats(last)

    def falls_behind(self, last: StreamEvent) -> bool:
        """Return True if it reports fewer ended children than `last`: several processes count, and one was late."""
        same = self.name == "progress" and (self.state, self.attempt) == ("waiting", last.attempt)
        return same and last.state == "waiting" and self.percent < last.percent

    def repeats(self, last: StreamEvent) -> bool:
        """Return True if it names the state and attempt of `last`."""
        return (self.state, self.attempt) == (last.state, last.attempt)


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job's state by the ledger."""

    id: str
    tenant: str
    state: str
    tries: int
    max_tries: int
    progress: dict[str, Any] | None
    error_message: str | None

    @property
    def seq(self) -> int:
        return int((self.progress or {}).get("seq") or 0)

    @property
    def attempt(self) -> int:
        return attempt_number(self.state, self.tries, self.max_tries)

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    def event(self, seq: int, name: str = "state", **marks: Any) -> StreamEvent:
        """Return the snapshot as an event with this number; `marks` are added to its data."""
        progress = self.progress or {}
        data = {"seq": seq, "event": name, "job_id": self.id, "attempt": self.attempt, "state": self.state}
        data |= {field: progress.get(field) for field in PROGRESS_FIELDS}
        if self.error_message is not None and self.has_ended:
            data["message"] = self.error_message
        data["at"] = clock.moment(clock.now())
        return StreamEvent(data | marks)


def read_snapshots(session: Session, ids: Sequence[str]) -> list[JobSnapshot]:
    """Return snapshots of the jobs that exist, of any tenant, in no order."""
    table = JobRow.__table__
    columns = [table.c[name] for name in JobSnapshot.__slots__]
    snapshots: list[JobSnapshot] = []
    for start in range(0, len(ids), MAX_IDS_PER_QUERY):
        query = sa.select(*columns).where(table.c.id.in_(ids[start : start + MAX_IDS_PER_QUERY]))
        snapshots += [JobSnapshot(*row) for row in session.execute(query)]
    return snapshots


def opening_events(
    snapshot: JobSnapshot, tail: StreamTail | None, after: int | None, resumes: bool
) -> list[StreamEvent]:
    """Return the first events of a subscriber; none if it already has the end.

    A new subscriber gets a snapshot and the newest event beyond it. One that resumes `after` a number gets every kept
    event since then. If that number is unknown or no longer kept, it gets a snapshot marked `reset`.
    """
    newest = StreamEvent.parse(tail.newest) if tail and tail.newest else None
    last_seq = max(snapshot.seq, newest.seq if newest else 0)
    end_seq = newest.seq if newest and newest.name == "end" else last_seq + 1
    if resumes and after is not None:
        if snapshot.has_ended and after == end_seq:
            return []
        missed = _missed_events(tail, after, snapshot.seq)
        if missed is not None:
            if snapshot.has_ended and not (missed and missed[-1].name == "end"):
                missed.append(snapshot.event(end_seq, "end"))
            return missed or [snapshot.event(after)]
    marks: dict[str, Any] = {"snapshot": True} | ({"reset": True} if resumes else {})
    if snapshot.has_ended:
        return [snapshot.event(end_seq, "end", **marks)]
    first = snapshot.event(snapshot.seq, **marks)
    return [first, newest] if newest and newest.seq > first.seq and newest.attempt >= first.attempt else [first]


def _missed_events(tail: StreamTail | None, after: int, ledger_seq: int) -> list[StreamEvent] | None:
    """Return the events since `after` without a gap, None if the stream may have one."""
    events = [event for text in (tail.events if tail else []) if (event := StreamEvent.parse(text))]
    if not events:
        return [] if after == ledger_seq else None
    if events[0].seq > after + 1:
        return None
    since = [event for event in events if event.seq > after]
    # An end with events after it was undone by a retry.
    return [event for event in since if event.name != "end" or event is since[-1]]
