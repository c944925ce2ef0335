"""Find missed changes in the histories of watches.

changedetection.io retries a notification a few times and then drops it; the history of the watch keeps the change.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.clients.changedetection import changedetection
from app.clients.changedetection_answers import Watch
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import NotFound
from app.documents.text import clean_line
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.sources.changes import changes, watches
from app.sources.changes.jobs import Rescrape
from app.sources.models import PageWatch
from app.sources.payloads.change_bodies import PageChange

# Missed changes recorded for one watch; older ones are covered by the newest.
MAX_MISSED_CHANGES = 20


async def reconcile(progress: Progress) -> dict[str, Any]:
    """Return {watches, changes, lost}: watches checked, changes missed, watches that no longer exist."""
    claim = progress.claim
    remote_watches = await changedetection().watches()
    known = await read(watches.find_present, claim.tenant)
    missed = lost = 0
    for number, (watch_id, (row, last_key)) in enumerate(known.items()):
        progress.report(number, len(known), unit="watches", message=row.url)
        watch = remote_watches.get(watch_id)
        if watch is None:
            lost += await _check_lost(claim, row)
        elif watch.last_changed > last_key:
            keys = await changedetection().history(watch_id)
            # The first snapshot is the initial state of the page, not a change.
            gap = [key for key in keys[1:] if key > last_key][-MAX_MISSED_CHANGES:]
            missed += await in_transaction(_record, claim, row.id, gap)
        if watch is not None and (watch.last_error or None) != row.error_message:
            await in_transaction(_record_error, claim, row.id, watch)
    return {"watches": len(known), "changes": missed, "lost": lost}


async def _check_lost(claim: Claim, row: PageWatch) -> int:
    """Return 1 if the watch does not exist, 0 if it was only created after the list was read."""
    try:
        await changedetection().watch(str(row.watch_id))
    except NotFound:
        await in_transaction(_want_again, claim, row.id)
        return 1
    return 0


def _want_again(session: Session, claim: Claim, row_id: int) -> None:
    claims.hold(session, claim)
    session.execute(
        sa.update(PageWatch)
        .where(PageWatch.id == row_id, PageWatch.state == "present")
        .values(state="wanted", watch_id=None, is_ours=False, updated_at=clock.now())
    )


def _record_error(session: Session, claim: Claim, row_id: int, watch: Watch) -> None:
    """Store the error that changedetection.io reports for the page."""
    claims.hold(session, claim)
    message = clean_line(watch.last_error, 1000)
    session.execute(sa.update(PageWatch).where(PageWatch.id == row_id).values(error_message=message))


def _record(session: Session, claim: Claim, row_id: int, gap: list[int]) -> int:
    """Store an event for each change; only the newest gets a job, since it covers the older ones."""
    claims.hold(session, claim)
    row = session.get(PageWatch, row_id)
    if row is None or row.state != "present":
        return 0
    for key in gap:
        at = datetime.fromtimestamp(key, UTC)
        change = PageChange(row.url, row.watch_id, key, at, None, "", None)
        event = changes.record(session, row.tenant, change, origin="reconcile")
        if event.job_id is not None or event.state != "queued":
            continue  # its notification arrived in the meantime
        if key == gap[-1]:
            changes.start_rescrape(session, event, Rescrape(event_id=event.id), claim.request_id)
        else:
            event.state, event.ended_at = "superseded", clock.now()
    return len(gap)
