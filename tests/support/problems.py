"""The one shape of an error answer."""

from __future__ import annotations

import httpx

MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "errors"}


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert body.keys() >= MEMBERS
    assert body["request_id"] == answer.headers["x-request-id"]
    assert float(answer.headers["x-process-time"]) >= 0
