"""What a move tells of the job that made it, and statements that return it."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from app.core.db import UtcDateTime
from app.jobs.models import JOB
from app.jobs.states import State


class Moved(NamedTuple):
    """A job and where it went, for its event, its parent's counts and its webhook. The order is that of MOVED."""

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


def typed(sql: str, columns: str, *times: str) -> sa.TextualSelect:
    """A text statement whose result columns and time parameters have the job table's types."""
    text = sa.text(sql).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in times))
    return text.columns(*(sa.column(name, JOB.c[name].type) for name in columns.split(", ")))
