"""Bodies of webhooks: events of Firecrawl and notifications of changedetection.io."""

from __future__ import annotations

from typing import Any

WATCH_ID = "9f0d40e2-48b3-429e-ac12-706728affa97"


def event(kind: str, *data: Any, crawl: str = "c-1", **more: Any) -> dict[str, Any]:
    """Return an event of Firecrawl."""
    return {"success": True, "type": kind, "id": crawl, "data": list(data), **more}


def page(url: str, text: str = "The heron stands.", **metadata: Any) -> dict[str, Any]:
    """Return a page of an event of Firecrawl."""
    return {"markdown": text, "metadata": {"url": url, "statusCode": 200, **metadata}}


def change(url: str, key: int = 1795338646, **more: Any) -> dict[str, Any]:
    """Return a notification of changedetection.io."""
    return {
        "event": "watch.changed",
        "watch_uuid": WATCH_ID,
        "watch_url": url,
        "history_key": str(key),
        "diff": "-a\n+b",
        **more,
    }
