"""Windows of the queues in Redis: filled from SQL, resized, compared with Redis, and refilled after a flush."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from app.core import clock, logging, metrics, redis
from app.core.db import database
from app.jobs.admission import admit, push
from app.jobs.admission.push import DEFAULT_WINDOW
from app.jobs.ledger import admissions, workers
from app.jobs.lua import LUA
from app.jobs.queues import QUEUES
from app.jobs.relay import fairness

MAX_WINDOW = 5000
# A push that no worker claimed within this time is compared with the lists in Redis.
MAX_UNCLAIMED = timedelta(seconds=5)
BATCH = 1000

log = logging.get_logger(__name__)


@dataclass(slots=True)
class QueueWindow:
    """The number of ids a queue may hold in Redis: about as many as its workers take in half a second."""

    size: int = DEFAULT_WINDOW
    fed_at: float = 0.0

    def adapt(self, length: int, minimum: int, now: float) -> None:
        """Grow while it is emptied within half a second, shrink while it stays full for two."""
        if length <= self.size // 4 and now - self.fed_at < 0.5:
            self.size *= 2
        elif length > self.size // 2 and now - self.fed_at > 2:
            self.size //= 2
        self.size = max(minimum, min(self.size, MAX_WINDOW))


@dataclass
class Windows:
    """The windows of all queues, as one relay sees them. `slots` is the number of threads that serve each queue."""

    slots: dict[str, int] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    _windows: dict[str, QueueWindow] = field(default_factory=lambda: {queue: QueueWindow() for queue in QUEUES})
    _positions: dict[str, fairness.Position] = field(
        default_factory=lambda: {queue: fairness.Position() for queue in QUEUES}
    )
    _backlog: set[str] = field(default_factory=set)
    _run_id: str = ""

    def feed(self) -> None:
        """Admit waiting jobs to every window with room, and push them."""
        self.waiting = database().read(admit.waiting_queues, list(QUEUES))
        if self._backlog != set(self.waiting):
            self._backlog = set(self.waiting)
            self.publish_sizes()
        for queue in database().read(fairness.contended):
            push.push(database().read(fairness.promotable, queue), place="move")
        if not self.waiting:
            return
        lengths = redis.push().call(self._lengths)
        for queue in list(self.waiting):
            self._feed_queue(queue, *lengths[queue])

    def _feed_queue(self, queue: str, length: int, early: int) -> None:
        window, now, minimum = self._windows[queue], clock.monotonic(), self._min_size(queue)
        window.adapt(length, minimum, now)
        room = window.size - length if length <= window.size // 2 else 0
        position = self._positions[queue]
        refs = database().transaction(fairness.admit, queue, room, position, promoted_room=max(0, minimum - early))
        position.advance()
        if refs:
            window.fed_at = now if room else window.fed_at
            push.push([ref for ref in refs if ref.promoted], place="early")
            push.push([ref for ref in refs if not ref.promoted])
            metrics.ADMITTED.labels(queue).inc(len(refs))
        elif room:
            self.waiting.remove(queue)  # paused or at its limit: a change of the limit wakes a relay

    def _min_size(self, queue: str) -> int:
        """Return the smallest window: twice the threads of its workers, so that a share of it is soon served."""
        return min(2 * self.slots.get(queue, 0) or DEFAULT_WINDOW, MAX_WINDOW)

    def _lengths(self, client: Any) -> dict[str, tuple[int, int]]:
        """Return for each queue the number of ids in its window, and the number of promoted ones among them."""
        with client.pipeline(transaction=False) as pipeline:
            for queue in QUEUES:
                pipeline.llen(f"{redis.NAMESPACE}:{queue}").llen(f"{redis.NAMESPACE}:{queue}.early")
            lengths = pipeline.execute()
        return {queue: (sum(lengths[2 * n : 2 * n + 2]), lengths[2 * n + 1]) for n, queue in enumerate(QUEUES)}

    def publish_sizes(self) -> None:
        """Publish the room of each queue for processes that enqueue: next to none while other jobs wait already."""
        sizes = {queue: 1 if queue in self._backlog else size for queue, size in self.sizes().items()}

        def write(client: Any) -> None:
            with client.pipeline(transaction=False) as pipeline:
                pipeline.hset(redis.WINDOW, mapping=sizes).expire(redis.WINDOW, 60).execute()

        redis.push().call(write)

    def sizes(self) -> dict[str, int]:
        return {queue: window.size for queue, window in self._windows.items()}

    def read_run_id(self) -> None:
        """Read the run id of Redis. A restarted Redis has another one, even if its data came back."""
        self._run_id = str(redis.push().call(lambda client: client.info("server"))["run_id"])

    def check_flush(self) -> None:
        """Refill the windows if Redis was restarted or flushed."""
        if not self._run_id:
            self.read_run_id()
        if redis.push().call(lambda client: client.getex(redis.EPOCH, ex=86400)) == self._run_id:
            return
        # Two relays with an old and a new run id would empty the windows in turns.
        self.read_run_id()
        if redis.push().script(LUA / "epoch.lua", [redis.EPOCH, self._run_id]):
            withdrawn = database().transaction(admissions.withdraw)
            log.info("redis_is_new", readmitting=withdrawn)

    def push_lost(self) -> None:
        """Push admitted jobs again that are neither in a list of Redis nor with a live worker."""
        living: list[str] = []
        lost = []
        for queue in QUEUES:  # one by one: a queue without workers must not hide the losses of others
            refs = database().read(admit.unclaimed, queue, MAX_UNCLAIMED, BATCH)
            if not refs:
                continue
            living = living or [worker.id for worker in database().read(workers.list_alive)]
            by_redis_id = {push.redis_id(ref.id, ref.fence): ref for ref in refs}
            args = [redis.NAMESPACE, queue, len(living), *living, *by_redis_id]
            lost += [by_redis_id[redis_id] for redis_id in redis.push().script(LUA / "missing.lua", args)]
        if lost:
            log.info("pushed_again", jobs=len(lost))
            metrics.REPUSHED.inc(len(lost))
            push.push(lost, place="head")
