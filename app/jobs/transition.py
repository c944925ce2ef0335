"""A move of a job from one state to another, and statements that return moves."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from app.core.db import UtcDateTime
from app.jobs.models import JOB, JobRow
from app.jobs.states import State


class Moved(NamedTuple):
    """A job and its new state, for its event, its parent's counts and its webhook. Fields are in the order of MOVED."""

    id: str
    tenant: str
    state: State
    tries: int
    max_tries: int
    progress: dict[str, Any] | None = None
    parent_id: str | None = None
    open_children: int = 0
    webhook_url: str | None = None


MOVED = "id, tenant, state, tries, max_tries, progress, parent_id, open_children, webhook_url"
MOVED_AND_KIND = MOVED + ", kind"


def moved_columns() -> list[sa.Column[Any]]:
    """Columns for `returning()` of a statement that `after_returned_moves` reads."""
    return [JOB.c[name] for name in MOVED_AND_KIND.split(", ")]


def moved_of(row: JobRow) -> Moved:
    """Return the move that led to the row's present state."""
    return Moved(*(getattr(row, name) for name in MOVED.split(", ")))


def typed(sql: str, columns: str, *times: str) -> sa.TextualSelect:
    """Return a text statement whose result columns and time parameters have the types of the job table."""
    text = sa.text(sql).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in times))
    return text.columns(*(sa.column(name, JOB.c[name].type) for name in columns.split(", ")))
