"""Proof that all processes of an installation use one store of originals.

The first process puts a marker into its store and its name into SQL. A process whose store lacks that marker could not
read what the others write.
"""

from __future__ import annotations

import threading

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.blobs import Blobs, blob_url, blobs
from app.core.db import Database, database
from app.core.errors import AppError, ConfigError, Unavailable
from app.core.ids import uuid7
from app.core.logging import get_logger, mask
from app.core.sql import insert
from app.documents.models import InstallationFact

MARKER = "originals_marker"
# A bucket that does not answer must not keep a process from its start.
MAX_CHECK_S = 5.0

log = get_logger(__name__)


def is_shared(database: Database, store: Blobs) -> bool:
    """Return True if the store has the installation's marker; the first process puts it there.

    Raises Unavailable if SQL or the store does not answer, or the schema is older.
    """
    name = database.read(_read_marker)
    if name is None:
        candidate = uuid7()
        store.put_marker(candidate)
        name = database.transaction(_claim_marker, candidate)
    return store.has_marker(name)


def require_shared() -> None:
    """Raise ConfigError if this process has another store than the other processes. Raises Unavailable."""
    if is_shared(database(), blobs()):
        return
    raise ConfigError(
        f"MILLRACE_BLOB_URL: {mask(blob_url())} is not the store of originals that the other processes use: workers "
        "could not read what the api writes. Give all of them one folder or bucket; if this is a copy of a lost store, "
        "run `millrace config accept-store`",
        code="blobs_not_shared",
    )


def check_at_start() -> None:
    """Raise ConfigError like require_shared(); log a service that does not answer yet and go on."""
    faults: list[AppError] = [Unavailable("no answer yet")]

    def check() -> None:
        try:
            require_shared()
            faults.clear()
        except AppError as error:
            faults[:] = [error]

    checking = threading.Thread(target=check, name="check-originals", daemon=True)
    checking.start()
    checking.join(MAX_CHECK_S)
    for fault in faults:
        if isinstance(fault, ConfigError):
            raise fault
        log.warning("originals_not_checked", reason=fault.message)


def accept(database: Database, store: Blobs) -> None:
    """Make this store the installation's: put a new marker into it, and its name into SQL."""
    name = uuid7()
    store.put_marker(name)
    database.transaction(_replace_marker, name)


def _read_marker(session: Session) -> str | None:
    return session.scalar(sa.select(InstallationFact.value).where(InstallationFact.name == MARKER))


def _claim_marker(session: Session, candidate: str) -> str:
    """Return the marker in force: the candidate, unless another process was faster."""
    row = {"name": MARKER, "value": candidate}
    dialect = session.get_bind().dialect.name
    session.execute(insert(dialect, sa.inspect(InstallationFact).local_table).values(row).on_conflict_do_nothing())
    return session.scalars(sa.select(InstallationFact.value).where(InstallationFact.name == MARKER)).one()


def _replace_marker(session: Session, name: str) -> None:
    session.merge(InstallationFact(name=MARKER, value=name))
