"""Watches made and removed at changedetection.io, one page after another, no faster than the settings say."""

from __future__ import annotations

import asyncio
from typing import Any

from app.clients.changedetection import ChangeDetection, WatchRequest, changedetection
from app.clients.changedetection_answers import Watch
from app.clients.changedetection_template import notification
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import Rejected
from app.core.settings import get_settings
from app.jobs.worker.progress import Progress
from app.sources.changes import watches
from app.sources.models import PageWatch
from app.sources.payloads.change_bodies import webhook_token

TAG = "millrace"
BATCH = 100


async def sync(progress: Progress) -> dict[str, Any]:
    """{made, known, removed, failed}: pages that got a watch, had one, lost theirs, or cannot have one.

    A watch that was made and not noted, because the worker died in between, is found again by its address.
    """
    claim = progress.claim
    total = 0
    done = {"made": 0, "known": 0, "removed": 0, "failed": 0}
    while (planned := await in_transaction(watches.plan, claim)) or not total:
        total = max(total + planned, 1)
        if planned < watches.PLAN_BATCH:
            break
    tag: str | None = None
    after = 0
    while rows := await read(watches.list_pending, claim.tenant, after, BATCH):
        for row in rows:
            started = clock.monotonic()
            progress.report(sum(done.values()), max(total, sum(done.values()) + 1), unit="pages", message=row.url)
            tag = tag or await changedetection().tag(TAG)
            if row.state == "unwanted":
                await _remove(row, tag, progress)
                done["removed"] += 1
            elif became := await _make(row, tag, progress):
                done[became] += 1
            after = row.id
            await asyncio.sleep(max(0.0, 60 / get_settings().auto_watch_per_minute - (clock.monotonic() - started)))
    progress.report(sum(done.values()), max(sum(done.values()), 1), unit="pages")
    return done


async def _make(row: PageWatch, tag: str, progress: Progress) -> str | None:
    """What became of it; None where nobody wants it any more."""
    client = changedetection()
    try:
        found = await _known(client, row)
        if found is None and not await in_transaction(watches.mark_creating, progress.claim, row.id):
            return None
        watch_id = found.uuid if found is not None else await client.create(_wanted(row.url, tag))
    except Rejected as error:
        if error.code != "changedetection_rejected":  # not about this page
            raise
        await in_transaction(watches.record_failed, progress.claim, row.id, error.message)
        return "failed"
    is_ours = found is None or (found.tags is not None and tag in found.tags)
    await in_transaction(watches.record_created, progress.claim, row.id, watch_id, is_ours=is_ours)
    return "known" if found else "made"


async def _known(client: ChangeDetection, row: PageWatch) -> Watch | None:
    """The watch that this address has there already, unless it belongs to another page of ours."""
    free = await _free(client, row)
    return None if not free else await client.watch(free[0].uuid)


async def _free(client: ChangeDetection, row: PageWatch) -> list[Watch]:
    """The watches of this address that belong to no other page of ours."""
    found = await client.find(row.url)
    if not found:
        return []
    others = await read(watches.find_taken, [watch.uuid for watch in found], row.document_id)
    return [watch for watch in found if watch.uuid not in others]


async def _remove(row: PageWatch, tag: str, progress: Progress) -> None:
    client = changedetection()
    if row.is_ours and row.watch_id is not None:
        await client.delete(row.watch_id)
    elif row.is_ours:  # perhaps made, and not noted
        for one in await _free(client, row):
            if tag in ((await client.watch(one.uuid)).tags or ()):
                await client.delete(one.uuid)
    await in_transaction(watches.record_removed, progress.claim, row.id)


def _wanted(url: str, tag: str) -> WatchRequest:
    settings = get_settings()
    return WatchRequest(url, tags=(tag,), every_s=settings.auto_watch_every_s, notification=notification_fields())


def notification_fields() -> dict[str, Any]:
    """The fields of a watch that make it tell us. Raises NotAllowed without a secret for webhooks."""
    settings = get_settings()
    return notification(settings.changedetection_notify_url or settings.api_url, webhook_token())
