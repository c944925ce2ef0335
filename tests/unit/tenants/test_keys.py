"""Keys: what opens, what does not, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import Database
from app.core.errors import Conflict, InvalidInput, NotFound
from app.tenants import directory, keys, scopes
from app.tenants.keys import Key
from app.tenants.models import ApiKey


def issue(db: Database, tenant: str = "default", **more: object) -> tuple[ApiKey, str]:
    options = {"name": "n", "scopes": ["read"], "created_by": "test"} | more
    return db.transaction(lambda session: keys.issue(session, tenant, **options))  # type: ignore[arg-type]


def looked_up(db: Database, key_id: str) -> Key:
    return db.read(keys.look_up, [key_id])[key_id]


def opens(db: Database, token: str) -> bool:
    parts = keys.split(token.encode())
    assert parts is not None
    return looked_up(db, parts[0]).opens(parts[1], clock.now())


@pytest.fixture
def advance_clock() -> Iterator[object]:
    """Moves the clock: `advance_clock(hours=1)`."""
    yield lambda **delta: clock.shift(timedelta(**delta))
    clock.shift(timedelta(0))


def test_key_is_valid_with_its_secret_only(db: Database) -> None:
    key, token = issue(db)
    _, other = issue(db)
    assert token.startswith(f"mr_{key.id}_")
    assert opens(db, token)
    assert not opens(db, f"mr_{key.id}_{other.rpartition('_')[2]}"[: len(token)].ljust(len(token), "A"))
    assert token.encode() not in key.secret_hash
    assert len(key.secret_hash) == 32


@pytest.mark.parametrize(
    "token", [b"", b"mr_", b"mr__", b"mr_0123456789abcdef_", b"mr_0123456789ABCDEF_" + b"A" * 43, b"\xff" * 63]
)
def test_malformed_key_is_rejected(token: bytes) -> None:
    assert keys.split(token) is None


def test_rotated_key_accepts_the_old_secret_during_the_overlap(db: Database, advance_clock: object) -> None:
    key, old = issue(db)
    _, new = db.transaction(keys.rotate, "default", key.id, timedelta(hours=1))
    assert opens(db, old) and opens(db, new)
    advance_clock(hours=2)  # type: ignore[operator]
    assert (opens(db, old), opens(db, new)) == (False, True)
    _, newest = db.transaction(keys.rotate, "default", key.id, timedelta(0))
    assert (opens(db, new), opens(db, newest)) == (False, True)


def test_revoked_key_is_invalid_and_cannot_be_rotated(db: Database) -> None:
    key, token = issue(db)
    first = db.transaction(keys.revoke, "default", key.id).revoked_at
    assert db.transaction(keys.revoke, "default", key.id).revoked_at == first
    assert not opens(db, token)
    with pytest.raises(Conflict):
        db.transaction(keys.rotate, "default", key.id, timedelta(0))


def test_expired_key_is_invalid(db: Database, advance_clock: object) -> None:
    _, token = issue(db, expires_at=clock.now() + timedelta(minutes=1))
    assert opens(db, token)
    advance_clock(minutes=2)  # type: ignore[operator]
    assert not opens(db, token)
    with pytest.raises(InvalidInput):
        issue(db, expires_at=clock.now() - timedelta(seconds=1))


def test_keys_of_a_disabled_tenant_are_invalid_until_it_is_enabled(db: Database) -> None:
    db.transaction(directory.create, "acme", "Acme", {})
    _, token = issue(db, "acme")
    db.transaction(directory.change, "acme", {"disabled": True})
    assert not opens(db, token)
    db.transaction(directory.change, "acme", {"disabled": False})
    assert opens(db, token)
    with pytest.raises(Conflict):
        db.transaction(directory.change, "default", {"disabled": True})


def test_key_of_another_tenant_is_not_found(db: Database) -> None:
    db.transaction(directory.create, "acme", "Acme", {})
    key, _ = issue(db, "acme")
    for call in (
        lambda session: keys.get(session, "default", key.id),
        lambda session: keys.revoke(session, "default", key.id),
        lambda session: keys.rotate(session, "default", key.id, timedelta(0)),
        lambda session: keys.issue(session, "nobody", name="n", scopes=["read"], created_by="t"),
    ):
        with pytest.raises(NotFound):
            db.transaction(call)
    assert [k.id for k in db.read(keys.list_keys, "acme", before_id=None, limit=5)] == [key.id]
    assert db.read(keys.list_keys, "default", before_id=None, limit=5) == []


def test_last_use_never_moves_back(db: Database) -> None:
    key, _ = issue(db)
    now = clock.now()
    for at in (now, now - timedelta(hours=1)):
        db.transaction(keys.note_use, {key.id: at})

    def last_used(session: Session) -> datetime | None:
        return keys.get(session, None, key.id).last_used_at

    assert db.read(last_used) == now


@pytest.mark.parametrize("bad", [[], ["root"], ["kind:"], ["kind:a b"], ["kind:**"], ["read\0"], ["collection"]])
def test_unknown_scopes_are_refused(bad: list[str]) -> None:
    with pytest.raises(InvalidInput):
        scopes.check_scopes(bad)


def test_scopes_allow_their_operations_only() -> None:
    assert scopes.check_scopes(["write", "read", "read"]) == ["read", "write"]
    assert not scopes.allows(["write"], "read") and not scopes.allows(["read"], "write")
    assert all(scopes.allows(["admin"], scope) for scope in ("read", "write", "admin"))
    assert not scopes.allows(["admin"], "operator") and scopes.allows(["operator"], "admin")
    assert scopes.names(["kind:a", "read", "collection:c"], "kind") == ("a",)
    assert scopes.among("shop.receipt", ["shop.*"]) and not scopes.among("shop.receipt", ["shop", "Shop.*"])
    assert scopes.may_grant(["admin"], ["admin", "kind:x"]) and not scopes.may_grant(["admin"], ["operator"])
    assert not scopes.may_grant(["write"], ["read"])
