"""Who may deliver events, by the name that a delivery keeps."""

from __future__ import annotations

from app.sources.change_intake import ChangeDetection
from app.sources.firecrawl_intake import Firecrawl
from app.sources.intake import Sender

FIRECRAWL: Sender = Firecrawl()
CHANGEDETECTION: Sender = ChangeDetection()
SENDERS: dict[str, Sender] = {sender.name: sender for sender in (FIRECRAWL, CHANGEDETECTION)}
