"""Lifespan of a worker process: boot, heartbeat, watchdog, drain and stop.

SIGTERM: claim no more jobs, hand back those that have not begun, let running jobs finish within the grace period, hand
back the others without counting a try, exit 0. A second SIGTERM ends the grace period. Both may be sent to the process
or to its group.
"""

from __future__ import annotations

import faulthandler
import inspect
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from dramatiq import Middleware
from sqlalchemy.exc import SQLAlchemyError

from app.core import clock, logging, redis, schema
from app.core.db import close_database, database
from app.core.errors import ConfigError, Unavailable
from app.core.health import HealthServer
from app.core.process import EXIT_SOFTWARE, die_with_parent, leave, leave_when_overdue
from app.core.settings import get_settings
from app.core.telemetry import setup as telemetry
from app.documents.files import shared_store
from app.jobs.admission import push
from app.jobs.definition import caps
from app.jobs.ledger import limit_commands, worker_host, workers
from app.jobs.queues import QUEUES
from app.jobs.sandbox import process_pool
from app.jobs.sandbox.job_log import JobLog
from app.jobs.worker.middleware.cancellation import cancel_run
from app.jobs.worker.process import WorkerProcess
from app.search.index import reanalysis
from app.sources.fetching import connections

EXIT_CONFIG = 2
WAIT_S = 1.0
TICK_S = 0.5
# One Ctrl-C reaches a worker twice: from its master and from the terminal.
SAME_SIGNAL_S = 0.25
# Jobs that do not stop within this time are abandoned.
MAX_INTERRUPT_S = 3.0
# A stop takes at most this long beyond the grace period, even if SQL or Redis are slow; the relay does the rest.
MAX_STOP_S = 10.0

# Set if SIGTERM came while this process was importing.
_stop_requested = threading.Event()

log = logging.get_logger(__name__)


