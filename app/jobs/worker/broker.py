"""Dramatiq's Redis broker as the transport: it hands out runs that the fetcher has claimed, and acks no message."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import dramatiq
from dramatiq import Middleware
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import MiddlewareError

from app.core import redis
from app.core.errors import AppError
from app.jobs.queues import QUEUES
from app.jobs.worker.async_runner import AWAITS, AsyncRunner
from app.jobs.worker.middleware.cancellation import Cancellation
from app.jobs.worker.middleware.finish import Finish
from app.jobs.worker.middleware.log_context import LogContext
from app.jobs.worker.middleware.metrics import Metrics
from app.jobs.worker.middleware.report_progress import TrackProgress
from app.jobs.worker.middleware.retries import Retries
from app.jobs.worker.middleware.time_limits import TimeLimits
from app.jobs.worker.outcome import judge
from app.jobs.worker.process import WorkerProcess
from app.jobs.worker.run import Run

Hook = Callable[..., None]


class LedgerBroker(RedisBroker):
    """Uses stock Dramatiq's keys; no job is enqueued through it, since a job begins as a row."""

    def __init__(self, middleware: Iterable[Middleware] = ()) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            client=redis.push().client, middleware=[], namespace=redis.NAMESPACE
        )
        self.process = process = WorkerProcess(self.actors)
        self.async_runner = AsyncRunner(self, process.loop)
        self.fetch_lock = threading.Lock()
        self._hooks: dict[str, list[Hook]] = {}
        # Before-hooks run in this order, after-hooks in reverse: limits are disarmed first, then the verdict is made,
        # then its users run; the finisher has it before it is logged and counted.
        order = [
            *middleware,
            Metrics(process),
            LogContext(),
            Finish(process),
            TrackProgress(process),
            Cancellation(process),
            Retries(),
            TimeLimits(process),
        ]
        for item in order:
            self.add_middleware(item)
        for queue in QUEUES:
            self.declare_queue(queue)

    def declare_queue(self, queue_name: str) -> None:
        """Declare the queue without Dramatiq's delay queue: jobs that are due later wait in SQL."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Like Dramatiq's, but calls only hooks that a middleware overrides."""
        for hook in self._hooks_of(f"before_{signal}"):
            try:
                hook(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical("Unexpected failure in %s of %r.", signal, hook, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        for hook in reversed(self._hooks_of(f"after_{signal}")):
            try:
                hook(self, *args, **kwargs)
            except Exception:
                self.logger.critical("Unexpected failure in %s of %r.", signal, hook, exc_info=True)
        if signal in ("process_message", "skip_message"):
            self._end_for_certain(args[0])

    def _end_for_certain(self, message: Any) -> None:
        """End a run whose hooks failed before they did: no attempt stays open in the ledger."""
        run: Run = message.options["run"]
        if not run.ended:
            error = AppError("the worker could not handle the end of this attempt; see its log", code="end_refused")
            self.process.end(run, judge(run.claim, error))

    def _hooks_of(self, name: str) -> list[Hook]:
        if name not in self._hooks:
            overriding = [
                item for item in self.middleware if getattr(type(item), name) is not getattr(Middleware, name)
            ]
            self._hooks[name] = [getattr(item, name) for item in overriding]
        return self._hooks[name]

    def add_middleware(self, middleware: Middleware, **place: Any) -> None:
        super().add_middleware(middleware, **place)
        self.__dict__.get("_hooks", {}).clear()

    def sort(self, runs: Iterable[Run]) -> list[MessageProxy]:
        """Return messages for Dramatiq's threads, and send those of `async def` actors to the loop."""
        computing, awaiting = [], []
        for run in runs:
            message = _message(run)
            if AWAITS in self.actors[message.actor_name].options:
                awaiting.append(message)
            else:
                computing.append(MessageProxy(message))
        if awaiting:
            self.async_runner.submit(awaiting)
        return computing

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        raise TypeError("a job is enqueued with app.jobs.ledger.enqueue, in the transaction that asks for it")

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        return RunConsumer(self, timeout / 1000)


class RunConsumer(Consumer):
    """The consumer of every queue: the thread that holds the lock fetches for all queues, in their order."""

    def __init__(self, broker: LedgerBroker, timeout_s: float) -> None:
        self._broker = broker
        self._timeout_s = timeout_s
        self._ready: deque[MessageProxy] = deque()

    def __next__(self) -> MessageProxy | None:
        if self._ready:
            return self._ready.popleft()
        if not self._broker.fetch_lock.acquire(timeout=self._timeout_s):
            return None
        try:
            self._ready.extend(self._broker.sort(self._broker.process.fetcher.fetch()))
        finally:
            self._broker.fetch_lock.release()
        return self._ready.popleft() if self._ready else None

    def ack(self, message: Any) -> None:
        """The finisher acks, after the end is written."""

    def nack(self, message: Any) -> None:
        """Like ack: a failed run has its end, too."""

    def requeue(self, messages: Iterable[Any]) -> None:
        """The process hands back runs that have not begun when it stops."""


def _message(run: Run) -> dramatiq.Message[Any]:
    claim = run.claim
    return dramatiq.Message(
        queue_name=run.queue,
        actor_name=claim.kind,
        args=(claim.id,),
        kwargs={},
        options={"redis_message_id": run.redis_id, "run": run},
        message_id=claim.id,
        message_timestamp=0,
    )


def install(middleware: Iterable[Middleware] = ()) -> LedgerBroker:
    """Make the process's broker and register it with Dramatiq; a second call returns the same one."""
    global _installed
    if _installed is None:
        _installed = LedgerBroker(middleware)
        dramatiq.set_broker(_installed)
    return _installed


_installed: LedgerBroker | None = None
