"""Waiting for the end of a job on behalf of a caller."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import Request
from sqlalchemy.orm import Session

from app.api.http.app_state import hub_of
from app.core.db import read
from app.jobs.events.hub import EventHub
from app.jobs.events.subscribers import JobSubscriber
from app.jobs.ledger import views

MAX_WAIT_S = 60.0
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})\"?(?:$|[,;\s])", re.ASCII | re.IGNORECASE)


def preferred_wait_s(request: Request) -> float:
    """Return the seconds to wait: `?wait=N`, else `Prefer: wait=N`; at most 60, and 0 without either.

    Never raises: the work may have been accepted before.
    """
    wait = request.query_params.get("wait", "")
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", wait, re.ASCII):
        return min(float(wait), MAX_WAIT_S)
    preferred = _PREFER_WAIT.search(request.headers.get("prefer", ""))
    return min(float(preferred[1]), MAX_WAIT_S) if preferred else 0.0


async def wait_for_end(request: Request, tenant: str, job_id: str, wait_s: float) -> dict[str, Any]:
    """Return the job in full once it has ended, or its state after wait_s. Raises NotFound, Unavailable."""
    if wait_s:
        await EndWaiter(hub_of(request), job_id).wait(tenant, wait_s)
    return await read(_detail, tenant, job_id)


def _detail(session: Session, tenant: str, job_id: str) -> dict[str, Any]:
    return views.job_detail(session, views.get(session, tenant, job_id))


class EndWaiter(JobSubscriber):
    """Waits for the end of a job, or of the process."""

    __slots__ = ("_over",)

    def __init__(self, hub: EventHub, job_id: str) -> None:
        super().__init__(hub, job_id)
        self._over = asyncio.Event()

    def wake(self) -> None:
        events = self.take()
        if self.hung_up or any(event.name == "end" for event in events):
            self._over.set()

    async def wait(self, tenant: str, timeout_s: float) -> None:
        """Return when the job ends or timeout_s has passed; the ledger has the state. Raises NotFound."""
        await self.hub.open(self, tenant)
        try:
            self.wake()
            async with asyncio.timeout(timeout_s):
                await self._over.wait()
        except TimeoutError:
            return
        finally:
            self.hub.drop(self)
