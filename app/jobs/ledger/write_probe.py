"""A write that changes nothing of use, to learn if the database takes writes: it also answers with a full disk."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import database
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.models import ThrottleRow

_NO_JOB = "00000000-0000-0000-0000-000000000000"
_KEY = {"tenant": "", "kind": "probe", "unique_key": "write"}
# The cause in words of the database that hold no address.
_CAUSES = ("disk is full", "No space left on device", "read-only", "readonly", "disk I/O error", "is locked")

log = get_logger(__name__)


def write_probe(session: Session) -> None:
    """Write one row, which ages out with the throttled keys."""
    values = _KEY | {"job_id": _NO_JOB, "free_at": clock.now() + timedelta(minutes=1)}
    statement = sql.insert(sql.dialect_of(session), ThrottleRow).values(values)
    changes = {"free_at": statement.excluded.free_at}
    session.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=changes))


def write_fault() -> str | None:
    """Return why the database takes no writes, without an address; None if it does."""
    try:
        database().transaction(write_probe)
    except (Unavailable, ConfigError) as error:
        log.warning("sql_not_writable", reason=error.message)
        return fault_of(error.message)
    except SQLAlchemyError as error:
        log.warning("sql_not_writable", reason=str(error))
        return fault_of(str(error))
    return None


def fault_of(message: str) -> str:
    """Return the fault in words that hold no address."""
    cause = next((cause for cause in _CAUSES if cause in message), None)
    return f"refuses writes: {cause}" if cause else "refuses writes"
