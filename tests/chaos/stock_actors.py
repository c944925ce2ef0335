"""The same kinds of job for plain Dramatiq: its own broker, its own retries, effects in a SQLite file."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage

SCHEMA = """
CREATE TABLE IF NOT EXISTS effect (job_id TEXT, effect INTEGER);
CREATE TABLE IF NOT EXISTS done (job_id TEXT);
CREATE INDEX IF NOT EXISTS ix_effect ON effect (job_id);
"""

broker = RedisBroker(url=os.environ["STOCK_REDIS_URL"])  # type: ignore[no-untyped-call]
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(Path(os.environ["STOCK_DATABASE"]), timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    return connection


def _write_effect(job_id: str, effect: int) -> None:
    """Looks first, as ours do; nothing fences it."""
    with closing(connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        existing = connection.execute("SELECT 1 FROM effect WHERE job_id = ? AND effect = ?", (job_id, effect))
        if existing.fetchone() is None:
            connection.execute("INSERT INTO effect VALUES (?, ?)", (job_id, effect))
        connection.execute("COMMIT")


def _end(job_id: str) -> None:
    with closing(connect()) as connection:
        connection.execute("INSERT INTO done VALUES (?)", (job_id,))


@dramatiq.actor(min_backoff=100, max_backoff=300, max_retries=20)
def steps(job_id: str, effects: int, pause_s: float) -> None:
    for effect in range(effects):
        _write_effect(job_id, effect)
        time.sleep(pause_s)
    _end(job_id)


@dramatiq.actor(min_backoff=100, max_backoff=300, max_retries=20)
def flaky(job_id: str, effects: int) -> None:
    message = CurrentMessage.get_current_message()
    tries = message.options.get("retries", 0) if message else 0
    for effect in range(min(tries + 1, effects)):
        _write_effect(job_id, effect)
    if tries + 1 < effects:
        raise RuntimeError(f"try {tries + 1} of {effects} fails")
    _end(job_id)
