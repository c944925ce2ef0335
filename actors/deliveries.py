"""Actors of deliveries."""

from __future__ import annotations

from typing import Any

from actors.runtime import job_actor
from app.deliveries.webhooks import deliver
from app.jobs.ledger.end_webhooks import TellWebhook
from app.jobs.worker.progress import Progress


@job_actor(TellWebhook)
async def tell_webhook(job: TellWebhook, progress: Progress) -> dict[str, Any]:
    return await deliver(job, progress.claim)