class Lifespan(Middleware):
    """First in the list of middleware, so that the process runs before the others start."""

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        # Not getppid(): it would miss the death of a master during the imports.
        master = multiprocessing.parent_process()
        self._parent = os.getppid() if master is None else master.pid
        self._signalled: list[float] = []
        self._exit_code = 0
        self._begun = threading.Lock()
        self._booted = threading.Event()
        self._left = threading.Event()
        self._health: HealthServer | None = None
        self._job_log = JobLog()
        self._forward = signal.getsignal(signal.SIGTERM)
        if master is not None:
            signal.signal(signal.SIGTERM, _exit_at_once)
            if _has_received_signal(self._forward):
                sys.exit(0)
            threading.Thread(target=self._watch_master, name="master", daemon=True).start()

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        settings = get_settings()
        if settings.role not in ("", "worker"):
            _fail(f"MILLRACE_ROLE={settings.role}: this process may not run jobs (start it with `millrace worker`)")
        process = self.process = broker.process
        process.on_end_soon = self._end_soon
        self._take_signals()
        if _stop_requested.is_set():
            sys.exit(0)
        try:
            self._waits_for()  # permanent errors are reported before any thread starts
            requested = worker.consumer_whitelist or set(QUEUES)
            queues = [queue for queue in QUEUES if queue in requested]
            if not queues:
                _fail(f"no queue of that name; the queues are {', '.join(QUEUES)}")
            process.fetcher.wait_to_begin()
            process.start(queues, worker.worker_threads)
            broker.async_runner.limit = worker.worker_threads
            process_pool.start_pool()
            process.loop.submit(connections.share())
            self._job_log.start()
            self._health = HealthServer(process.health)
            self._booted.set()
        except ConfigError as error:
            _fail(error.message)
        # Dramatiq's master handles no signal before its workers have booted, so slow steps come afterwards.
        begin = threading.Thread(target=self._begin_work, name="begin", daemon=True)
        begin.start()
        threading.Thread(target=self._watch, args=(worker, begin), name="watchdog", daemon=True).start()

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Mark the stop, whatever its cause: threads that end from now on are not failures."""
        if self.process is not None:
            self.process.stop_fetching()

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Write the last ends after Dramatiq's threads have ended, then exit."""
        self._leave()

    def _take_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)
        # A killed master must not leave a live worker (its child would go on with ppid 1).
        die_with_parent(signal.SIGTERM)

    def _watch_master(self) -> None:
        """Exit with the master, also if the kernel sends no signal, and at once while no job has been claimed.

        A booting process would otherwise wait for ever for its dead master to acknowledge Dramatiq's event.
        """
        tick = threading.Event()
        while os.getppid() == self._parent:
            tick.wait(TICK_S)
        if not self._booted.is_set():
            os._exit(0)
        if not self._signalled:
            os.kill(os.getpid(), signal.SIGTERM)

    def _on_signal(self, number: int, frame: Any) -> None:
        now = clock.monotonic()
        fresh = not self._signalled or now - self._signalled[-1] > SAME_SIGNAL_S
        first = not self._signalled
        self._signalled.append(now)
        if first:
            threading.Thread(target=self._exit_when_overdue, name="give-up", daemon=True).start()
            threading.Thread(target=self._drain, name="drain", daemon=True).start()
            if callable(self._forward):
                with suppress(SystemExit):  # it received a signal first, and would exit without writing to the ledger
                    self._forward(number, frame)
        elif fresh:
            threading.Thread(target=self._stop_now, name="stop-now", daemon=True).start()

    def _end_soon(self, exit_code: int) -> None:
        self._exit_code = exit_code
        os.kill(os.getpid(), signal.SIGTERM)

    def _drain(self) -> None:
        process = self.process
        assert process is not None
        log.info("worker_draining", running=len(process.runs))
        process.stop_fetching()
        if os.getppid() != self._parent and self._health is not None:
            self._health.stop()  # the successor of the dead master needs the port
        self._try(lambda: database().transaction(workers.set_state, process.id, "draining"))
        self._try(process.fetcher.give_back)
        push.wake_relay()
        if not process.runs.wait_below(1, get_settings().grace_s):
            self._stop_now()
        # Dramatiq's own exit also calls `_leave`, unless its main thread waits for a dead master.
        self._booted.wait()
        threading.Event().wait(MAX_INTERRUPT_S)
        self._leave()

    def _exit_when_overdue(self) -> None:
        threading.Event().wait(get_settings().grace_s + MAX_STOP_S)
        log.critical("stop_took_too_long", exit_code=EXIT_SOFTWARE)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(EXIT_SOFTWARE)

    def _stop_now(self) -> None:
        process = self.process
        assert process is not None
        process.stop_fetching()
        process.interrupt_all()
        if not process.runs.wait_below(1, MAX_INTERRUPT_S):
            log.warning("jobs_would_not_stop", jobs=[run.claim.id for run in process.runs.all()])
            process.abandon()
            self._leave()

    def _leave(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        process = self.process
        if process is None:
            return
        process.runs.wait_below(1, get_settings().grace_s + MAX_INTERRUPT_S)  # runs on the loop; _drain stops them
        process.finisher.drain(MAX_INTERRUPT_S)
        process.progress_publisher.stop()
        process.finisher.stop()
        self._job_log.stop()
        self._left.set()
        process.nudged.set()
        self._try(process.fetcher.give_back)
        self._try(lambda: database().transaction(workers.set_state, process.id, "stopped"))
        push.wake_relay()
        process_pool.stop_pool()
        if self._health is not None:
            self._health.stop()
        log.info("worker_stopped")
        # A left-over thread of a library or a job must not keep a stopped worker alive.
        close_database()
        telemetry.stop()
        sys.stderr.flush()
        os._exit(self._exit_code)

    def _leave_stalled(self) -> NoReturn:
        """Write the end of the job that blocks the loop, hand back the others, and exit."""
        process = self.process
        assert process is not None
        leave_when_overdue(MAX_STOP_S)
        blocker = process.loop_watch.blocker
        fields = {"job_id": blocker.run.claim.id, "line": blocker.line, "stack": blocker.stack} if blocker else {}
        log.critical("loop_stalled", seconds=round(process.loop.stalled_s, 1), **fields)
        process.stop_fetching()
        if process.end_blocked():
            process.finisher.drain(MAX_INTERRUPT_S)
            self._try(process.fetcher.give_back)
            self._try(lambda: database().transaction(workers.set_state, process.id, "stopped"))
            push.wake_relay()
        # Without a known cause the relay counts a crash of each job: one of them would else end workers for ever.
        leave(EXIT_SOFTWARE)

    def _try(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except (Unavailable, ConfigError) as error:
            log.info("left_to_the_relay", reason=error.message)

    def _waits_for(self) -> str | None:
        """Return what this worker still waits for; None when SQL answers with our schema. Raises ConfigError."""
        try:
            redis.ping()
        except Unavailable as error:
            log.warning("worker_waits", reason=error.message)  # the fetcher waits for Redis
        try:
            database().ping()  # raises ConfigError if refused, Unavailable without an answer
            return database().read(schema.fault)
        except Unavailable as error:
            return error.message

    def _begin_work(self) -> None:
        """Register as soon as SQL is ready, and fetch from then on."""
        process = self.process
        assert process is not None
        logged = None
        try:
            while not self._signalled:
                reason = self._waits_for()
                if reason is None:
                    shared_store.check_at_start()
                    self._register()
                    process.fetcher.begin()
                    log.info("worker_started", worker_id=process.id, queues=process.fetcher.queues)
                    return self._send_heartbeats()
                if reason != logged:
                    log.warning("worker_waits", reason=reason)
                    logged = reason
                threading.Event().wait(WAIT_S)
        except ConfigError as error:
            sys.stderr.write(f"millrace worker: {error.message}\n")
            os._exit(EXIT_CONFIG)

    def _register(self) -> None:
        process = self.process
        assert process is not None
        url = self._health.url if self._health else None
        while not self._left.is_set():
            try:
                for worker in database().read(workers.list_alive):
                    if worker_host.has_exited(worker.host, worker.pid, worker.pid_birth):
                        database().transaction(workers.mark_dead, worker.id, f"process {worker.pid} ended")
                identity = (process.id, process.fetcher.queues, process.threads, url)
                database().transaction(workers.register, *identity, paused=process.fetcher.is_paused)
                database().transaction(limit_commands.declare, caps())
                database().transaction(reanalysis.request_reanalysis)
                return
            except Unavailable as error:
                log.warning("worker_waits", reason=error.message)
                self._left.wait(WAIT_S)

    def _send_heartbeats(self) -> None:
        process = self.process
        assert process is not None
        # Also while it drains: a drain may last longer than the heartbeat timeout.
        wait_s = get_settings().beat_s
        while not self._left.is_set():
            process.nudged.wait(wait_s)
            process.nudged.clear()
            if self._left.is_set():
                return
            try:
                alive = database().transaction(workers.heartbeat, process.id)
                if not alive and not self._left.is_set():
                    log.error("declared_dead", worker_id=process.id)
                    process.rename()
                    if not process.stopping.is_set():
                        self._register()
                state, cancelled = database().read(workers.read_orders, process.id)
                for job_id in cancelled:
                    cancel_run(process, job_id)
                process.apply_order(state)
                process.held_check.run(process.id)
                wait_s = TICK_S if state == "draining" else get_settings().beat_s
                if state == "draining" and not self._signalled and not len(process.runs):
                    log.info("worker_drained", worker_id=process.id)
                    self._end_soon(0)
            except (Unavailable, ConfigError, SQLAlchemyError) as error:
                log.warning("beat_missed", reason=str(error))

    def _watch(self, worker: Any, begin: threading.Thread) -> None:
        """Exit if the loop stalls or a thread has died; other workers then run the jobs."""
        process = self.process
        assert process is not None
        tick, settings = threading.Event(), get_settings()
        woken = clock.monotonic()
        while not tick.wait(TICK_S):
            late, woken = clock.monotonic() - woken > 10 * TICK_S, clock.monotonic()
            if late:  # the whole process was suspended, not only the loop
                continue
            process.loop_watch.look()
            if process.loop.stalled_s > settings.loop_stall_s:
                self._leave_stalled()
            threads = [begin, *worker.consumers.values(), *worker.workers]
            if process.stopping.is_set():
                continue
            if not process.is_serving or not all(thread.is_alive() for thread in threads):
                log.critical("thread_died", threads=[t.name for t in threads if not t.is_alive()])
                os._exit(EXIT_SOFTWARE)


def _has_received_signal(handler: Any) -> bool:
    """Return True if Dramatiq's handler was called before ours was set; it would stop only after the boot."""
    return inspect.isfunction(handler) and inspect.getclosurevars(handler).nonlocals.get("running") is False


def _exit_at_once(number: int, frame: Any) -> NoReturn:
    """Exit during the imports, when no job has been claimed.

    SystemExit may be swallowed by the code it interrupts, so the request is also stored and checked before the boot.
    """
    _stop_requested.set()
    # A second signal would interrupt the message to the master, which would wait for it for half a minute.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"millrace worker: {message}\n")
    sys.exit(EXIT_CONFIG)
