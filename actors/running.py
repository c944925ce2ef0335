"""Actors of a worker: an `async def` function runs on the event loop, a plain one in a sandbox."""

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

# A payload of a newer version is offered again after this time.
NEWER_PAYLOAD_DELAY_S = 15.0


def add_actor(broker: LedgerBroker, declared: DeclaredFunction) -> None:
    """Make the function the actor of its kind; middleware surrounds every run."""
    definition, function = declared
    process, options = broker.process, {}

    def receive(job_id: str) -> None:
        run = process.runs.get(job_id)
        if run is not None:  # else it was handed back a moment ago
            run.result = check_result(_run_in_sandbox(process, run, definition, function))

    async def awaits(run: Run) -> None:
        run.result = check_result(await _run_on_loop(process, run, definition, function))

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


async def _run_on_loop(process: WorkerProcess, run: Run, definition: type[Job], function: Callable[..., Any]) -> Any:
    job = _load_job(definition, run)
    task = run.task
    assert task is not None

    def stop(_: AppError) -> None:
        process.loop.loop.call_soon_threadsafe(task.cancel)

    run.attach(stop)
    try:
        if run.claim.must_mark_start:
            await asyncio.to_thread(process.mark_start_now, run)
        start_rate = call_rates.start_rate_of(job)
        if start_rate is not None:
            await call_rates.take(*start_rate)
        return await function(job, run.progress)
    except asyncio.CancelledError as error:
        if run.reason is None:
            raise RuntimeError("the job cancelled itself") from error
        raise run.reason from None
    finally:
        run.attach(_do_nothing)


def _load_job(definition: type[Job], run: Run) -> Job:
    """Return the payload as a job. Raises Snooze for a payload of a newer version, which a newer worker must run."""
    if run.claim.payload_version > definition.payload_version:
        message = (
            f"payload version {run.claim.payload_version} is newer than this worker's {definition.payload_version}"
        )
        raise Snooze(NEWER_PAYLOAD_DELAY_S, f"{definition.kind}: {message}", code="payload_version")
    return definition.load(run.claim.payload, run.claim.payload_version)


def _do_nothing(_: AppError) -> None:
    """Replace the stop function of a run whose code has ended."""


def _run_in_sandbox(process: WorkerProcess, run: Run, definition: type[Job], function: Callable[..., Any]) -> Any:
    job = _load_job(definition, run)
    progress = run.progress
    assert progress is not None
    if run.claim.must_mark_start:
        process.mark_start_now(run)
    start_rate = call_rates.start_rate_of(job)
    if start_rate is not None:
        threading.Event().wait(call_rates.reserve(*start_rate, call_rates.MAX_THREAD_WAIT_S))

    def report(fields: dict[str, Any]) -> None:
        progress.report(**fields)

    call = SandboxCall.of_job(
        f"{definition.__module__}:{definition.__qualname__}",
        run.claim.payload,
        function,
        version=run.claim.payload_version,
        on_progress=report,
        time_limit_s=definition.time_limit_s,
        grace_s=definition.grace_s,
        memory_mb=definition.memory_mb or get_settings().sandbox_memory_mb,
    )
    run.disarm()  # the sandbox enforces the limits, counted from the start of the call
    run.attach(call.stop)
    return call.run()
