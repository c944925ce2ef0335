"""Actors of deliveries."""

from __future__ import annotations

from typing import Any

from actors.runtime import job_actor
from app.deliveries.webhooks import deliver
from app.jobs.ledger.end_webhooks import DeliverWebhook
from app.jobs.worker.progress import Progress


@job_actor(DeliverWebhook)
async def tell_webhook(job: DeliverWebhook, progress: Progress) -> dict[str, Any]:
    return await deliver(job, progress.claim)
