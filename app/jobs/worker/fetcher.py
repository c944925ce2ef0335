"""Ids from Redis become claims in the ledger: fetched for all queues in their order, claimed in one statement."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from redis.exceptions import RedisError

from app.core import clock, metrics, redis
from app.core.db import database
from app.core.errors import ConfigError, Unavailable
from app.core.ids import is_uuid
from app.core.logging import fault_over, get_logger
from app.jobs.ledger import admissions, limited_claims
from app.jobs.lua import LUA
from app.jobs.worker.finisher import Finisher
from app.jobs.worker.run import Run, Runs

IDLE_S = 1.0
# Time within which a paused worker notices that it may fetch again.
PAUSE_CHECK_S = 0.25
# A job of a kind that this worker does not know is offered again after this long, perhaps to a newer worker.
PARKED_FOR = timedelta(seconds=15)
# Mean duration in seconds → jobs claimed per thread.
PREFETCH_FACTORS = ((0.0005, 64), (0.002, 16), (0.005, 8), (0.02, 2))
# A quarter of a second of the fastest jobs; no other worker can take a job that is held here.
MAX_HELD_RUNS = 512
QUARANTINE_DAYS = 7

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """An id from Redis that this worker has fetched and not yet claimed."""

    queue: str
    redis_id: str
    job_id: str
    kind: str
    alone: bool


class PrefetchFactor:
    """Jobs held per thread and queue: one, or more while the queue's jobs take milliseconds."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}

    def learn(self, queue: str, duration_s: float) -> None:
        mean = self._mean_s.get(queue, duration_s)
        # One slow job resets the mean at once; many fast ones lower it again.
        self._mean_s[queue] = mean + 0.1 * (duration_s - mean) if duration_s < 5 * mean + 0.005 else duration_s

    def of(self, queue: str) -> int:
        mean = self._mean_s.get(queue)
        return 1 if mean is None else next((factor for limit, factor in PREFETCH_FACTORS if mean < limit), 1)


