"""A watched page, and the body that changedetection.io sends when it changes."""

from __future__ import annotations

from typing import Any

from tests.fakes.server import Response
from tests.fakes.site import page as site_page

UUID = "9f0d40e2-48b3-429e-ac12-706728affa97"


def page(*lines: str) -> Response:
    text = "".join(f"<p>{line} and it stands for long enough to be a text of its own.</p>" for line in lines)
    return site_page(f"<html><head><title>Prices</title></head><body><main>{text}</main></body></html>".encode())


def change(url: str, key: int = 1795338646, **more: Any) -> dict[str, Any]:
    return {
        "event": "watch.changed",
        "watch_uuid": UUID,
        "watch_url": url,
        "history_key": str(key),
        "diff": "-a\n+b",
        **more,
    }
