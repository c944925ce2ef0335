"""Who may deliver events, by the name that a delivery keeps."""

from __future__ import annotations

from app.sources.webhooks.changedetection import ChangeDetection
from app.sources.webhooks.deliveries import Sender
from app.sources.webhooks.firecrawl import Firecrawl

FIRECRAWL: Sender = Firecrawl()
CHANGEDETECTION: Sender = ChangeDetection()
SENDERS: dict[str, Sender] = {sender.name: sender for sender in (FIRECRAWL, CHANGEDETECTION)}
