"""A pipeline runs its steps in order, passes results on, and resumes at the failed step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.core.db import database
from app.core.errors import InvalidInput
from app.jobs.children import children, pipeline
from app.jobs.children.children import WaitForChildren
from app.jobs.children.pipeline import Pipeline, PipelineStep
from app.jobs.definition import Job
from app.jobs.ledger import commands
from app.jobs.worker.run import Run
from tests.support.databases import SettingsEnv
from tests.unit.jobs.children.family import FAILED, FamilyHarness
from tests.unit.jobs.conftest import Chore


class Next(Job, kind="tests.next_step"):
    """Takes the result of the previous step."""

    previous: dict[str, int] | None = None


@pytest.fixture
def harness(spine_env: SettingsEnv) -> Iterator[FamilyHarness]:
    made = FamilyHarness(Pipeline.kind, Next.kind)
    yield made
    made.close()


async def advance(harness: FamilyHarness, run: Run) -> dict[str, Any] | None:
    """Run the pipeline once and wait until its end is written."""
    harness.begin(run)
    try:
        run.result = await pipeline.run(Pipeline.model_validate(run.claim.payload), run.claim)
        harness.end(run)
        return run.result
    except WaitForChildren as wait:
        harness.end(run, wait)
        return None
    finally:
        harness.until(run.claim.id, "waiting", "succeeded")


@pytest.mark.anyio
async def test_each_step_gets_the_result_of_the_previous_one(harness: FamilyHarness) -> None:
    (job_id,) = harness.enqueue(Pipeline.of(Chore(number=7), Next(), Next()))
    steps = []
    for number in range(3):
        assert await advance(harness, harness.take_settled(job_id)) is None
        (step,) = harness.take()
        steps.append((step.claim.kind, step.claim.payload.get("previous")))
        harness.begin(step)
        step.result = {"made": number}
        harness.end(step)
        harness.until(step.claim.id, "succeeded")
    assert steps == [(Chore.kind, None), (Next.kind, {"made": 0}), (Next.kind, {"made": 1})]
    assert await advance(harness, harness.take_settled(job_id)) == {"made": 2}
    assert harness.ledger.row(job_id).result == {"made": 2}


@pytest.mark.anyio
async def test_retried_pipeline_resumes_at_the_failed_step(harness: FamilyHarness) -> None:
    (job_id,) = harness.enqueue(Pipeline.of(Chore(), Next()))
    for error in (None, FAILED):
        await advance(harness, harness.take_settled(job_id))
        (step,) = harness.take()
        harness.begin(step)
        harness.end(step, error)
        harness.until(step.claim.id, "succeeded", "failed")
    harness.settle(job_id, "failed")
    database().transaction(commands.retry, "default", job_id)
    await advance(harness, harness.take_settled(job_id))
    steps = database().read(children.results_page, job_id)
    assert [child.state for child in steps] == ["succeeded", "queued"]
    assert steps[1].id == step.claim.id


def test_step_of_an_unknown_kind_names_the_kind() -> None:
    broken = Pipeline(steps=[PipelineStep(kind="tests.gone", payload={}, payload_version=1)])
    with pytest.raises(InvalidInput, match=r"tests\.gone"):
        broken.job(0, None)
