"""How a worker runs the function of a kind: on the loop where it awaits, in a sandbox where it computes."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import dramatiq

from app.core.errors import AppError, Snooze
from app.core.settings import get_settings
from app.jobs.definition import Job
from app.jobs.functions import DeclaredFunction
from app.jobs.queues import QUEUES
from app.jobs.results import check_result
from app.jobs.sandbox.call import SandboxCall
from app.jobs.worker import call_rates
from app.jobs.worker.async_runner import AWAITS
from app.jobs.worker.broker import LedgerBroker
from app.jobs.worker.process import WorkerProcess
from app.jobs.worker.run import Run

# A payload of a newer version is offered again after so long.
LEFT_FOR_S = 15.0


def add_actor(broker: LedgerBroker, declared: DeclaredFunction) -> None:
    """Make the function the actor of its kind; what surrounds every run is middleware."""
    definition, function = declared
    process, options = broker.process, {}

    def receive(job_id: str) -> None:
        run = process.runs.get(job_id)
        if run is not None:  # else it was handed back a moment ago
            run.result = check_result(_run_in_sandbox(process, run, definition, function))

    async def awaits(run: Run) -> None:
        run.result = check_result(await _stoppable(process, run, definition, function))

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


async def _stoppable(process: WorkerProcess, run: Run, definition: type[Job], function: Callable[..., Any]) -> Any:
    job = _loaded(definition, run)
    task = run.task
    assert task is not None

    def stop(_: AppError) -> None:
        process.loop.loop.call_soon_threadsafe(task.cancel)

    run.attach(stop)
    try:
        if run.claim.must_mark_start:
            await asyncio.to_thread(process.mark_start_now, run)
        line = call_rates.start_rate_of(job)
        if line is not None:
            await call_rates.take(*line)
        return await function(job, run.progress)
    except asyncio.CancelledError as error:
        if run.reason is None:
            raise RuntimeError("the job cancelled itself") from error
        raise run.reason from None
    finally:
        run.attach(_nothing)


def _loaded(definition: type[Job], run: Run) -> Job:
    """The payload. One that a newer program wrote is left to a newer worker, as a kind that nobody here knows is."""
    if run.claim.payload_version > definition.payload_version:
        message = (
            f"payload version {run.claim.payload_version} is newer than this worker's {definition.payload_version}"
        )
        raise Snooze(LEFT_FOR_S, f"{definition.kind}: {message}", code="payload_version")
    return definition.load(run.claim.payload, run.claim.payload_version)


def _nothing(_: AppError) -> None:
    """There is no code to stop any more."""


def _run_in_sandbox(process: WorkerProcess, run: Run, definition: type[Job], function: Callable[..., Any]) -> Any:
    job = _loaded(definition, run)
    progress = run.progress
    assert progress is not None
    if run.claim.must_mark_start:
        process.mark_start_now(run)
    line = call_rates.start_rate_of(job)
    if line is not None:
        threading.Event().wait(call_rates.reserve(*line, call_rates.MAX_THREAD_WAIT_S))

    def report(said: dict[str, Any]) -> None:
        progress.report(**said)

    call = SandboxCall.of_job(
        f"{definition.__module__}:{definition.__qualname__}",
        job.model_dump(mode="json"),
        function,
        on_progress=report,
        time_limit_s=definition.time_limit_s,
        grace_s=definition.grace_s,
        memory_mb=definition.memory_mb or get_settings().sandbox_memory_mb,
    )
    run.disarm()  # the sandbox keeps the limits, counted from when it has the call
    run.attach(call.stop)
    return call.run()
