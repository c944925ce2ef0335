"""Webhook sources by name; the name is stored with each delivery."""

from __future__ import annotations

from app.sources.webhooks.changedetection import ChangeDetectionWebhook
from app.sources.webhooks.deliveries import WebhookHandler
from app.sources.webhooks.firecrawl import FirecrawlWebhook

FIRECRAWL: WebhookHandler = FirecrawlWebhook()
CHANGEDETECTION: WebhookHandler = ChangeDetectionWebhook()
HANDLERS: dict[str, WebhookHandler] = {handler.name: handler for handler in (FIRECRAWL, CHANGEDETECTION)}
