"""Actors of deliveries."""

from __future__ import annotations

from typing import Any

from actors.runtime import job_actor
from app.deliveries.webhooks import deliver
from app.jobs.progress import Progress
from app.jobs.webhooks import TellWebhook


@job_actor(TellWebhook)
async def tell_webhook(job: TellWebhook, progress: Progress) -> dict[str, Any]:
    return await deliver(job, progress.claim)
