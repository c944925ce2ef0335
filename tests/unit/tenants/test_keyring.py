"""The keys that a process has cached: read once, updated on changes; a revoked key closes its streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta

import sqlalchemy as sa

from app.core.db import Database, in_transaction
from app.tenants import keys
from app.tenants.keyring import Keyring
from app.tenants.models import ApiKey

Scenario = Callable[[Keyring], Coroutine[None, None, None]]
NEVER_S = 3600.0


def issue(db: Database) -> tuple[str, bytes]:
    key, token = db.transaction(
        lambda session: keys.issue(session, "default", name="n", scopes=["read"], created_by="test")
    )
    return key.id, token.encode()


def run(scenario: Scenario, fresh_s: float = NEVER_S) -> None:
    async def started() -> None:
        keyring = Keyring(fresh_s=fresh_s)
        keyring.start()
        try:
            await scenario(keyring)
        finally:
            await keyring.close()

    asyncio.run(started())


def revoke(db: Database, key_id: str) -> Coroutine[None, None, ApiKey]:
    return in_transaction(keys.revoke, None, key_id)


def queries(db: Database) -> list[str]:
    """Every statement about keys from now on."""
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "FROM api_key" in statement:
            seen.append(statement)

    sa.event.listen(db.engine, "before_cursor_execute", note)
    return seen


async def held(keyring: Keyring, key_id: str, token: bytes, begun: asyncio.Event) -> str:
    """An open stream: how it ended."""
    keyring.hold(key_id, keys.digest(token))
    begun.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not keyring.release(key_id):
            raise
        return "closed"
    return "never"


def test_concurrent_lookups_of_a_key_make_one_query(db: Database) -> None:
    _, token = issue(db)
    unknown = b"mr_0123456789abcdef_" + b"A" * 43

    async def scenario(keyring: Keyring) -> None:
        seen = queries(db)
        keys = await asyncio.gather(*(keyring.find(token) for _ in range(20)))
        assert all(key is not None and key.tenant == "default" for key in keys)
        assert len(seen) == 1
        assert [await keyring.find(unknown) for _ in range(3)] == [None] * 3
        assert await keyring.find(b"Basic dTpw") is None
        assert await keyring.find(token[:-1] + (b"A" if token[-1:] != b"A" else b"B")) is None
        assert len(seen) == 2

    run(scenario)


def test_cancelled_caller_does_not_cancel_the_lookup(db: Database) -> None:
    _, token = issue(db)

    async def scenario(keyring: Keyring) -> None:
        leaving, staying = (asyncio.create_task(keyring.find(token)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying is not None

    run(scenario)


def test_notice_of_a_revocation_takes_effect_at_once(db: Database) -> None:
    """Nothing else would make this one look again within an hour."""
    key_id, token = issue(db)

    async def scenario(keyring: Keyring) -> None:
        assert await keyring.find(token) is not None
        begun = asyncio.Event()
        stream = asyncio.create_task(held(keyring, key_id, token, begun))
        await begun.wait()
        await revoke(db, key_id)
        assert await keyring.find(token) is not None
        keyring.hear("something else")
        keyring.hear(f"key {key_id}")
        assert await asyncio.wait_for(stream, 20) == "closed"
        assert await keyring.find(token) is None

    run(scenario)


def test_stream_ends_at_the_next_recheck_without_a_notice(db: Database) -> None:
    """As when Redis was away while the key was revoked."""
    (key_id, token), (other_id, other_token) = issue(db), issue(db)

    async def scenario(keyring: Keyring) -> None:
        assert await keyring.find(token) is not None
        begun, others = asyncio.Event(), asyncio.Event()
        stream = asyncio.create_task(held(keyring, key_id, token, begun))
        other = asyncio.create_task(held(keyring, other_id, other_token, others))
        await asyncio.gather(begun.wait(), others.wait())
        await revoke(db, key_id)
        assert await asyncio.wait_for(stream, 20) == "closed"
        assert not other.done()
        other.cancel()
        assert isinstance((await asyncio.gather(other, return_exceptions=True))[0], asyncio.CancelledError)

    run(scenario, fresh_s=0.1)


def test_rotation_closes_streams_of_the_old_secret_after_the_overlap(db: Database) -> None:
    key_id, first = issue(db)

    async def scenario(keyring: Keyring) -> None:
        begun = asyncio.Event()
        stream = asyncio.create_task(held(keyring, key_id, first, begun))
        await begun.wait()
        _, second = await in_transaction(keys.rotate, None, key_id, timedelta(hours=1))
        await keyring.recheck([key_id])
        assert await keyring.find(first) is not None
        assert not stream.done()
        await in_transaction(keys.rotate, None, key_id, timedelta(0))
        await keyring.recheck([key_id])
        assert await asyncio.wait_for(stream, 20) == "closed"
        assert await keyring.find(second.encode()) is None

    run(scenario)


def test_the_last_use_is_written_when_the_process_ends(db: Database) -> None:
    key_id, token = issue(db)

    async def scenario(keyring: Keyring) -> None:
        await keyring.find(token)

    run(scenario)

    def last_used(session: sa.orm.Session) -> datetime | None:
        return keys.get(session, None, key_id).last_used_at

    assert db.read(last_used) is not None
