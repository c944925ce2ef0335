"""The result of enqueue: a new job, or an open one that has the same unique key."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from app.jobs.models import JobRow
from app.jobs.states import State


class EnqueuedJob(NamedTuple):
    """A job that this transaction made, or found open under the same unique key (`existing` is then its row)."""

    id: str
    tenant: str
    kind: str
    queue: str
    state: State
    max_tries: int
    priority: int
    due_at: datetime
    created_at: datetime
    expires_at: datetime | None
    document_id: int | None
    request_id: str | None
    admitted_at: datetime | None
    unique_key: str | None
    existing: JobRow | None = None

    @property
    def is_new(self) -> bool:
        return self.existing is None

    @property
    def fence(self) -> int:
        return 0 if self.existing is None else self.existing.fence

    @property
    def crashes(self) -> int:
        return 0 if self.existing is None else self.existing.crashes


def of_existing(row: JobRow) -> EnqueuedJob:
    """Wrap the row of an open job."""
    return EnqueuedJob._make((*(getattr(row, name) for name in EnqueuedJob._fields[:-1]), row))
