"""Claims that no ledger made."""

from __future__ import annotations

from typing import Any

from app.core import clock
from app.core.ids import uuid7
from app.jobs.definition import Job
from app.jobs.ledger.claims import Claim


class Plain(Job, kind="tests.outcome.plain"):
    """Takes its delays from the settings."""


def claim_of(kind: str = Plain.kind, *, tries: int = 0, max_tries: int = 4, **more: Any) -> Claim:
    now = clock.now()
    known: dict[str, Any] = {
        "id": uuid7(),
        "fence": 1,
        "tenant": "default",
        "kind": kind,
        "queue": "default",
        "payload": {},
        "payload_version": 1,
        "crashes": 0,
        "due_at": now,
        "claimed_at": now,
        "worker_id": uuid7(),
        "document_id": None,
        "request_id": None,
        "progress": None,
        "traceparent": None,
        "parent_id": None,
        "family_rule": None,
    }
    return Claim(**(known | {"tries": tries, "max_tries": max_tries} | more))
