"""Kinds of job that tests run in real workers; brought in by MILLRACE_MODULES."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from actors.runtime import job_actor
from app.core.db import in_transaction
from app.core.errors import InvalidInput, Unavailable
from app.core.logging import get_logger
from app.jobs.definition import Debounce, Job, Rate
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress

log = get_logger(__name__)


class Noop(Job, kind="tests.noop"):
    number: int = 0


@job_actor(Noop)
async def noop(job: Noop, progress: Progress) -> None:
    return None


class Touch(Job, kind="tests.touch"):
    """Writes the time at which it started, for latency."""

    path: str


@job_actor(Touch)
async def touch(job: Touch, progress: Progress) -> None:
    Path(job.path).write_text(repr(time.time()))


class Sleep(Job, kind="tests.sleep", time_limit_s=120):
    """Awaits in small steps and reports each."""

    seconds: float
    steps: int = 10


@job_actor(Sleep)
async def sleep(job: Sleep, progress: Progress) -> dict[str, Any]:
    for step in range(job.steps):
        progress.report(step, job.steps, unit="steps")
        await asyncio.sleep(job.seconds / job.steps)
    progress.report(job.steps, job.steps)
    return {"slept_s": job.seconds}


class Fail(Job, kind="tests.fail", retry_delays=(0.1, 0.1, 0.1)):
    error: str


@job_actor(Fail)
async def fail(job: Fail, progress: Progress) -> None:
    errors: dict[str, BaseException] = {
        "permanent": InvalidInput("never"),
        "unavailable": Unavailable("not now"),
        "bug": ZeroDivisionError("oops"),
        "exit": SystemExit(3),
        "itself": asyncio.CancelledError(),
    }
    raise errors[job.error]


class Paced(Job, kind="tests.paced", start_rate=Rate(1, per_s=3600)):
    """One an hour."""


@job_actor(Paced)
async def paced(job: Paced, progress: Progress) -> None:
    return None


class PacedCompute(Job, kind="tests.paced_compute", start_rate=Rate(1, 3600), start_rate_key=lambda job: job.key):
    """One an hour for each key, in a sandbox."""

    key: str


@job_actor(PacedCompute)
def paced_compute(job: PacedCompute, progress: Progress) -> None:
    return None


class FailOnce(Job, kind="tests.fail_once", retry_delays=(0.1, 0.1, 0.1)):
    """Fails until its file exists, and makes it."""

    path: str


@job_actor(FailOnce)
async def fail_once(job: FailOnce, progress: Progress) -> None:
    path = Path(job.path)
    if not path.exists():
        path.write_text("tried")
        raise Unavailable("the first time")


class Kill(Job, kind="tests.kill"):
    """Kills its worker process at once, `times` times."""

    path: str
    times: int = 1_000


@job_actor(Kill)
async def kill(job: Kill, progress: Progress) -> None:
    path = Path(job.path)
    done = len(path.read_text()) if path.exists() else 0
    if done < job.times:
        path.write_text("x" * (done + 1))
        os.kill(os.getpid(), signal.SIGKILL)


class Stubborn(Job, kind="tests.stubborn", time_limit_s=0.5, grace_s=0.5, retry_delays=(0.1, 0.1, 0.1)):
    """Swallows every cancellation."""


@job_actor(Stubborn)
async def stubborn(job: Stubborn, progress: Progress) -> None:
    while True:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            continue


class Slow(Job, kind="tests.slow", time_limit_s=0.5, grace_s=5, retry_delays=(0.1, 0.1, 0.1)):
    """Sleeps far beyond its limit, but listens."""


@job_actor(Slow)
async def slow(job: Slow, progress: Progress) -> None:
    await asyncio.sleep(60)


class Block(Job, kind="tests.block"):
    """Stalls the whole loop."""

    seconds: float


@job_actor(Block)
async def block(job: Block, progress: Progress) -> None:
    time.sleep(job.seconds)


class BlockOnce(Job, kind="tests.block_once", max_tries=1):
    """Stalls the whole loop at its only try."""

    seconds: float


@job_actor(BlockOnce)
async def block_once(job: BlockOnce, progress: Progress) -> None:
    time.sleep(job.seconds)


class BlockInChildTask(Job, kind="tests.block_in_child_task", max_tries=1):
    """Stalls the whole loop from a task that it has started."""

    seconds: float


@job_actor(BlockInChildTask)
async def block_in_child_task(job: BlockInChildTask, progress: Progress) -> None:
    async def wait() -> None:
        time.sleep(job.seconds)

    await asyncio.gather(asyncio.sleep(0), wait())


class CallInThread(Job, kind="tests.call_in_thread"):
    """Waits in a thread of the loop's executor."""

    seconds: float


