"""The tail of every move: counts in parents, webhooks of ended jobs, `on_end` of their definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.core.logging import get_logger
from app.jobs.definition import Job, definition
from app.jobs.ledger import child_counts, end_webhooks
from app.jobs.models import JobRow
from app.jobs.states import ENDED
from app.jobs.transition import Moved

log = get_logger(__name__)


def after_moves(
    session: Session, moved: Sequence[Moved], kinds: Mapping[str, str], *, isolate_errors: bool = False
) -> None:
    """Count the moves in their parents, enqueue webhooks of ends, and call `on_end` of the jobs named in `kinds`.

    `isolate_errors`: an `on_end` that fails is logged and undone; the other moves are kept.
    """
    child_counts.count(session, moved)
    end_webhooks.enqueue_webhooks(session, moved)
    for move in moved:
        kind = definition(kinds[move.id]) if move.id in kinds else None
        if move.state in ENDED and kind is not None and kind.on_end is not None:
            _call_on_end(session, move.id, kind, isolate_errors)


def after_returned_moves(session: Session, rows: Sequence[sa.Row[Any]]) -> list[Moved]:
    """Like `after_moves` with isolated errors, for rows of a statement that returns MOVED_AND_KIND."""
    moved = [Moved._make(row[:-1]) for row in rows]
    after_moves(session, moved, {row.id: row.kind for row in rows}, isolate_errors=True)
    return moved


def _call_on_end(session: Session, job_id: str, kind: type[Job], isolate_errors: bool) -> None:
    assert kind.on_end is not None
    row = session.get(JobRow, job_id, populate_existing=True)
    assert row is not None
    if not isolate_errors:
        kind.on_end(session, row)
        return
    try:
        with session.begin_nested():
            kind.on_end(session, row)
    except OperationalError:
        raise
    except Exception:  # on_end may be a user's code
        log.exception("on_end_refused", job_id=job_id, kind=row.kind)
