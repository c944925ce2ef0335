"""Let a worker read a blob that this process writes: the probe of `millrace doctor` through the queue."""

from __future__ import annotations

import asyncio
import os
import time

from sqlalchemy.orm import Session

from app.core.blobs import blobs
from app.core.db import database
from app.documents.jobs import ProbeOriginals
from app.jobs.ledger import commands, views
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from app.jobs.states import ENDED
from app.tenants.models import DEFAULT_TENANT

MAX_WAIT_S = 15.0
POLL_S = 0.1
PROBE_BYTES = 64


def probe() -> JobRow:
    """Return the row of the probe's job: ended, or cancelled if no worker took it within MAX_WAIT_S.

    Raises Unavailable if SQL or the store does not answer.
    """
    blob = asyncio.run(blobs().put(os.urandom(PROBE_BYTES)))
    job_id = database().transaction(_start, blob.key)
    deadline = time.monotonic() + MAX_WAIT_S
    try:
        while time.monotonic() < deadline:
            row = database().read(views.get, DEFAULT_TENANT, job_id)
            if row.state in ENDED:
                return row
            time.sleep(POLL_S)
        return database().transaction(commands.cancel, DEFAULT_TENANT, job_id)
    finally:
        asyncio.run(blobs().delete(blob.key))


def _start(session: Session, key: str) -> str:
    return enqueue(session, ProbeOriginals(blob_key=key), tenant=DEFAULT_TENANT).id
