"""Searches through the API."""

from __future__ import annotations

from typing import Any

import httpx


def search_ids(client: httpx.Client, text: str, **filters: Any) -> list[str]:
    """Return the ids of the documents that a keyword search finds."""
    answer = client.post("/api/search", json={"query": text, "mode": "keyword", "filters": filters})
    assert answer.status_code == 200, answer.text
    return [hit["document_id"] for hit in answer.json()["results"]]
