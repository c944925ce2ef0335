"""Where a followed job is, and what its follower gets first: plain decisions, without a connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.logging import get_logger
from app.jobs.events.publish import FIELDS, attempt_number
from app.jobs.events.subscription import Tail
from app.jobs.models import JobRow
from app.jobs.states import ENDED

log = get_logger(__name__)

IDS_A_QUERY = 1000


class Event:
    """One event as JSON, with what is needed to order it; `wire` is a place for a door's own rendering."""

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
    def parse(cls, text: str) -> Event | None:
        """The event, None for what is none: Redis may hold anything."""
        try:
            return cls(json.loads(text), text)
        except (ValueError, KeyError, TypeError):
            log.warning("event_not_readable", text=text[:200])
            return None

    def is_news_after(self, last: Event | None) -> bool:
        """Numbers may begin anew after a flush of Redis, so another state is news whatever its number."""
        if last is not None and (self.name, self.state) == ("progress", "waiting") != ("progress", last.state):
            return False  # counted by children that ended before the parent went on
        if last is not None and self.falls_behind(last):
            return False
        if last is None or self.seq > last.seq:
            return True
        return self.name != "progress" and not self.repeats(last)

    def falls_behind(self, last: Event) -> bool:
        """Whether it tells of fewer ended children than `last`: several processes count, and one told late."""
        same = self.name == "progress" and (self.state, self.attempt) == ("waiting", last.attempt)
        return same and last.state == "waiting" and self.percent < last.percent

    def repeats(self, last: Event) -> bool:
        """Whether it names the state and attempt that were known."""
        return (self.state, self.attempt) == (last.state, last.attempt)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a job is by the ledger."""

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

    def event(self, seq: int, name: str = "state", **marks: Any) -> Event:
        progress = self.progress or {}
        data = {"seq": seq, "event": name, "job_id": self.id, "attempt": self.attempt, "state": self.state}
        data |= {field: progress.get(field) for field in FIELDS}
        if self.error_message is not None and self.has_ended:
            data["message"] = self.error_message
        data["at"] = clock.moment(clock.now())
        return Event(data | marks)


def standings(session: Session, ids: Sequence[str]) -> list[Standing]:
    """Those of the jobs that exist, of any tenant, in no order."""
    table = JobRow.__table__
    columns = [table.c[name] for name in Standing.__slots__]
    found: list[Standing] = []
    for start in range(0, len(ids), IDS_A_QUERY):
        query = sa.select(*columns).where(table.c.id.in_(ids[start : start + IDS_A_QUERY]))
        found += [Standing(*row) for row in session.execute(query)]
    return found


def opening(standing: Standing, tail: Tail | None, after: int | None, resumes: bool) -> list[Event]:
    """What a follower gets first; nothing where it has heard the end already.

    A new one gets a snapshot and the newest event beyond it. One that resumes `after` a number gets every kept event
    since, or, where that number is not known (any more), a snapshot marked `reset`.
    """
    newest = Event.parse(tail.newest) if tail and tail.newest else None
    last_seq = max(standing.seq, newest.seq if newest else 0)
    end_seq = newest.seq if newest and newest.name == "end" else last_seq + 1
    if resumes and after is not None:
        if standing.has_ended and after == end_seq:
            return []
        missed = _missed(tail, after, standing.seq)
        if missed is not None:
            if standing.has_ended and not (missed and missed[-1].name == "end"):
                missed.append(standing.event(end_seq, "end"))
            return missed or [standing.event(after)]
    marks: dict[str, Any] = {"snapshot": True} | ({"reset": True} if resumes else {})
    if standing.has_ended:
        return [standing.event(end_seq, "end", **marks)]
    first = standing.event(standing.seq, **marks)
    return [first, newest] if newest and newest.seq > first.seq and newest.attempt >= first.attempt else [first]


def _missed(tail: Tail | None, after: int, ledger_seq: int) -> list[Event] | None:
    """The events since `after` without a gap, None where that cannot be said."""
    kept = [event for text in (tail.events if tail else []) if (event := Event.parse(text))]
    if not kept:
        return [] if after == ledger_seq else None
    if kept[0].seq > after + 1:
        return None
    since = [event for event in kept if event.seq > after]
    # An end that others follow was undone by a retry.
    return [event for event in since if event.name != "end" or event is since[-1]]
