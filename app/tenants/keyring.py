"""Keys that this process has seen recently, checked every five seconds; revoking a key closes its open streams."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from functools import partial

from redis import Redis
from sqlalchemy.exc import SQLAlchemyError

from app.core import clock, redis
from app.core.db import in_transaction, read
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.tenants import keys
from app.tenants.keys import Key

log = get_logger(__name__)

FRESH_S = 5.0
# Unknown ids are remembered too, so that guessing an id costs one query; the oldest are dropped first.
MAX_REMEMBERED_KEYS = 10_000
# The time of a key's last use is written this often.
NOTE_S = 15.0
# The content of a notice: `key ID`, or `key *`.
NOTICE, EVERY = "key", "*"
# A dummy key, compared when an id is unknown, so that the comparison takes the same time.
_NOBODY = Key("", "", frozenset(), {}, bytes(32), None, None, None, True)


class KeyLease:
    """Ties the running task to a key: cancels the task when the key, or the secret it used, is no longer valid."""

    __slots__ = ("_digest", "_key_id", "_keyring")

    def __init__(self, keyring: Keyring, key_id: str, digest: bytes) -> None:
        self._keyring = keyring
        self._key_id = key_id
        self._digest = digest

    def begin(self) -> None:
        self._keyring.hold(self._key_id, self._digest)

    def end(self) -> bool:
        """Return True if the task was cancelled for its key, and undo that cancellation. Repeatable."""
        return self._keyring.release(self._key_id)


class Keyring:
    """Cache of keys; lives on one event loop, where `start()` and `close()` are called."""

    def __init__(self, *, fresh_s: float = FRESH_S) -> None:
        self._fresh_s = fresh_s
        self._seen: OrderedDict[str, tuple[float, Key | None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Key | None]] = {}
        self._used: dict[str, datetime] = {}
        # The open tasks of each key, with the digest of the secret that opened them.
        self._open: dict[str, dict[asyncio.Task[object], bytes]] = {}
        self._ended: set[asyncio.Task[object]] = set()
        self._heard: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._turn(), name="keyring")

    async def close(self) -> None:
        tasks = [task for task in (self._task, *self._asking.values(), *self._heard) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._note_use()

    async def find(self, token: bytes) -> Key | None:
        """Return the valid key with this token, or None. Raises Unavailable without SQL."""
        parts = keys.split(token)
        if parts is None:
            return None
        key = await self._get(parts[0])
        now = clock.now()
        if not (key or _NOBODY).opens(parts[1], now) or key is None:
            return None
        self._used[key.id] = now
        return key

    async def check(self, key_id: str, secret_hash: bytes) -> Key | None:
        """Return the valid key with this id whose secret has this SHA-256, or None. Raises Unavailable without SQL."""
        key = await self._get(key_id)
        return key if key is not None and key.takes(secret_hash, clock.now()) else None

    async def _get(self, key_id: str) -> Key | None:
        seen = self._seen.get(key_id)
        if seen is not None and clock.monotonic() - seen[0] < self._fresh_s:
            return seen[1]
        asking = self._asking.get(key_id)
        if asking is None:
            asking = self._asking[key_id] = asyncio.create_task(self._ask(key_id), name="keyring-ask")
        # Other callers await the same answer, so cancelling one of them must not cancel it.
        return await asyncio.shield(asking)

    async def _ask(self, key_id: str) -> Key | None:
        try:
            asked_at = clock.monotonic()
            key = (await read(keys.look_up, [key_id])).get(key_id)
            self._remember(key_id, asked_at, key)
            return key
        finally:
            self._asking.pop(key_id, None)

    def _remember(self, key_id: str, at: float, key: Key | None) -> None:
        self._seen[key_id] = (at, key)
        self._seen.move_to_end(key_id)
        if len(self._seen) > MAX_REMEMBERED_KEYS:
            self._seen.popitem(last=False)

    # Open event streams.

    def hold(self, key_id: str, digest: bytes) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.setdefault(key_id, {})[task] = digest

    def release(self, key_id: str) -> bool:
        task = asyncio.current_task()
        tasks = self._open.get(key_id)
        if task is None or tasks is None:
            return False
        tasks.pop(task, None)
        if not tasks:
            del self._open[key_id]
        if task not in self._ended:
            return False
        self._ended.discard(task)
        task.uncancel()
        return True

    async def changed(self, key_id: str | None) -> None:
        """Notify every process that a key has changed, None for several keys; each checks it again. Never raises."""
        await self._look_again(key_id)
        try:
            await asyncio.to_thread(redis.push().call, partial(_tell, key_id))
        except (Unavailable, ConfigError) as error:
            log.info("key_change_not_told", reason=error.message)  # the others check again within FRESH_S

    def hear(self, notice: str) -> None:
        """Handle a notice that another process sent with `changed`."""
        word, _, key_id = notice.partition(" ")
        if word == NOTICE:
            task = asyncio.create_task(self._look_again(None if key_id == EVERY else key_id), name="keyring-heard")
            self._heard.add(task)
            task.add_done_callback(self._heard.discard)

    async def _look_again(self, key_id: str | None) -> None:
        if key_id is None:
            self._seen.clear()
        await self._recheck_or_log(None if key_id is None else [key_id])

    async def recheck(self, key_ids: Iterable[str] | None = None) -> None:
        """Check these keys again, or all with open tasks; the tasks of an invalid key are cancelled."""
        ids = set(self._open) if key_ids is None else set(key_ids)
        for key_id in ids:
            self._seen.pop(key_id, None)
        held = ids & self._open.keys()
        if not held:
            return
        asked_at = clock.monotonic()
        by_id = await read(keys.look_up, held)
        now = clock.now()
        for key_id in held:
            key = by_id.get(key_id)
            self._remember(key_id, asked_at, key)
            held_open = self._open.get(key_id, {}).items()
            self._end(key_id, {task for task, digest in held_open if key is None or not key.takes(digest, now)})

    async def _recheck_or_log(self, key_ids: Iterable[str] | None = None) -> None:
        try:
            await self.recheck(key_ids)
        except (Unavailable, ConfigError, SQLAlchemyError) as error:
            log.info("keys_not_read", reason=str(error))

    def _end(self, key_id: str, tasks: set[asyncio.Task[object]]) -> None:
        tasks -= self._ended
        if tasks:
            log.info("streams_closed", key_id=key_id, streams=len(tasks))
        for task in tasks:
            self._ended.add(task)
            task.cancel()

    async def _turn(self) -> None:
        noted = clock.monotonic()
        while True:
            await asyncio.sleep(self._fresh_s)
            await self._recheck_or_log()
            if clock.monotonic() - noted >= NOTE_S:
                noted = clock.monotonic()
                await self._note_use()

    async def _note_use(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await in_transaction(keys.note_use, used)
        except (Unavailable, ConfigError, SQLAlchemyError) as error:
            log.info("last_use_not_noted", reason=str(error))


def _tell(key_id: str | None, client: Redis) -> None:
    client.publish(redis.NOTICES_CHANNEL, f"{NOTICE} {key_id or EVERY}")
