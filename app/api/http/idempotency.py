"""`Idempotency-Key` on routes that create: the same key and body again get the same answer, for 24 hours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session

from app.core.db import in_transaction
from app.core.errors import InvalidInput
from app.documents.accept.quota import within
from app.jobs.idempotency import Answer, Ticket, once

LONGEST_KEY = 255
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="A text of your own: the same request again is answered as the first time, for 24 hours.",
    ),
]


@dataclass(frozen=True, slots=True)
class Once:
    """This request's key and what it stands for."""

    key: str | None
    request_hash: str

    async def run(self, tenant: str, work: Callable[[Session], Answer]) -> Answer:
        """`work(session)` in one transaction with its key and within the tenant's quotas, or its answer from before.

        Raises InvalidInput (422) for another request under this key, Conflict (409) while the first is under way,
        LimitReached (429) or Conflict (409) beyond a quota.
        """
        ticket = None if self.key is None else Ticket(tenant, self.key, self.request_hash)
        return await in_transaction(once, ticket, lambda session: within(session, tenant, work))


async def _checked(key: Key = None) -> str | None:
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise InvalidInput(
            f"an Idempotency-Key has up to {LONGEST_KEY} printable ASCII characters", code="idempotency_key"
        )
    return key


# For routes whose bodies are too large to be digested as they stand: they make a Once of their own.
OnceKey = Annotated[str | None, Depends(_checked)]


async def _of_request(request: Request, key: OnceKey) -> Once:
    if key is None:
        return Once(None, "")
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
    digest.update(await request.body())
    return Once(key, digest.hexdigest())


OnceOnly = Annotated[Once, Depends(_of_request)]
