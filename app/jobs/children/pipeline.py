"""Pipelines: children in a row. Each starts after the one before it succeeded, and may receive its result.

enqueue(session, Pipeline.of(FetchBook(isbn=isbn), PrintBook(copies=2)), tenant=tenant)
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field

from app.core.db import in_transaction, read
from app.core.errors import InvalidInput
from app.jobs.children import children
from app.jobs.children.children import ALL, WaitForChildren
from app.jobs.definition import Job, definition
from app.jobs.ledger.claims import Claim
from app.jobs.payloads import payload_dict

# A step whose payload has this field receives the result of the step before it there.
PREVIOUS = "previous"


class PipelineStep(BaseModel):
    """A job to start later."""

    kind: str
    payload: dict[str, Any]
    payload_version: int


class Pipeline(Job, kind="jobs.pipeline", time_limit_s=60):
    """Runs its steps in order; the first failure ends it. Its result is that of the last step."""

    steps: list[PipelineStep] = Field(min_length=1)

    @classmethod
    def of(cls, *jobs: Job) -> Self:
        return cls(
            steps=[
                PipelineStep(kind=job.kind, payload=payload_dict(job), payload_version=job.payload_version)
                for job in jobs
            ]
        )

    def job(self, number: int, previous: dict[str, Any] | None) -> Job:
        """Return the job of a step, with the result of the step before. Raises InvalidInput for an invalid payload."""
        step = self.steps[number]
        kind = definition(step.kind)
        if kind is None:
            raise InvalidInput(
                f"step {number} has the kind {step.kind!r}, which this server does not know", code="kind"
            )
        extra = {PREVIOUS: previous} if PREVIOUS in kind.model_fields and number else {}
        return kind.load(step.payload | extra, step.payload_version)


async def run(pipeline: Pipeline, claim: Claim) -> dict[str, Any] | None:
    """Start the next step and wait for it, or return the result of the last."""
    results = await read(children.results_page, claim.id, limit=len(pipeline.steps))
    done = [child for child in results if child.state == "succeeded"]
    previous = done[-1].result if done else None
    if len(done) == len(pipeline.steps):
        return previous
    following = pipeline.job(len(done), previous)
    await in_transaction(children.start, claim, [following], first=len(done))
    raise WaitForChildren(ALL, planned=len(pipeline.steps))
