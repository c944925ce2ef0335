"""Deliveries with text that a database or UTF-8 refuses, on both databases."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from app.core.db import Database
from app.core.errors import InvalidInput
from app.sources.webhooks import deliveries
from app.sources.webhooks.handlers import HANDLERS
from tests.support.changes import change
from tests.support.desk import TENANT
from tests.support.firecrawl_events import event, page

# Text that PostgreSQL refuses, and text that UTF-8 refuses.
ODD = ["a\0b", "a\ud800b"]


def _of_firecrawl(odd: str) -> list[Any]:
    return [
        event("crawl.page", page("https://a.org/1"), crawl=odd),
        event("crawl.page", page("https://a.org/1"), webhookId=odd),
        event("crawl.page", page(f"https://a.org/{odd}", title=odd, x=odd)),
        event("crawl.page", {"url": odd, "markdown": "x"}),
        event("crawl.page", {"markdown": "", "metadata": {"url": f"https://a.org/{odd}"}}),
        event("crawl.page", page(f"https://a.org/{odd}"), error=odd) | {"success": False},
        event("crawl.failed", error=odd) | {"success": False},
    ]


def _of_changedetection(odd: str) -> list[Any]:
    url = "https://a.org/1"
    return [
        change(f"https://a.org/{odd}"),
        change(url, watch_uuid=odd, title=odd, diff=odd, diff_url=odd),
        change(url, tags=odd),
        {"message": f"see https://a.org/{odd}"},
        b"message=https://a.org/1 " + b"&".join(b"a%d=1" % number for number in range(60)),
    ]


@pytest.mark.parametrize("odd", ODD, ids=["nul", "half"])
@pytest.mark.parametrize("sender", ["firecrawl", "changedetection"])
def test_odd_text_is_stored_or_refused(db: Database, sender: str, odd: str) -> None:
    """Each is stored or refused, listed and replayed, and never raises an error of the database."""
    for body in _of_firecrawl(odd) if sender == "firecrawl" else _of_changedetection(odd):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            received = asyncio.run(deliveries.receive(TENANT, HANDLERS[sender], raw, None))
            response = db.transaction(deliveries.store, received)
        except InvalidInput as error:
            assert error.code == "webhook_payload"
            continue
        assert JSONResponse(response.body).body
        [row] = db.read(deliveries.list_deliveries, TENANT, source=sender, outcome=None, before_id=None, limit=1)
        assert JSONResponse(deliveries.describe(row)).body
        assert (
            db.transaction(deliveries.replay, TENANT, row.id, received.payload, HANDLERS[sender], None).status
            == response.status
        )
