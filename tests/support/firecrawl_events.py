"""Webhook events as Firecrawl sends them, signed."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import httpx

from tests.support.sender import PATH, SECRET
from tests.unit.api.conftest import Api


def sign(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def send(api: Api, event: Any, **headers: str) -> httpx.Response:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return api.anyone.post(PATH, content=body, headers={"x-firecrawl-signature": sign(body), **headers})


def page(url: str, text: str = "The heron stands.", **metadata: Any) -> dict[str, Any]:
    return {"markdown": text, "metadata": {"url": url, "statusCode": 200, **metadata}}


def event(kind: str, *data: Any, crawl: str = "c-1", **more: Any) -> dict[str, Any]:
    return {"success": True, "type": kind, "id": crawl, "data": list(data), **more}