class Fetcher:
    """The fetcher of a process, used by its consumer threads in turn. `queues` are in their order of service."""

    def __init__(
        self,
        worker_id: Callable[[], str],
        known_kinds: Container[str],
        runs: Runs,
        finisher: Finisher,
    ) -> None:
        self.queues: list[str] = []
        self.prefetch = PrefetchFactor()
        self.problem = ""  # why no job can be fetched, for /health
        self._worker_id = worker_id
        self._known = known_kinds
        self._runs = runs
        self._finisher = finisher
        self._threads = 1
        self._ready: list[Run] = []
        self._fetched: list[Fetched] = []
        self._alone: deque[Fetched] = deque()
        self._exclusive = False
        self._lost_answer = True  # the first fetch also recovers ids that this worker may already hold
        self._begun = threading.Event()
        self._begun.set()
        self._stopping = threading.Event()
        self._paused = threading.Event()
        self._blocking = redis.blocking(IDLE_S)

    def set_up(self, queues: list[str], threads: int) -> None:
        self.queues, self._threads = queues, threads

    def wait_to_begin(self) -> None:
        """Fetch no job before `begin()`."""
        self.problem = "waiting for the database"
        self._begun.clear()

    def begin(self) -> None:
        """Fetch from now on: the worker is registered."""
        self.problem = ""
        self._begun.set()

    def fetch(self) -> list[Run]:
        """Return the next runs; an empty list after up to a second without any."""
        if not self._begun.wait(IDLE_S):
            return []
        if self._stopping.is_set() or self._paused.is_set():
            self._give_back_while_paused()
            return []
        if self._finisher.is_full or (self._exclusive and not self._runs.wait_below(1, IDLE_S)):
            self._stopping.wait(0.05)
            return []
        self._exclusive = False
        try:
            self._refill()
            if self.problem:
                fault_over("intake_waits")
                log.info("intake_resumed")
            self.problem = ""
        except (RedisError, Unavailable, ConfigError) as error:
            self.problem = f"waiting: {error}"
            log.warning("intake_waits", reason=str(error))
            self._stopping.wait(0.25)
        ready, self._ready = self._ready, []
        return ready

    def stop(self) -> None:
        """Fetch no more; fetched ids that are not claimed go back to Redis."""
        self._stopping.set()
        self._runs.wake()

    @property
    def is_paused(self) -> bool:
        return self._paused.is_set()

    def pause(self) -> None:
        """Fetch no more until `resume()`; until then the ledger refuses this worker's claims."""
        self._paused.set()
        self._runs.wake()

    def resume(self) -> None:
        self._paused.clear()

    def _give_back_while_paused(self) -> None:
        """Give fetched ids that are not claimed to other workers while this one is paused or stopping."""
        if not self._stopping.is_set() and (self._fetched or self._alone or self._lost_answer):
            self._fetched.clear()
            self._alone.clear()
            try:
                self.give_back()
                self._lost_answer = False
            except (RedisError, Unavailable, ConfigError):
                self._lost_answer = True
        self._stopping.wait(PAUSE_CHECK_S if self._paused.is_set() else IDLE_S)

    def give_back(self) -> None:
        """Put every id that this worker fetched and holds no run for back to the head of its queue."""
        self._recover({run.redis_id for run in self._runs.all()})

    def _refill(self) -> None:
        if self._lost_answer:
            known = {item.redis_id for item in (*self._alone, *self._fetched)}
            self._recover(known | {run.redis_id for run in self._runs.all()})
            self._lost_answer = False
        if self._alone and not self._fetched:
            self._claim_alone()
            return
        if not self._fetched:
            rooms = self._rooms()
            if not rooms:
                self._runs.wait_below(max(1, len(self._runs)), IDLE_S)
                return
            if not self._fetch(rooms):
                self._wait_for_push()
                if self._stopping.is_set() or self._paused.is_set() or not self._fetch(rooms):
                    return
        self._claim()

    def _rooms(self) -> list[tuple[str, int]]:
        """Return the room of each queue; no queue has room while the held runs keep all threads busy for a while."""
        held = len(self._runs)
        rooms = []
        for queue in self.queues:
            limit = max(self._threads, min(self._threads * self.prefetch.of(queue), MAX_HELD_RUNS))
            room = limit - held
            # With all threads busy a bigger batch is worth a short wait; with an idle thread it is not.
            if room > 0 and (held < self._threads or room >= limit // 2):
                rooms.append((queue, room))
        return rooms

    def _fetch(self, rooms: list[tuple[str, int]]) -> bool:
        args: list[Any] = [redis.NAMESPACE, self._worker_id()]
        for queue, room in rooms:
            args += [queue, room]
        try:
            answer = redis.push().script(LUA / "fetch.lua", args)
            for place in range(0, len(answer), 3):
                self._sort_in(*answer[place : place + 3])
        except (Unavailable, ConfigError):  # no answer came, or its rest lies unsorted in our ack set
            self._lost_answer = True
            raise
        return bool(answer)

    def _sort_in(self, queue: str, redis_id: str, body: str | None) -> None:
        if body is None:  # the relay pushes it again
            self._finisher.forget([(queue, redis_id)])
            return
        try:
            message = json.loads(body)
            job_id, kind, options = str(message["args"][0]), str(message["actor_name"]), dict(message["options"])
            if not is_uuid(job_id):
                raise ValueError(job_id)
        except (ValueError, TypeError, LookupError, RecursionError):
            self._quarantine(queue, redis_id, body)
            return
        fetched = Fetched(queue, redis_id, job_id, kind, bool(options.get("alone")))
        (self._alone if fetched.alone and kind in self._known else self._fetched).append(fetched)

    def _quarantine(self, queue: str, redis_id: str, body: str) -> None:
        log.error("message_undecodable", queue=queue, redis_id=redis_id, size=len(body))
        metrics.QUARANTINED.inc()

        def store(client: Any) -> None:
            with client.pipeline(transaction=False) as pipeline:
                pipeline.lpush(redis.QUARANTINE, json.dumps({"queue": queue, "id": redis_id, "body": body[:100_000]}))
                pipeline.ltrim(redis.QUARANTINE, 0, 999).expire(redis.QUARANTINE, QUARANTINE_DAYS * 86400).execute()

        redis.push().call(store)
        self._finisher.forget([(queue, redis_id)])

    def _claim(self) -> None:
        unknown = [item for item in self._fetched if item.kind not in self._known]
        if unknown:
            log.warning("kind_unknown", kinds=sorted({item.kind for item in unknown}), jobs=len(unknown))
            until = clock.now() + PARKED_FOR
            database().transaction(admissions.park, [item.job_id for item in unknown], until)
            self._finisher.forget([(item.queue, item.redis_id) for item in unknown])
        known = [item for item in self._fetched if item.kind in self._known]
        self._claim_items(known, alone=False)
        self._fetched.clear()

    def _claim_alone(self) -> None:
        if not self._runs.wait_below(1, IDLE_S):
            return
        self._exclusive = True
        self._claim_items([self._alone[0]], alone=True)
        self._alone.popleft()

    def _claim_items(self, items: list[Fetched], *, alone: bool) -> None:
        """Claim the jobs; on an error the ids stay and are claimed again."""
        if not items:
            return
        by_id = {item.job_id: item for item in reversed(items)}
        ids = list(dict.fromkeys(item.job_id for item in items))
        claims = database().transaction(limited_claims.claim, ids, self._worker_id(), alone=alone)
        runs = []
        for claim in claims:
            item = by_id.pop(claim.id)
            runs.append(Run(claim, item.redis_id, item.queue))
        claimed = {run.redis_id for run in runs}
        self._finisher.forget([(item.queue, item.redis_id) for item in items if item.redis_id not in claimed])
        self._runs.add(runs)
        self._ready.extend(runs)

    def _wait_for_push(self) -> None:
        try:
            self._blocking.blpop([redis.WAKE.format(queue) for queue in self.queues], timeout=IDLE_S)
        except RedisError:
            self._blocking.close()
            self._lost_answer = True
            raise

    def _recover(self, known: set[str]) -> None:
        args: list[Any] = [redis.NAMESPACE, self._worker_id(), len(self.queues), *self.queues, *known]
        redis.push().script(LUA / "recover.lua", args)
