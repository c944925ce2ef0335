"""Cancels and orders reach a worker at once by Redis, or by the ledger while Redis is away."""

from __future__ import annotations

import threading
from typing import Any

from dramatiq import Middleware
from dramatiq.middleware import SkipMessage
from redis.exceptions import RedisError

from app.core import redis
from app.core.errors import Cancelled
from app.core.logging import get_logger
from app.jobs.worker.process import WorkerProcess
from app.jobs.worker.run import Run

RECONNECT_S = 1.0
LISTEN_TIMEOUT_S = 5.0

log = get_logger(__name__)


class Cancellation(Middleware):
    """Skips runs that were stopped before they began, and stops running ones on a message."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    def before_process_message(self, broker: Any, message: Any) -> None:
        run: Run = message.options["run"]
        if run.reason is not None:
            raise SkipMessage("stopped before it began")

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        threading.Thread(target=self._listen, name="cancels", daemon=True).start()

    def _listen(self) -> None:
        pause = threading.Event()
        while True:  # to the end of the process: a draining worker still runs jobs
            try:
                with redis.subscription() as subscription:
                    subscription.subscribe(redis.CANCEL_CHANNEL, redis.ORDERS_CHANNEL)
                    while True:
                        message = subscription.get_message(timeout=LISTEN_TIMEOUT_S)
                        if message is None or message["type"] != "message":
                            continue
                        if message["channel"] == redis.ORDERS_CHANNEL:
                            self._process.nudge(str(message["data"]))
                        else:
                            cancel_run(self._process, str(message["data"]))
            except RedisError as error:
                log.info("cancels_not_heard", reason=str(error))
                pause.wait(RECONNECT_S)


def cancel_run(process: WorkerProcess, job_id: str) -> None:
    """Stop the run of this job if this process holds it."""
    run = process.runs.get(job_id)
    if run is not None:
        run.interrupt(Cancelled(f"job {job_id} was asked to stop"))
