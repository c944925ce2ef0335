"""Who may deliver events, by the name that a delivery keeps."""

from __future__ import annotations

from app.sources.webhooks.changedetection import ChangeDetectionWebhook
from app.sources.webhooks.deliveries import WebhookHandler
from app.sources.webhooks.firecrawl import FirecrawlWebhook

FIRECRAWL: WebhookHandler = FirecrawlWebhook()
CHANGEDETECTION: WebhookHandler = ChangeDetectionWebhook()
HANDLERS: dict[str, WebhookHandler] = {sender.name: sender for sender in (FIRECRAWL, CHANGEDETECTION)}
