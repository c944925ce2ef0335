"""What a worker process opens when it boots, watches while it runs, and gives back when it stops.

SIGTERM: claim nothing more, hand back what has not begun, let running jobs finish within the grace period, hand back
what is left uncounted, exit 0. A second SIGTERM: the same, now. Both may come to the process or to its group.
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
from app.core.settings import get_settings
from app.jobs.admission import push
from app.jobs.definition import caps
from app.jobs.ledger import limit_commands, worker_host, workers
from app.jobs.queues import QUEUES
from app.jobs.sandbox import process_pool
from app.jobs.sandbox.child import prctl
from app.jobs.sandbox.job_log import JobLog
from app.jobs.worker.middleware.cancellation import cancel_run
from app.jobs.worker.process import EXIT_SOFTWARE, WorkerProcess
from app.sources.fetching import connections

EXIT_CONFIG = 2
WAIT_S = 1.0
TICK_S = 0.5
# One Ctrl-C reaches a worker twice: from its master and from the terminal.
SAME_SIGNAL_S = 0.25
# What does not stop when it is told to is left behind after this.
STUBBORN_S = 3.0
# What a stop may take beyond the grace period, however slowly SQL or Redis answer; then the relay does the rest.
LONGEST_STOP_S = 10.0
_PR_SET_PDEATHSIG = 1

# Somebody asked this process to end while it was importing.
_asked = threading.Event()

log = logging.get_logger(__name__)


class Lifespan(Middleware):
    """First in the broker's list, so that all others find the process running."""

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        # Not getppid(): a master that died while this process was still importing would never be missed.
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
            signal.signal(signal.SIGTERM, _end_at_once)
            if _has_heard(self._forward):
                sys.exit(0)
            threading.Thread(target=self._mind_master, name="master", daemon=True).start()

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        settings = get_settings()
        if settings.role not in ("", "worker"):
            _fail(f"MILLRACE_ROLE={settings.role}: this process may not run jobs (start it with `millrace worker`)")
        process = self.process = broker.process
        process.on_end_soon = self._end_soon
        self._take_signals()
        if _asked.is_set():
            sys.exit(0)
        try:
            self._ready()  # what no waiting would mend is said before anything is started
            wanted = worker.consumer_whitelist or set(QUEUES)
            queues = [queue for queue in QUEUES if queue in wanted]
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
        # Dramatiq's master hears no signal before its workers have booted, so what may take long comes after.
        begin = threading.Thread(target=self._begin_work, name="begin", daemon=True)
        begin.start()
        threading.Thread(target=self._watch, args=(worker, begin), name="watchdog", daemon=True).start()

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """However it came to it: threads that end from now on have not died."""
        if self.process is not None:
            self.process.stop_fetching()

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Dramatiq's threads have ended: the last ends go on record, then the process may."""
        self._leave()

    def _take_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)
        # A killed master must not leave a live worker behind (its child would go on with ppid 1).
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def _mind_master(self) -> None:
        """End with the master, also where the kernel does not tell, and at once while nothing has been claimed.

        A process that boots on would wait for ever in Dramatiq's event, which its dead master is to acknowledge.
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
            threading.Thread(target=self._give_up, name="give-up", daemon=True).start()
            threading.Thread(target=self._drain, name="drain", daemon=True).start()
            if callable(self._forward):
                with suppress(SystemExit):  # it heard one before we did, and would end without a word to the ledger
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
            self._health.stop()  # whoever is started in our dead master's place wants the port
        self._quietly(lambda: database().transaction(workers.set_state, process.id, "draining"))
        self._quietly(process.fetcher.give_back)
        push.wake_relay()
        if not process.runs.wait_below(1, get_settings().grace_s):
            self._stop_now()
        # Dramatiq's own way out comes by `_leave`, too, unless its main thread waits for a dead master.
        self._booted.wait()
        threading.Event().wait(STUBBORN_S)
        self._leave()

    def _give_up(self) -> None:
        threading.Event().wait(get_settings().grace_s + LONGEST_STOP_S)
        log.critical("stop_took_too_long", exit_code=EXIT_SOFTWARE)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(EXIT_SOFTWARE)

    def _stop_now(self) -> None:
        process = self.process
        assert process is not None
        process.stop_fetching()
        process.interrupt_all()
        if not process.runs.wait_below(1, STUBBORN_S):
            log.warning("jobs_would_not_stop", jobs=[run.claim.id for run in process.runs.all()])
            process.abandon()
            self._leave()

    def _leave(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        process = self.process
        if process is None:
            return
        process.runs.wait_below(1, get_settings().grace_s + STUBBORN_S)  # those on the loop; _drain presses them
        process.finisher.drain(STUBBORN_S)
        process.progress_publisher.stop()
        process.finisher.stop()
        self._job_log.stop()
        self._left.set()
        process.nudged.set()
        self._quietly(process.fetcher.give_back)
        self._quietly(lambda: database().transaction(workers.set_state, process.id, "stopped"))
        push.wake_relay()
        process_pool.stop_pool()
        if self._health is not None:
            self._health.stop()
        log.info("worker_stopped")
        # Nothing that lingers, a thread of a library or of a job's own, may keep a stopped worker alive.
        close_database()
        sys.stderr.flush()
        os._exit(self._exit_code)

    def _quietly(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except (Unavailable, ConfigError) as error:
            log.info("left_to_the_relay", reason=error.message)

    def _ready(self) -> str | None:
        """What this worker still waits for; None when SQL answers and has our schema. Raises ConfigError."""
        try:
            redis.ping()
        except Unavailable as error:
            log.warning("worker_waits", reason=error.message)  # the intake waits for it by itself
        try:
            database().ping()  # in our words: what refuses us, and what merely does not answer
            current = schema.current(database())
        except Unavailable as error:
            return error.message
        if current is None or current < schema.head():
            return f"the schema is at {current or 'nothing'}, not {schema.head()}; run `millrace migrate`"
        return None

    def _begin_work(self) -> None:
        """Register as soon as SQL can be used, and claim from then on."""
        process = self.process
        assert process is not None
        told = None
        try:
            while not self._signalled:
                reason = self._ready()
                if reason is None:
                    self._register()
                    process.fetcher.begin()
                    log.info("worker_started", worker_id=process.id, queues=process.fetcher.queues)
                    return self._beat()
                if reason != told:
                    log.warning("worker_waits", reason=reason)
                    told = reason
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
                for gone in database().read(workers.list_alive):
                    if worker_host.has_exited(gone.host, gone.pid, gone.pid_birth):
                        database().transaction(workers.mark_dead, gone.id, f"process {gone.pid} ended")
                place = (process.id, process.fetcher.queues, process.threads, url)
                database().transaction(workers.register, *place, paused=process.fetcher.is_paused)
                database().transaction(limit_commands.declare, caps())
                return
            except Unavailable as error:
                log.warning("worker_waits", reason=error.message)
                self._left.wait(WAIT_S)

    def _beat(self) -> None:
        process = self.process
        assert process is not None
        # Also while it drains: a drain may last longer than the patience with a silent worker.
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
                wait_s = TICK_S if state == "draining" else get_settings().beat_s
                if state == "draining" and not self._signalled and not len(process.runs):
                    log.info("worker_drained", worker_id=process.id)
                    self._end_soon(0)
            except (Unavailable, ConfigError, SQLAlchemyError) as error:
                log.warning("beat_missed", reason=str(error))

    def _watch(self, worker: Any, begin: threading.Thread) -> None:
        """End a process whose loop stands still or whose threads have died; its jobs are then run elsewhere."""
        process = self.process
        assert process is not None
        tick, settings = threading.Event(), get_settings()
        woken = clock.monotonic()
        while not tick.wait(TICK_S):
            late, woken = clock.monotonic() - woken > 10 * TICK_S, clock.monotonic()
            if late:  # the whole process was stopped, not the loop alone
                continue
            if process.loop.stalled_s > settings.loop_stall_s:
                log.critical("loop_stalled", seconds=round(process.loop.stalled_s, 1), stack=process.loop.stack())
                os._exit(EXIT_SOFTWARE)
            threads = [begin, *worker.consumers.values(), *worker.workers]
            if process.stopping.is_set():
                continue
            if not process.is_serving or not all(thread.is_alive() for thread in threads):
                log.critical("thread_died", threads=[t.name for t in threads if not t.is_alive()])
                os._exit(EXIT_SOFTWARE)


def _has_heard(handler: Any) -> bool:
    """Whether Dramatiq's own handler was called before ours stood; it would boot to the end, and only then stop."""
    return inspect.isfunction(handler) and inspect.getclosurevars(handler).nonlocals.get("running") is False


def _end_at_once(number: int, frame: Any) -> NoReturn:
    """While modules are still imported nothing has been claimed.

    Raised just anywhere, the exit may be lost on code that catches everything, or that nobody can raise from; so it is
    also written down, and looked at once more before the worker boots.
    """
    _asked.set()
    # A second one would cut off the word to the master, which would wait for it, deaf, for half a minute.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _fail(sentence: str) -> NoReturn:
    sys.stderr.write(f"millrace worker: {sentence}\n")
    sys.exit(EXIT_CONFIG)
