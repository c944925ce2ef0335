"""Progress events of parents that wait for children, at most ten times a second and process."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from sqlalchemy.orm import Session

from app.core.db import after_commit
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.events import publish
from app.jobs.events.publish import JobEvent
from app.jobs.transition import Moved

MIN_GAP_S = 0.1

log = get_logger(__name__)


def report_after_commit(session: Session, parent: Moved) -> None:
    """Publish the parent's progress after the commit; of several reports in a transaction the last."""
    pending: _Pending = after_commit(session, "parent_progress", _Pending)
    pending.parents[parent.id] = parent


class _Pending:
    def __init__(self) -> None:
        self.parents: dict[str, Moved] = {}

    def __call__(self) -> None:
        parent_progress.report(self.parents)


class ParentProgress:
    """Collects reports and publishes the last of each parent after MIN_GAP_S."""

    def __init__(self) -> None:
        self._pending: dict[str, Moved] = {}
        self._lock = threading.Lock()

    def report(self, parents: Mapping[str, Moved]) -> None:
        with self._lock:
            is_first = not self._pending
            self._pending |= parents
        if is_first:
            timer = threading.Timer(MIN_GAP_S, self._publish)
            timer.daemon = True
            timer.start()

    def clear(self) -> None:
        """Drop pending reports: the settings name another Redis."""
        with self._lock:
            self._pending.clear()

    def _publish(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
        try:
            publish.publish([_event(parent) for parent in pending.values()])
        except (Unavailable, ConfigError) as error:
            log.info("progress_not_published", reason=error.message)


def _event(parent: Moved) -> JobEvent:
    return publish.event_of_move(parent)._replace(event="progress")


parent_progress = ParentProgress()
