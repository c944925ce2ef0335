"""A pipeline is a family in a row: each job starts when the one before it has succeeded, and may be given its result.

enqueue(session, Pipeline.of(FetchBook(isbn=isbn), PrintBook(copies=2)), tenant=tenant)
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field

from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.jobs.children import children as families
from app.jobs.children.children import ALL, WaitForChildren
from app.jobs.definition import Job, definition
from app.jobs.ledger.claims import Claim

# A step whose payload has a field of this name is given the result of the one before it there.
PREVIOUS = "previous"


class Step(BaseModel):
    """A job to come."""

    kind: str
    payload: dict[str, Any]
    payload_version: int


class Pipeline(Job, kind="jobs.pipeline", time_limit_s=60):
    """Runs its steps one after the other; the first that fails ends it. Its result is the last one's."""

    steps: list[Step] = Field(min_length=1)

    @classmethod
    def of(cls, *jobs: Job) -> Self:
        return cls(
            steps=[
                Step(kind=job.kind, payload=job.model_dump(mode="json"), payload_version=job.payload_version)
                for job in jobs
            ]
        )

    def job(self, number: int, previous: dict[str, Any] | None) -> Job:
        """The job of a step, with the result of the one before. Raises InvalidInput where it is none (any more)."""
        step = self.steps[number]
        kind = definition(step.kind)
        if kind is None:
            raise InvalidInput(f"step {number} is of the kind {step.kind!r}, which is not known here", code="kind")
        given = {PREVIOUS: previous} if PREVIOUS in kind.model_fields and number else {}
        return kind.load(step.payload | given, step.payload_version)


async def run(pipeline: Pipeline, claim: Claim) -> dict[str, Any] | None:
    """Start the next step and wait for it, or return the result of the last."""
    children = await read(families.results_page, claim.id, limit=len(pipeline.steps))
    done = [child for child in children if child.state == "succeeded"]
    previous = done[-1].result if done else None
    if len(done) == len(pipeline.steps):
        return previous
    following = pipeline.job(len(done), previous)
    await in_transaction(families.start, claim, [following], first=len(done))
    raise WaitForChildren(ALL, planned=len(pipeline.steps))
