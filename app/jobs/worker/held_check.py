"""The worker's check of itself: each job that the ledger says it runs is one that it holds.

A claim that no run holds would stay `running` as long as this worker lives: no limit and no cancel reaches it.
"""

from __future__ import annotations

from datetime import timedelta

from app.core import clock
from app.core.db import database
from app.core.errors import AppError
from app.core.logging import get_logger
from app.jobs.ledger.claims import Claim, list_claims_of
from app.jobs.worker.finisher import EndedRun, Finisher
from app.jobs.worker.outcome import end_of, judge
from app.jobs.worker.run import Runs

# Claims become runs, and ends become rows, within a second or two; a slow disk is given this long.
MIN_AGE = timedelta(seconds=20)
INTERVAL_S = 10.0

log = get_logger(__name__)


class HeldCheck:
    """Ends, as a failed try, a claim that two checks in a row found without a run."""

    def __init__(self, runs: Runs, finisher: Finisher) -> None:
        self._runs = runs
        self._finisher = finisher
        self._suspects: set[tuple[str, int]] = set()
        self._next_at = 0.0

    def run(self, worker_id: str) -> None:
        """Check once per INTERVAL_S. Raises Unavailable while SQL cannot be read."""
        now = clock.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + INTERVAL_S
        claims = database().read(list_claims_of, worker_id, claimed_before=clock.now() - MIN_AGE)
        held = {run.claim.id for run in self._runs.all()} | self._finisher.unwritten()
        lost = [claim for claim in claims if claim.id not in held]
        for claim in lost:
            if (claim.id, claim.fence) in self._suspects:
                self._end(claim)
        self._suspects = {(claim.id, claim.fence) for claim in lost}

    def _end(self, claim: Claim) -> None:
        log.error("running_job_not_held", job_id=claim.id, kind=claim.kind)
        error = AppError("the worker no longer held this job; its end was lost", code="not_held")
        end = end_of(claim, judge(claim, error), started_at=None, result=None, progress=None)
        self._finisher.submit(EndedRun(end, claim, None))