@job_actor(CallInThread)
async def call_in_thread(job: CallInThread, progress: Progress) -> None:
    await asyncio.to_thread(time.sleep, job.seconds)


class Alarm(Job, kind="tests.alarm"):
    """Leaves a clock that ends its process later."""


@job_actor(Alarm)
def alarm(job: Alarm, progress: Progress) -> dict[str, Any]:
    signal.alarm(1)
    return {"pid": os.getpid()}


class Talk(Job, kind="tests.talk", retry_delays=(0.1,)):
    """Logs in each of the ways there are."""

    secret: str = ""


@job_actor(Talk)
async def talk(job: Talk, progress: Progress) -> None:
    log.info("hello", number=7, api_key=job.secret)
    logging.getLogger("tests.plain").warning("plain %s", "words")
    await asyncio.to_thread(log.warning, "from a thread")
    try:
        raise ValueError("this")
    except ValueError:
        log.exception("caught")


class TalkInSandbox(Job, kind="tests.talk_in_sandbox"):
    """The same from a child process."""

    lines: int = 1


@job_actor(TalkInSandbox)
def talk_in_sandbox(job: TalkInSandbox, progress: Progress) -> None:
    for number in range(job.lines):
        log.info("in a sandbox", number=number)


class Compute(Job, kind="tests.compute", retry_delays=(0.1, 0.1, 0.1)):
    """A plain function: runs in a sandbox."""

    seconds: float = 0.0
    crash: bool = False
    memory_mb_used: int = 0


@job_actor(Compute)
def compute(job: Compute, progress: Progress) -> dict[str, Any]:
    if job.crash:
        ctypes.string_at(0)
    if job.memory_mb_used:
        bytearray(job.memory_mb_used * 1024 * 1024)
    end = time.monotonic() + job.seconds
    step = 0
    while time.monotonic() < end:
        step += 1
        progress.report(step, None, unit="rounds")
        time.sleep(0.05)
    return {"pid": os.getpid()}


class Staged(Job, kind="tests.staged", stages={"first": 1, "second": 3}):
    pass


@job_actor(Staged)
async def staged(job: Staged, progress: Progress) -> None:
    for stage in ("first", "second"):
        for done in range(5):
            progress.report(done + 1, 5, stage=stage, unit="parts")
            await asyncio.sleep(0.06)


class Held(Job, kind="tests.held", time_limit_s=120):
    """Writes its fence into a file, in transactions that hold it."""

    path: str
    seconds: float


@job_actor(Held)
async def held(job: Held, progress: Progress) -> None:
    end = time.monotonic() + min(job.seconds, 3.0) if progress.claim.fence > 1 else time.monotonic() + job.seconds
    while time.monotonic() < end:
        await in_transaction(_write_fence, progress.claim, job.path)
        await asyncio.sleep(0.05)


def _write_fence(session: Session, claim: Claim, path: str) -> None:
    claims.hold(session, claim)
    with Path(path).open("a") as lines:
        lines.write(f"{claim.fence} ")


class Noted(
    Job, kind="tests.noted", open_to="write", unique_key=lambda job: job.path, unique=Debounce(0.3, max_wait_s=1.5)
):
    """Debounced: writes the number of its payload when it begins and when it ends."""

    path: str
    number: int


@job_actor(Noted)
async def noted(job: Noted, progress: Progress) -> None:
    for word in ("begin", "end"):
        with Path(job.path).open("a") as lines:
            lines.write(f"{word} {job.number}\n")
        await asyncio.sleep(0.2)


class Single(Job, kind="tests.single", open_to="write", unique_key=lambda job: job.path):
    """Unique while it is open: waits for the file of its path and `.go`, then adds a line to its own."""

    path: str


@job_actor(Single)
async def single(job: Single, progress: Progress) -> None:
    while not Path(f"{job.path}.go").exists():
        await asyncio.sleep(0.05)
    with Path(job.path).open("a") as lines:
        lines.write("ran\n")
