"""Create and delete watches at changedetection.io, one page after another, at the rate in the settings."""

from __future__ import annotations

import asyncio
from typing import Any

from app.clients.changedetection import ChangeDetection, WatchRequest, changedetection
from app.clients.changedetection_answers import RequestRefused, Watch
from app.clients.changedetection_template import notification
from app.core import clock
from app.core.db import in_transaction, read
from app.core.network.guard import is_private_by_name
from app.core.settings import get_settings
from app.jobs.worker.progress import Progress
from app.sources.changes import watches
from app.sources.models import PageWatch
from app.sources.payloads.change_bodies import webhook_token

TAG = "millrace"
BATCH = 100


async def sync(progress: Progress) -> dict[str, Any]:
    """Return {made, known, removed, failed}: pages whose watch was created, existed, was deleted, or was refused.

    If the worker dies between creating a watch and recording it, the next run finds the watch by its URL.
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
                await _delete(row, tag, progress)
                done["removed"] += 1
            elif outcome := await _create(row, tag, progress):
                done[outcome] += 1
            after = row.id
            await asyncio.sleep(max(0.0, 60 / get_settings().auto_watch_per_minute - (clock.monotonic() - started)))
    progress.report(sum(done.values()), max(sum(done.values()), 1), unit="pages")
    return done


async def _create(row: PageWatch, tag: str, progress: Progress) -> str | None:
    """Give the page a watch; return made, known or failed, or None if it is no longer wanted."""
    client = changedetection()
    if is_private_by_name(row.url):
        message = f"{row.url} is not on the public internet, so it is not watched"
        await in_transaction(watches.record_failed, progress.claim, row.id, message)
        return "failed"
    try:
        existing = await _find_existing(client, row)
        if existing is None and not await in_transaction(watches.mark_creating, progress.claim, row.id):
            return None
        watch_id = existing.uuid if existing is not None else await client.create(_request_for(row.url, tag))
    except RequestRefused as error:  # other errors are not about this page
        await in_transaction(watches.record_failed, progress.claim, row.id, error.message)
        return "failed"
    is_ours = existing is None or (existing.tags is not None and tag in existing.tags)
    await in_transaction(watches.record_created, progress.claim, row.id, watch_id, is_ours=is_ours)
    return "known" if existing else "made"


async def _find_existing(client: ChangeDetection, row: PageWatch) -> Watch | None:
    """Return a watch that the URL already has, unless it belongs to another page of ours."""
    free = await _find_free(client, row)
    return None if not free else await client.watch(free[0].uuid)


async def _find_free(client: ChangeDetection, row: PageWatch) -> list[Watch]:
    """Return the watches of the URL that belong to no other page of ours."""
    matches = await client.find(row.url)
    if not matches:
        return []
    taken = await read(watches.find_taken, [watch.uuid for watch in matches], row.document_id)
    return [watch for watch in matches if watch.uuid not in taken]


async def _delete(row: PageWatch, tag: str, progress: Progress) -> None:
    client = changedetection()
    if row.is_ours and row.watch_id is not None:
        await client.delete(row.watch_id)
    elif row.is_ours:  # possibly created and not recorded
        for watch in await _find_free(client, row):
            if tag in ((await client.watch(watch.uuid)).tags or ()):
                await client.delete(watch.uuid)
    await in_transaction(watches.record_removed, progress.claim, row.id)


def _request_for(url: str, tag: str) -> WatchRequest:
    settings = get_settings()
    return WatchRequest(url, tags=(tag,), every_s=settings.auto_watch_every_s, notification=notification_fields())


def notification_fields() -> dict[str, Any]:
    """Return the fields of a watch that notify us. Raises NotAllowed without a secret for webhooks."""
    settings = get_settings()
    return notification(settings.changedetection_notify_url or settings.api_url, webhook_token())
