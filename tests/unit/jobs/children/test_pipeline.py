"""A pipeline runs its steps one after the other, hands results on, and goes on where it failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.core.db import database
from app.core.errors import InvalidInput
from app.jobs.children import children as families
from app.jobs.children import pipeline
from app.jobs.children.children import WaitForChildren
from app.jobs.children.pipeline import Pipeline, PipelineStep
from app.jobs.definition import Job
from app.jobs.ledger import commands
from app.jobs.worker.run import Run
from tests.support.databases import SettingsEnv
from tests.unit.jobs.children.family import FAILED, Desk
from tests.unit.jobs.conftest import Chore


class Next(Job, kind="tests.next_step"):
    """Wants what the step before it made."""

    previous: dict[str, int] | None = None


@pytest.fixture
def desk(spine_env: SettingsEnv) -> Iterator[Desk]:
    made = Desk(Pipeline.kind, Next.kind)
    yield made
    made.close()


async def advance(desk: Desk, run: Run) -> dict[str, Any] | None:
    """Run the pipeline's code once, and wait until its end is written."""
    desk.begin(run)
    try:
        run.result = await pipeline.run(Pipeline.model_validate(run.claim.payload), run.claim)
        desk.end(run)
        return run.result
    except WaitForChildren as wait:
        desk.end(run, wait)
        return None
    finally:
        desk.until(run.claim.id, "waiting", "succeeded")


@pytest.mark.anyio
async def test_each_step_has_the_result_of_the_one_before(desk: Desk) -> None:
    (job_id,) = desk.enqueue(Pipeline.of(Chore(number=7), Next(), Next()))
    found = []
    for number in range(3):
        assert await advance(desk, desk.take_settled(job_id)) is None
        (step,) = desk.take()
        found.append((step.claim.kind, step.claim.payload.get("previous")))
        desk.begin(step)
        step.result = {"made": number}
        desk.end(step)
        desk.until(step.claim.id, "succeeded")
    assert found == [(Chore.kind, None), (Next.kind, {"made": 0}), (Next.kind, {"made": 1})]
    assert await advance(desk, desk.take_settled(job_id)) == {"made": 2}
    assert desk.ledger.row(job_id).result == {"made": 2}


@pytest.mark.anyio
async def test_a_failed_pipeline_tried_again_goes_on_with_the_step_that_failed(desk: Desk) -> None:
    (job_id,) = desk.enqueue(Pipeline.of(Chore(), Next()))
    for error in (None, FAILED):
        await advance(desk, desk.take_settled(job_id))
        (step,) = desk.take()
        desk.begin(step)
        desk.end(step, error)
        desk.until(step.claim.id, "succeeded", "failed")
    desk.settle(job_id, "failed")
    database().transaction(commands.retry, "default", job_id)
    await advance(desk, desk.take_settled(job_id))
    children = database().read(families.results_page, job_id)
    assert [child.state for child in children] == ["succeeded", "queued"]
    assert children[1].id == step.claim.id


def test_a_step_of_a_kind_that_is_gone_says_so() -> None:
    broken = Pipeline(steps=[PipelineStep(kind="tests.gone", payload={}, payload_version=1)])
    with pytest.raises(InvalidInput, match=r"tests\.gone"):
        broken.job(0, None)
