"""API keys that a test creates for its own clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.unit.api.conftest import Api


@contextmanager
def holder(api: Api, *scopes: str, tenant: str = "default") -> Iterator[httpx.Client]:
    """Yield a client with a new key of these scopes."""
    if tenant != "default":
        api.client.post("/api/tenants", json={"id": tenant})
    made = api.client.post("/api/keys", json={"name": "test", "scopes": list(scopes), "tenant": tenant})
    assert made.status_code == 201, made.text
    headers = {"Authorization": f"Bearer {made.json()['key']}", "X-Key": made.json()["id"]}
    with httpx.Client(base_url=api.url, headers=headers, timeout=20, trust_env=False) as client:
        yield client
