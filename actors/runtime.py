"""An actor for a definition: which function runs a kind of job, and how it is run.

    @job_actor(IngestDocument)
    async def ingest_document(job: IngestDocument, progress: Progress) -> None:
        await ingest(job.document_id, progress)

An `async def` waits on the worker's loop; a plain `def` computes, in a lane. What surrounds every run is middleware.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any, TypeVar

import dramatiq

from app.core.errors import AppError, InvalidInput
from app.core.settings import get_settings
from app.jobs.awaiting import AWAITS
from app.jobs.broker import install
from app.jobs.definition import Job
from app.jobs.lanes import LaneCall
from app.jobs.process import WorkerProcess
from app.jobs.queues import QUEUES
from app.jobs.run import Run

F = TypeVar("F", bound=Callable[..., Any])

LARGEST_RESULT_BYTES = 64 * 1024


def job_actor(definition: type[Job]) -> Callable[[F], F]:
    """Register the function as the actor of the definition's kind; the function itself stays what it was.

    It is called with the payload and a Progress, and may return a dictionary, the job's result.
    """

    def decorate(function: F) -> F:
        if get_settings().role == "lane":
            return function
        broker = install()
        process, options = broker.process, {}

        def receive(job_id: str) -> None:
            run = process.runs.get(job_id)
            if run is not None:  # else it was handed back a moment ago
                run.result = checked_result(_run_in_lane(process, run, definition, function))

        async def awaits(run: Run) -> None:
            run.result = checked_result(await _stoppable(process, run, definition, function))

        if inspect.iscoroutinefunction(function):
            options[AWAITS] = awaits

        dramatiq.Actor(
            receive,
            broker=broker,
            actor_name=definition.kind,
            queue_name=definition.queue,
            priority=QUEUES.index(definition.queue),
            options=options,
        )
        return function

    return decorate


async def _stoppable(process: WorkerProcess, run: Run, definition: type[Job], function: Callable[..., Any]) -> Any:
    job = definition.load(run.claim.payload, run.claim.payload_version)
    task = asyncio.current_task()
    assert task is not None

    def stop(_: AppError) -> None:
        process.loop.loop.call_soon_threadsafe(task.cancel)

    run.attach(stop)
    try:
        if run.claim.must_mark_start:
            await asyncio.to_thread(process.mark_start_now, run)
        return await function(job, run.progress)
    except asyncio.CancelledError as error:
        if run.reason is None:
            raise RuntimeError("the job cancelled itself") from error
        raise run.reason from None
    finally:
        run.attach(_nothing)


def _nothing(_: AppError) -> None:
    """There is no code to stop any more."""


def _run_in_lane(process: WorkerProcess, run: Run, definition: type[Job], function: Callable[..., Any]) -> Any:
    job = definition.load(run.claim.payload, run.claim.payload_version)
    progress = run.progress
    assert progress is not None
    if run.claim.must_mark_start:
        process.mark_start_now(run)

    def report(said: dict[str, Any]) -> None:
        progress.report(**said)

    call = LaneCall.of_job(
        f"{definition.__module__}:{definition.__qualname__}",
        job.model_dump(mode="json"),
        function,
        on_progress=report,
        time_limit_s=definition.time_limit_s,
        grace_s=definition.grace_s,
        memory_mb=definition.memory_mb or get_settings().lane_memory_mb,
    )
    run.disarm()  # the lane keeps the limits, counted from when it has the call
    run.attach(call.stop)
    return call.run()


def checked_result(result: Any) -> dict[str, Any] | None:
    """What a job returned, as its row can keep it. Raises InvalidInput for no dictionary, no JSON, too much of it."""
    if result is None:
        return None
    if not isinstance(result, dict):
        raise InvalidInput(f"a job returns a dictionary or nothing, not {type(result).__name__}", code="result")
    try:
        size = len(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the job's result is not JSON: {error}", code="result") from error
    if size > LARGEST_RESULT_BYTES:
        raise InvalidInput(f"a result may have {LARGEST_RESULT_BYTES} bytes, this has {size}", code="result_size")
    return result
